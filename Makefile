# make            set everything up, then run the demo to its report
# make test       set everything up, then run the tests (about 12 minutes on two cores)
# make help       all targets
.DEFAULT_GOAL := demo
.PHONY: demo setup setup-dev test test-all test-cluster lint bench trainer tool test-trainers upgrade releases new run import chat lora-base verify unpack version ui docs lock doctor clean help

PYTHON := .venv/bin/python
# a file of tests stays on one core, since its tests share fixtures that take long to make
PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
export PYTHONPATH := scripts
export PATH := $(CURDIR)/.venv/bin:$(PATH)

demo: setup ## run the embedded demo to results/demo/report/index.html
	@SNAKETUNE_COMMAND=make snakemake

setup: ## set up .venv and vendor; what is already right is skipped; ENGINE=torch: CUDA where a card is
	@bash setup/run.sh --engine "$(ENGINE)"

setup-dev: ## the same, and what the tests need
	@bash setup/run.sh --dev --engine "$(ENGINE)"

lock: ## write requirements*.lock anew from requirements*.txt
	@bash setup/lock.sh

upgrade: setup-dev ## try the newest versions apart, and raise the pins if everything holds; ONLY="mlx mlx-lm"
	@$(PYTHON) setup/upgrade.py --only "$(ONLY)"

releases: setup-dev ## write which releases after the pins know which models, for the plan's refusals
	@$(PYTHON) setup/newer_releases.py

test: setup-dev lint ## style, types, unit, workflow and end-to-end tests
	@$(PYTHON) -m pytest $(PARALLEL) -m "not slow"

test-all: setup-dev lint ## the same and the slow half
	@$(PYTHON) -m pytest $(PARALLEL)

test-cluster: setup-dev ## run the chain on a real Slurm, which root installs on Debian
	@bash setup/slurm.sh
	@$(PYTHON) -m pytest -m cluster

lint: setup-dev ## ruff, mypy, layers of imports, snakefmt, snakemake --lint
	@ruff check .
	@ruff format --check --quiet .
	@mypy
	@lint-imports --no-logo
	@$(PYTHON) tests/structure.py
	@snakefmt --check --compact-diff Snakefile rules
	@snakemake --lint

bench: setup-dev ## measure against others and write docs/benchmarks.md
	@$(PYTHON) benchmarks/run.py

trainer: setup ## build one trainer of the field: make trainer NAME=trl
	@$(PYTHON) setup/trainer.py "$(NAME)"

tool: setup ## build the environment of a tool beside the set-up: make tool NAME=lm-eval
	@$(PYTHON) setup/trainer.py "$(NAME)"

test-trainers: setup-dev ## train with every trainer that is built (make trainer NAME=...)
	@$(PYTHON) -m pytest tests/trainers

new: setup ## write a configuration of your own: make new NAME=jessy-v1 PRESET=... (or DATA=rows.csv, or both)
	@$(PYTHON) -m snaketune.importers.data_file "$(NAME)" "$(PRESET)" "$(DATA)"

import: setup ## make one out of another tool's: make import FROM=axolotl.yaml NAME=mine
	@$(PYTHON) -m snaketune.importers.command "$(FROM)" "$(NAME)" "$(WITHOUT)"

run: setup ## run a configuration, or one stage of it: make run CONFIG=mine.yaml [STAGE=pilot]
	@test -n "$(CONFIG)" || { echo "snaketune: say which configuration: make run CONFIG=mine.yaml [STAGE=pilot]. The demo is plain make." >&2; exit 1; }
	@SNAKETUNE_COMMAND="make run CONFIG=$(CONFIG)$(if $(STAGE), STAGE=$(STAGE))" snakemake $(STAGE) --configfile "$(CONFIG)"

chat: setup ## ask base and tuned model side by side: make chat RUN=demo
	@$(PYTHON) -m snaketune.evaluate.chat "results/$(or $(RUN),demo)"

lora-base: setup ## the base as a GGUF, for llama-server --lora: make lora-base RUN=demo
	@$(PYTHON) -m snaketune.package.gguf_conversion "results/$(or $(RUN),demo)"

ui: setup ## the local page: set up, watch, judge and improve runs; make ui ARGS="--port 8471"
	@$(PYTHON) -m snaketune.ui.server $(ARGS)

doctor: ## what this machine has, what each thing is for, and how to get what is missing
	@test -f .venv/.done-packages || { echo "snaketune: nothing is set up here yet; run make setup" >&2; exit 1; }
	@$(PYTHON) -m snaketune.doctor

verify: ## prove that a bundle is whole, and that a run has its files: make verify BUNDLE=demo.zip [RUN=demo]
	@$(PYTHON) -m snaketune.bundle.handover verify "$(BUNDLE)" "$(RUN)"

unpack: ## put a bundle's configuration and inputs here, to run it again: make unpack BUNDLE=demo.zip
	@$(PYTHON) -m snaketune.bundle.handover unpack "$(BUNDLE)"

version: ## the version of this project, and of what its results depend on
	@$(PYTHON) -m snaketune.runtime.provenance

docs: setup-dev ## regenerate what is generated in docs/
	@$(PYTHON) -m snaketune.config.docs docs/configuration.md config.yaml
	@$(PYTHON) -m snaketune.evaluate.run_metrics docs/evaluation.md
	@$(PYTHON) -m snaketune.importers.reference docs/moving-in.md
	@$(PYTHON) benchmarks/plan/presets.py >/dev/null

clean: ## remove the demo's results (set-up stays)
	rm -rf results/demo results/models .snakemake

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 12
