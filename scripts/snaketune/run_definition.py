"""The definition of one run: its configuration, experiments and base models, and the names of its files.

Built once from a complete configuration while Snakemake reads the rules, and in every job again: no heavy imports here.
The rules read it instead of working things out, so that what they work with can be tested without Snakemake.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from snaketune.config.experiments import Experiment, expand, methods
from snaketune.config.products import MLXType, check_imatrix, types_with_imatrix
from snaketune.config.sections import RESULT_NEUTRAL_KEYS, ModelConfig, RunConfig
from snaketune.contracts.data import SPLITS
from snaketune.data import sources as data_sources
from snaketune.errors import ModelError
from snaketune.evaluate import step_config as evaluate_settings
from snaketune.files import read_json
from snaketune.model import manifest as base_models
from snaketune.plan import architecture
from snaketune.runtime.engine import EngineChoice, choose_engine
from snaketune.tokens import template_files
from snaketune.trainers.capabilities import check_settings as check_trainer

RESULTS = "results"
MODELS = f"{RESULTS}/models"  # outside any run: a base is downloaded and quantized once for all
DEMO_FILES = [
    f"{MODELS}/demo/{file}"
    for file in (
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    )
]
LARGE = 300_000_000  # weights of a model of which one at a time is run, on all cores


@dataclass(frozen=True)
class RunDefinition:
    """What one configuration asks for; the fields keep the configuration's order."""

    config: RunConfig
    sources: tuple[str, ...]
    """The local files that data.sources names."""
    experiments: dict[str, Experiment]
    """By name; one called `main` where the configuration names none."""
    variants: tuple[str, ...]
    """The models to evaluate, the base first: base, prompted, adapter, fused, gguf-<type>, mlx-<type>, previous."""
    similarity_model: str | None
    """The GGUF of the embedding model that evaluate.similarity names."""
    engine: EngineChoice
    """What trains, answers and fuses."""

    @property
    def name(self) -> str:
        return self.config.run

    @property
    def folder(self) -> str:
        return f"{RESULTS}/{self.name}"

    # experiments

    @property
    def pilot_experiment(self) -> Experiment:
        """The experiment that the pilot tries: the first one."""
        return next(iter(self.experiments.values()))

    @property
    def selects_by_metric(self) -> bool:
        """Whether generated answers, and not the validation loss, decide between experiments."""
        return self.config.select.metric != "validation_loss"

    @property
    def methods(self) -> list[dict[str, object]]:
        """The experiments that differ in their seeds alone, as evaluate.bake_off.MethodConfig has them."""
        return [{"name": name, "experiments": group} for name, group in methods(self.experiments).items()]

    def experiment_files(self, name: str) -> list[str]:
        """That file of each experiment's training, in the order of the experiments."""
        return [f"{self.folder}/train/{experiment}/{name}" for experiment in self.experiments]

    def candidate_files(self, name: str) -> dict[str, str]:
        """What the selection reads of one experiment, as contracts.evaluate.Candidate names it."""
        folder = f"{self.folder}/train/{name}"
        files = {
            "summary": f"{folder}/summary.json",
            "adapter": f"{folder}/adapters.safetensors",
            "adapter_config": f"{folder}/adapter_config.json",
            "manifest": manifest(self.experiments[name].model),
        }
        return files | ({"scores": f"{folder}/validation/scores.json"} if self.selects_by_metric else {})

    # base models

    def threads(self, cores: int | None) -> int:
        """CPU threads of a step that loads a model: `threads`, or all cores where a base is a large model.

        Several large ones side by side would each take its memory, and be no faster together. cores: that this run may
        use; None on a cluster, where each step gets what `threads` asks for.
        """
        if cores is None or not any(map(_is_large, self.unquantized_bases.values())):
            return self.config.threads
        return max(self.config.threads, cores)

    @cached_property
    def base_models(self) -> dict[str, ModelConfig]:
        """The `model` section of each base as it is trained, by the base's name under results/models."""
        return {base_models.model_key(one.model): one.model for one in self.experiments.values()}

    @cached_property
    def unquantized_bases(self) -> dict[str, ModelConfig]:
        """The bases as they are fetched, before any quantization of ours."""
        models = self.base_models.values()
        return {base_models.plain_key(model): unquantized(model) for model in models}

    @cached_property
    def tokenizations(self) -> dict[str, Experiment]:
        """One experiment for each way to make tokens of the rows, by the name of its folder of tokens."""
        return {tokens_key(one): one for one in self.experiments.values()}

    @cached_property
    def shared_base(self) -> str | None:
        """The manifest of the base, where all experiments train the same one and read it in the same way."""
        first, *others = (one.model for one in self.experiments.values())
        virtual = any(one.train.virtual_tokens for one in self.experiments.values())
        return manifest(first) if not virtual and all(other == first for other in others) else None

    def base_files(self, key: str, *, weights: bool) -> list[str]:
        """The files on this machine that an unquantized base is read from; none for the demo's and those of the hub."""
        base = self.unquantized_bases[key].base
        if base == "demo" or not base_models.is_local(base):
            return []
        files = base_models.local_files(base)
        return [file for file in files if weights or not file.endswith(".safetensors")]

    def token_stores(self, experiment: Experiment) -> dict[str, str]:
        """The token store of each split, as an experiment reads the rows."""
        folder = f"{self.folder}/data/tokens/{tokens_key(experiment)}"
        return {split: f"{folder}/{split}.safetensors" for split in SPLITS}

    @cached_property
    def template_files(self) -> list[str]:
        """The chat templates that are files of the user's own, of all experiments."""
        return sorted({file for one in self.experiments.values() for file in template_file(one.model)})

    @cached_property
    def input_files(self) -> list[str]:
        """Every file of the user's own that the run is made from, but for the code of custom metrics."""
        bases = [file for key in self.unquantized_bases for file in self.base_files(key, weights=True)]
        others = [self.config.evaluate.forgetting.rows, self.similarity_model]
        return sorted({*self.sources, *self.template_files, *bases, *filter(None, others)})

    # evaluation

    def check_lm_eval(self) -> None:
        """Raise EvaluationError where lm-evaluation-harness could compare none of the experiments with its base."""
        if all(one.train.method == "prompt" for one in self.experiments.values()):
            from snaketune.evaluate import lm_eval

            raise lm_eval.prompt_tuning_error()

    # packaging

    @property
    def gguf_types(self) -> list[str]:
        return self.config.package.gguf

    def gguf(self, kind: str) -> str:
        """The GGUF file of a type."""
        return f"{self.folder}/model/{self.name}-{kind}.gguf"

    @property
    def imatrix_types(self) -> list[str]:
        """The types of package.gguf that are made with an importance matrix."""
        return types_with_imatrix(self.gguf_types, self.config.package.imatrix)

    def imatrix_record(self, kind: str) -> str:
        """What the importance matrix came to in the GGUF of a type."""
        return f"{self.folder}/model/{self.name}-{kind}.imatrix.json"

    def mlx_folder(self, kind: str) -> str:
        """The folder of a type of package.mlx; its manifest is the same with .json."""
        return f"{self.folder}/model/{self.name}-mlx-{kind}"

    def calibration_splits(self, kind: str) -> list[str]:
        """The splits that a type of package.mlx is calibrated on and judged by."""
        return ["train", "valid"] if MLXType.named(kind).calibration else []

    @property
    def mlx_folders(self) -> list[str]:
        return [self.mlx_folder(kind) for kind in self.config.package.mlx]

    @property
    def mlx_manifests(self) -> list[str]:
        return [f"{folder}.json" for folder in self.mlx_folders]

    @property
    def exports_adapter(self) -> bool:
        """Whether the adapter is also handed over alone, which the formats allow for LoRA only."""
        return self.config.package.adapter and all(one.train.method == "lora" for one in self.experiments.values())


def define_run(config: dict[str, Any]) -> RunDefinition:
    """The run that a complete configuration asks for; raises UserError for a mistake that can be seen in it."""
    run = msgspec.convert(config, RunConfig)
    evaluate_settings.check_metrics(run)
    check_imatrix(run.package.gguf, run.package.imatrix)
    experiments = expand(run)
    for one in experiments.values():
        check_trainer(one.train, one.model, f"experiments.{one.name}" if run.experiments else "train")
    defined = RunDefinition(
        config=run,
        sources=tuple(data_sources.files(run.data.sources)),
        experiments=experiments,
        variants=tuple(evaluate_settings.variants(run)),
        similarity_model=evaluate_settings.similarity_model(run),
        engine=choose_engine(run, [one.model for one in experiments.values()]),
    )
    if run.evaluate.lm_eval_tasks:
        defined.check_lm_eval()
    return defined


def tracked_train(experiment: Experiment) -> dict[str, object]:
    """The keys of `train` that change the adapter."""
    return {
        key: value for key, value in msgspec.to_builtins(experiment.train).items() if key not in RESULT_NEUTRAL_KEYS
    }


def untracked_train(experiment: Experiment) -> dict[str, object]:
    """The keys of `train` that leave the adapter as it is, such as memory_limit; changing them trains nothing."""
    return {key: value for key, value in msgspec.to_builtins(experiment.train).items() if key in RESULT_NEUTRAL_KEYS}


def tokens_key(experiment: Experiment) -> str:
    """The name of the folder of an experiment's tokens."""
    return base_models.tokens_key(experiment.model, experiment.train.virtual_tokens)


def template_config(experiment: Experiment) -> dict[str, object]:
    """What an experiment's tokens depend on, as tokens.tokenize.TemplateConfig has it."""
    return {"chat_template": experiment.model.chat_template, "num_virtual_tokens": experiment.train.virtual_tokens}


def unquantized(model: ModelConfig) -> ModelConfig:
    """The base as it is fetched."""
    return msgspec.structs.replace(model, quantize=None)


def manifest(model: ModelConfig) -> str:
    """The manifest of a base as it is trained, weights and all."""
    return f"{MODELS}/{base_models.model_key(model)}.json"


def config_manifest(model: ModelConfig) -> str:
    """The manifest of a base's configuration and tokenizer, which are there before its weights."""
    return f"{MODELS}/{base_models.plain_key(model)}.config.json"


def _is_large(model: ModelConfig) -> bool:
    """Whether a base has at least LARGE weights. One of the hub is taken for large until its config.json is here."""
    if model.base == "demo":
        return False
    folder = model.base
    if not base_models.is_local(folder):
        if not Path(config_manifest(model)).is_file():
            return True
        folder = read_json(config_manifest(model))["folder"]
    path = Path(folder).expanduser() / "config.json"
    try:
        return path.is_file() and architecture.read(read_json(path)).parameters >= LARGE
    except ModelError:  # the plan says what is wrong with it
        return False


def template_file(model: ModelConfig) -> list[str]:
    """The chat template of a `model` section where it is a file of the user's own, as a list of at most one."""
    template = model.chat_template
    return [template] if template and template not in template_files.NAMED else []
