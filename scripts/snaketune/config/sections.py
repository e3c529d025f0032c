"""The settings of a run as typed records, one for each section of the configuration.

Names, order, types and nullability follow schemas/, which also holds each key's meaning, unit and default; a test
compares the two. The records have no defaults of their own: a step that is handed a part of a section then fails
on a missing key instead of reading a default that the user has overridden. Such a part is a `Section` too, and
lies with the step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from snaketune.config import schema

SectionT = TypeVar("SectionT", bound="Section")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One mapping of the configuration with a fixed set of keys."""


class QuantizeConfig(Section, frozen=True, kw_only=True):
    """How the base is quantized before training."""

    bits: int
    group_size: int
    mode: str


class ModelConfig(Section, frozen=True, kw_only=True):
    """The base model."""

    base: str
    revision: str
    dtype: str
    chat_template: str | None
    quantize: QuantizeConfig | None


class FieldOfRow(Section, frozen=True, kw_only=True):
    """Names the field of a row that holds its category or group."""

    field: str


class SourceConfig(Section, frozen=True, kw_only=True):
    """One source of rows: a path or a data set of the hub."""

    path: str | None
    hub: str | None
    revision: str
    subset: str | None
    hub_split: str
    target_path: str | None
    template: str | None
    format: str
    sheet: str | None
    fields: dict[str, str]
    turn_fields: dict[str, str]
    roles: dict[str, list[str]]
    train_turns: Literal["all", "last"]
    limit: float | None
    rows_key: str | None
    weight: float
    category: str | FieldOfRow | None
    group: str | FieldOfRow | None
    split: Literal["train", "valid", "test"] | None
    replaces: bool


class SplitShares(Section, frozen=True, kw_only=True):
    """The part of `data.split` that decides which row is in which split."""

    train: float
    valid: float
    test: float
    exact: bool


class SplitConfig(SplitShares, frozen=True, kw_only=True):
    """Shares of the splits, and whether the test rows are scored for one model only."""

    sealed: bool


class DataConfig(Section, frozen=True, kw_only=True):
    """The rows: sources, filters and splits. near_duplicates is a Jaccard similarity, or False."""

    sources: list[SourceConfig]
    system: str | None
    min_characters: int
    max_characters: int
    max_rejected: float
    max_lost: float
    near_duplicates: float | bool
    shingles: Literal["auto", "words", "characters"]
    split: SplitConfig
    on_leakage: Literal["fail", "warn"]
    max_length: int
    on_too_long: Literal["truncate", "drop"]


class PilotConfig(Section, frozen=True, kw_only=True):
    """The short training before the long one."""

    rows: int
    max_steps: int | None
    max_hours: float
    on_no_go: Literal["stop", "continue"]
    learning_curve: list[float] | None
    sample: int | None


class NotifyConfig(Section, frozen=True, kw_only=True):
    """What to run when a training ends."""

    command: str | None


RESULT_NEUTRAL_KEYS = ("report_to", "notify", "save_total_limit", "memory_limit", "hosts", "worker_timeout")
"""Keys of the section `train` that do not change what is trained."""


class TrainConfig(Section, frozen=True, kw_only=True):
    """One training."""

    trainer: Literal["builtin", "unsloth", "llama-factory", "axolotl", "trl", "mlx-lm"]
    method: Literal["lora", "dora", "full", "prompt"]
    num_virtual_tokens: int
    rank: int
    alpha: float
    rslora: bool
    dropout: float
    target_modules: str | list[str]
    num_layers: int | None
    train_on_prompts: bool
    epochs: float
    max_steps: int | None
    batch_size: int
    gradient_accumulation_steps: int
    packing: bool
    gradient_checkpointing: bool
    optimizer: str
    learning_rate: float
    weight_decay: float
    max_grad_norm: float | None
    lr_scheduler: Literal["cosine", "linear", "constant"]
    min_lr_ratio: float
    warmup_steps: float
    eval_steps: float
    early_stopping_patience: int | None
    early_stopping_min_delta: float
    save_total_limit: int
    max_tokens_per_micro_batch: int | None
    memory_limit: float | None
    max_nonfinite_steps: int
    workers: int
    hosts: str | list[str] | None
    fsdp: bool
    worker_timeout: float
    report_to: Literal["tensorboard", "wandb"] | None
    notify: NotifyConfig

    @property
    def virtual_tokens(self) -> int:
        """How many virtual tokens stand in every conversation: none but for prompt tuning."""
        return self.num_virtual_tokens if self.method == "prompt" else 0

    @property
    def lora_scale(self) -> float:
        """What the adapter's product is multiplied by: alpha / rank, or alpha / sqrt(rank) for rsLoRA."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def rows_per_step(self) -> int:
        """Rows in one optimizer step."""
        return self.batch_size * self.gradient_accumulation_steps

    def eval_interval(self, num_steps: int) -> int:
        """Steps between validations in a training of `num_steps`, of which eval_steps may be a share."""
        steps = self.eval_steps * num_steps if self.eval_steps < 1 else self.eval_steps
        return max(1, round(steps))

    def for_pilot(self, max_steps: int | None) -> TrainConfig:
        """These settings for the pilot: one epoch or `max_steps`, and no end when the loss diverges.

        A pilot that diverges runs on, so that the decision sees it.
        """
        return msgspec.structs.replace(self, epochs=1.0, max_steps=max_steps, max_nonfinite_steps=1_000_000)

    def for_subset(self, max_steps: int) -> TrainConfig:
        """These settings for a point of the learning curve: as many steps as the pilot on fewer rows."""
        return msgspec.structs.replace(self, max_steps=max_steps)

    def for_dry_run(self, max_steps: int) -> TrainConfig:
        """These settings for a few steps with one validation, after the last."""
        return msgspec.structs.replace(self, max_steps=max_steps, eval_steps=max_steps, early_stopping_patience=None)


class SelectConfig(Section, frozen=True, kw_only=True):
    """How one of the experiments is chosen."""

    metric: str
    tolerance: float


class FidelityConfig(Section, frozen=True, kw_only=True):
    """How much is compared between the adapter and the files made from it."""

    rows: int
    num_prompts: int
    max_new_tokens: int


class UploadConfig(Section, frozen=True, kw_only=True):
    """Where the model goes on the hub."""

    repository: str | None
    private: bool


class OllamaConfig(Section, frozen=True, kw_only=True):
    """Generation settings written into the Modelfile."""

    temperature: float
    top_p: float
    top_k: int
    num_ctx: int


class PackageConfig(Section, frozen=True, kw_only=True):
    """The files that are made of the chosen adapter."""

    gguf: list[str]
    imatrix: bool | str
    mlx: list[str]
    adapter: bool
    min_gain_retained: float
    fidelity: FidelityConfig
    name: str
    license: str | None
    language: list[str]
    bundle: list[str]
    upload: UploadConfig
    serve_check: bool
    serve_timeout: float
    ollama: OllamaConfig


class GenerationConfig(Section, frozen=True, kw_only=True):
    """How answers are sampled."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    repetition_context: int


class FewShotConfig(Section, frozen=True, kw_only=True):
    """What the variant `prompted` is given instead of a training."""

    system: str | None
    num_examples: int


class CustomMetricConfig(Section, frozen=True, kw_only=True):
    """A metric of the user's own, as module:function."""

    function: str
    better: Literal["higher", "lower"]


class ForgettingConfig(Section, frozen=True, kw_only=True):
    """The general rows on which forgetting is measured."""

    rows: str | None
    limit: float | None


class EvaluateConfig(Section, frozen=True, kw_only=True):
    """How the model variants are measured."""

    models: list[str]
    experiments: bool
    lm_eval_tasks: list[str]
    max_rows: int
    max_new_tokens: int
    max_hours: float | None
    turns: Literal["last", "all"]
    generation: GenerationConfig
    few_shot: FewShotConfig
    prompts: list[str]
    bleu_tokenizer: str
    metrics: dict[str, CustomMetricConfig]
    similarity: str | None
    thresholds: dict[str, float]
    forgetting: ForgettingConfig
    on_missed_threshold: Literal["report", "stop"]


class RunConfig(Section, frozen=True, kw_only=True):
    """The complete configuration of one run.

    experiments and grid hold overrides of keys of train and model, whose values snaketune.config.experiments checks.
    """

    run: str
    seed: int
    compare_with: str | None
    engine: Literal["auto", "mlx", "torch"]
    model: ModelConfig
    data: DataConfig
    pilot: PilotConfig
    train: TrainConfig
    experiments: dict[str, dict[str, Any] | None]
    grid: dict[str, list[Any]]
    select: SelectConfig
    package: PackageConfig
    evaluate: EvaluateConfig
    threads: int


SECTIONS: dict[str, type[Section]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "pilot": PilotConfig,
    "train": TrainConfig,
    "select": SelectConfig,
    "package": PackageConfig,
    "evaluate": EvaluateConfig,
}


def load(given: Mapping[str, object]) -> RunConfig:
    """Return the run's complete settings from what the user wrote; ConfigError for the first mistake."""
    return msgspec.convert(schema.complete(given), RunConfig)


def section(kind: type[SectionT], **given: Any) -> SectionT:
    """Return one section with the defaults of the schema for all keys but those given, for callers without a file."""
    (name,) = (name for name, known in SECTIONS.items() if known is kind)
    return msgspec.convert(schema.validate_value(given, name, name), kind)
