# Shared by all stages: the definition of this run, the names of its files, and the params by which Snakemake sees that a
# step is stale (docs/how-it-works.md, "When a step is stale").
#
# gives    CONFIG, this_run, RUN, MODELS, SPLITS, ENGINE, FILTERING, THREADS; gpu_share; logs, benchmarks, scripts; permission; tracked, untracked, code;
#          pick, pick_outputs, omit, one_of
import os
import re
import sys
from pathlib import Path

sys.path[:0] = [str(Path(workflow.basedir, part)) for part in ("scripts", "rules")]  # neither is an installed package

import msgspec
import snakemake_patches
from snaketune.config import schema as configuration
from snaketune.files import sha256
from snaketune.runtime import events
from snaketune.runtime.code_digest import code_digest
from snaketune.runtime.engine import computes_on_card
from snaketune.runtime.progress import format_list
from snaketune.runtime.step import ENGINE_VARIABLE
from snaketune.errors import UserError
from snaketune.evaluate import step_config as evaluate_settings
from snaketune.run_definition import (
    DEMO_FILES,
    MODELS,
    RESULTS,
    SPLITS,
    config_manifest,
    define_run,
    manifest,
    template_config,
    template_file,
    tracked_train,
    unquantized,
    untracked_train,
)
from snaketune.config.experiments import SAFE_NAME
from snaketune.trainers import BUILTIN
from snaketune.trainers.environment import code_of


def load_config(overrides, config_files):
    """The complete configuration. config.yaml is read only when no --configfile is given: Snakemake would merge both."""
    for file in config_files:
        configuration.read(file)  # for what Snakemake takes in silence, such as a key that stands twice
    if not config_files:
        own = configuration.read(Path(workflow.basedir, "config.yaml"))
        snakemake.utils.update_config(own, overrides)
        overrides = own
    return configuration.complete(overrides)


def exit_on_user_error(function, *arguments):
    """A mistake in the configuration ends the run with its sentences, before anything is built."""
    try:
        return function(*arguments)
    except UserError as error:
        print(f"snaketune: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def rows_from(run):
    """The data files of a run in words; of more than three, the first two."""
    files = run.sources or [source.hub for source in run.config.data.sources if source.hub]
    named = files if len(files) <= 3 else [*files[:2], f"{len(files) - 2} more files"]
    return format_list(named)


CONFIG = exit_on_user_error(load_config, config, workflow.overwrite_configfiles)
config.clear()
config.update(CONFIG)  # Snakemake's report and the processes of its jobs take the completed settings from here

this_run = exit_on_user_error(define_run, CONFIG)
RUN = this_run.folder
ENGINE = this_run.engine.name  # also the environment of the steps that compute with it
COMPUTES_ON_GPU = sys.platform == "darwin" or computes_on_card(ENGINE)

# the process of a job sees the cores of the job alone
if workflow.resource_settings.cores:
    os.environ.setdefault("SNAKETUNE_CORES", str(workflow.resource_settings.cores))
THREADS = this_run.threads(int(os.environ.get("SNAKETUNE_CORES", 0)) or None)

# each step computes with this engine, and its code digest covers no other one
os.environ[ENGINE_VARIABLE] = ENGINE

# the steps write what happens there, and the display of snakemake_logger_plugin_snaketune follows it
os.environ[events.EVENTS_VARIABLE] = str(Path(RUN, "events.jsonl").absolute())
logger.info(
    f'snaketune: run "{this_run.name}" of {snakemake_patches.config_name(workflow)}, rows from {rows_from(this_run)}; '
    f"results in {RUN}",
    extra={"snaketune_run": RUN},
)

exit_on_user_error(snakemake_patches.apply, workflow, RESULTS, this_run.name)


onstart:
    snakemake_patches.on_start(workflow, RESULTS)


def gpu_share(wildcards):
    """How many GPUs of this machine a job takes: one training or generation runs at a time where they share one.

    A cluster gives each job what it requests with options of its own. Only when jobs are made is it known who runs them.
    """
    return int(COMPUTES_ON_GPU and workflow.local_exec)


def logs(name, folder=RUN):
    return f"{folder}/logs/{name}.log"


def benchmarks(name, folder=RUN):
    return f"{folder}/benchmarks/{name}.tsv"


def digest_of_optional(file):
    """The SHA-256 of a file that need not be there; None where it is not."""
    return sha256(file) if Path(file).is_file() else None


def permission(file):
    """An input that makes nothing stale; a copy, since ancient() marks a rule's output itself, for all that read it."""
    return ancient(str(file))


def scripts(step):
    return f"../scripts/{step}.py"


def tracked(**sections):
    """What a step depends on, as one JSON string with sorted keys: another string makes the step stale.

    A section may be a function of the wildcards. Names and order of experiments go into lists, never into keys. The
    result is a function because in a plain string Snakemake would take the braces of a system prompt for wildcards.
    """
    if not any(map(callable, sections.values())):
        text = params_json(sections)
        return lambda wildcards: text
    return lambda wildcards: params_json(sections, wildcards)


def tracked_record(record):
    """The same for one typed record."""
    text = configuration.canonical(msgspec.to_builtins(record))
    return lambda wildcards: text


def untracked(**sections):
    """What a step is told and does not become stale by. Snakemake compares no params that are functions of the input."""
    return lambda wildcards, input: params_json(sections, wildcards)


def params_json(sections, wildcards=None):
    sections = {name: part(wildcards) if callable(part) else part for name, part in sections.items()}
    return configuration.canonical(msgspec.to_builtins(sections))


def code(step, environment):
    """The digest of a step's script, of the library modules that it imports and of its environment file."""
    here = Path(workflow.basedir)
    return code_digest(here / "scripts" / f"{step}.py", here / "envs" / f"{environment}.yaml")


def training_code(step, environment):
    """The digest of what trains an experiment, so that a change in one trainer leaves the adapters of others alone."""

    def digest(wildcards):
        trainer = experiment_of(wildcards).train.trainer
        own = code(step, environment)
        return own if trainer == BUILTIN else f"{own} {code_of(trainer)}"

    return digest


def pick(section, *keys):
    """Some keys of a section of the configuration, which is a mapping or a typed record."""
    section = msgspec.to_builtins(section)
    return {key: section[key] for key in keys}


def pick_outputs(rule, names):
    """Some outputs of a rule by their names."""
    return {name: rule.output[name] for name in names}


def omit(section, *keys):
    return {key: value for key, value in section.items() if key not in keys}


def one_of(names):
    """A regular expression for one of some names."""
    return "|".join(re.escape(name) for name in sorted(names)) or "(?!)"


def base_files(key, weights):
    """What an unquantized base is read from, as far as it lies on this machine."""
    if this_run.unquantized_bases[key].base == "demo":
        return DEMO_FILES
    return exit_on_user_error(lambda: this_run.base_files(key, weights=weights))


def experiment_of(wildcards):
    """The experiment that a job belongs to; the pilot's for jobs that belong to none, as those of packaging."""
    return this_run.experiments.get(wildcards.get("experiment"), this_run.pilot_experiment)


wildcard_constraints:
    experiment=SAFE_NAME.pattern,  # with a thousand names in the expression, they would be read at every match
    type="[A-Za-z0-9_]+",
    fraction="[0-9.e-]+",
    split="validation|test",


FILTERING = pick(CONFIG["data"], "max_length", "on_too_long")  # which rows are trained on, and how much of each
