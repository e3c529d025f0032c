"""What training takes and leaves: the job, and one record for each of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import msgspec

from snaketune.config.sections import TrainConfig
from snaketune.files import Record, StrPath


class TrainingOutputs(Record, frozen=True, kw_only=True):
    """Paths of what a training writes. timing.json and timing.jsonl go beside the summary.

    checkpoints: a folder for checkpoints, kept for a later start.
    """

    adapter: str
    adapter_config: str
    metrics: str
    summary: str
    checkpoints: str

    @classmethod
    def in_folder(cls, folder: StrPath) -> TrainingOutputs:
        """The outputs under the names that they have in a run's folder."""
        names = {
            "adapter": "adapters.safetensors",
            "adapter_config": "adapter_config.json",
            "metrics": "metrics.jsonl",
            "summary": "summary.json",
            "checkpoints": "checkpoints",
        }
        return cls(**{field: str(Path(folder) / name) for field, name in names.items()})


class StepParams(Protocol):
    """JSON objects that both have a part of the section `train`; config also has model.dtype and seed."""

    config: str
    untracked: str


class StepInputs(Protocol):
    """Paths: the token stores of two splits, and the base model's manifest."""

    train: str
    valid: str
    model: str


class TrainingJob(Record, frozen=True, kw_only=True):
    """One training, complete and as JSON: what `train` takes, and what each worker process is sent.

    train_tokens, valid_tokens: token stores; model: the base model's manifest; dtype: `auto`, `float32`, `bfloat16` or
    `float16`; num_rows: train on a nested subset of so many rows (`nested_subset`), on all of them by default.
    """

    train_tokens: str
    valid_tokens: str
    model: str
    config: TrainConfig
    dtype: str
    seed: int
    outputs: TrainingOutputs
    num_rows: int | None = None

    @classmethod
    def of_step(cls, params: StepParams, inputs: StepInputs, folder: StrPath) -> TrainingJob:
        """The job that a training step's settings describe, on all rows; its results go into `folder`."""
        tracked, others = json.loads(params.config), json.loads(params.untracked)
        return cls(
            train_tokens=inputs.train,
            valid_tokens=inputs.valid,
            model=inputs.model,
            config=msgspec.convert(tracked["train"] | others["train"], TrainConfig),
            dtype=tracked["model"]["dtype"],
            seed=tracked["seed"],
            outputs=TrainingOutputs.in_folder(folder),
        )


class VisitCounts(Record, frozen=True, kw_only=True):
    """How often the rows were seen: the row seen least, the row seen most, and the mean over all rows."""

    least: int
    most: int
    mean: float | None


class TrainerRecord(Record, frozen=True, kw_only=True):
    """How a trainer of the field trained, in summary.json.

    name, title: as the configuration and its makers write it; versions: of its packages; settings: ours in its own
    words; differences: what it did otherwise than the built-in trainer, as sentences; own_validation_loss: of the best
    step by its own count, where the losses of the summary are by token.
    """

    name: str
    title: str
    versions: dict[str, str]
    settings: dict[str, object]
    differences: list[str]
    own_validation_loss: float | None


class TrainingSummary(Record, frozen=True, kw_only=True):
    """summary.json, written by the training: the same bytes for the same training, whenever and however it ran.

    Losses are in nats per target token; null where one was not finite. `rows` are the training's distinct rows,
    `rows_seen` counts their visits. `validation_tokens` are the target tokens of the validation split.
    `positions_per_token` is 1 without padding. `best_step` is 0 where no step was better than
    what the training began with: the base model, or the untrained vectors of prompt tuning.
    """

    steps: int
    planned_steps: int
    epochs: float | None
    rows: int
    rows_seen: int
    times_each_row_was_seen: VisitCounts
    num_target_tokens: int
    positions_per_token: float | None
    base_validation_loss: float | None
    best_validation_loss: float | None
    best_step: int
    skipped_steps: int
    stop_reason: str
    trainable_parameters: int
    total_parameters: int
    validation_rows: int
    validation_tokens: int
    method: str
    seed: int
    trainer: TrainerRecord | None = None

    @property
    def beat_base(self) -> bool:
        """Whether the best step is better than the base, which `best_step` does not say of prompt tuning."""
        best, base = self.best_validation_loss, self.base_validation_loss
        return best is not None and (base is None or best < base)


class StepMetrics(Record, frozen=True, kw_only=True):
    """A line of metrics.jsonl, one for each optimizer step. It holds no clock.

    loss: mean over the step's target tokens, nats; grad_norm: before clipping; both null where not finite.
    epoch: how many epochs are done after the step; padding_ratio: padded positions / all positions.
    """

    step: int
    epoch: float | None
    loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    num_target_tokens: int
    padding_ratio: float | None


class ValidationMetrics(Record, frozen=True, kw_only=True):
    """A line of metrics.jsonl, one for each validation: mean loss over its target tokens, nats. Step 0 is the base."""

    step: int
    validation_loss: float | None


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A line of metrics.jsonl of either kind, as what draws its curves reads it; other fields are passed over."""

    step: int
    loss: float | None = None
    validation_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None


class StepTiming(Record, frozen=True, kw_only=True):
    """A line of timing.jsonl: seconds since the start or the last resumption, and the peak of the engine's memory."""

    step: int
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


class TimingForecast(Record, frozen=True, kw_only=True):
    """What the pilot forecast for the training: whole seconds of it, and the peak of the engine's memory."""

    seconds: float
    peak_memory_bytes: int


class TrainingTiming(Record, frozen=True, kw_only=True, omit_defaults=True):
    """timing.json: what depends on the machine and the moment. It describes the last resumption alone.

    tokens_per_second counts target tokens; resumed_from: the step that the last start resumed from, 0 for none.
    forecast: for the experiment that the pilot tried.
    """

    seconds: float
    cpu_seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    peak_resident_bytes: int
    resumed_from: int
    forecast: TimingForecast | None = None


class LoraParameters(Record, frozen=True, kw_only=True, omit_defaults=True):
    """mlx-lm's description of an adapter; empty after a training of the model's own weights.

    scale: what the product of the two matrices is multiplied by; keys: paths of the adapted layers inside a block.
    """

    rank: int | None = None
    scale: float | None = None
    dropout: float | None = None
    keys: list[str] | None = None


class PromptParameters(Record, frozen=True, kw_only=True):
    """What prompt tuning learned: the vectors of so many tokens, whose ids follow one another from the first one on."""

    num_virtual_tokens: int
    first_id: int

    @property
    def ids(self) -> range:
        return range(self.first_id, self.first_id + self.num_virtual_tokens)


class AdapterConfig(Record, frozen=True, kw_only=True, omit_defaults=True):
    """adapter_config.json in mlx-lm's own format; num_layers: -1 for all, otherwise so many of the last ones.

    prompt_parameters: of the method `prompt` alone, which mlx-lm does not have.
    """

    fine_tune_type: str
    num_layers: int
    lora_parameters: LoraParameters
    prompt_parameters: PromptParameters | None = None

    @classmethod
    def of_layers(cls, config: TrainConfig, keys: list[str] | None) -> AdapterConfig:
        """That of a new adapter; keys: paths of the adapted layers, None if all weights are trained."""
        parameters = LoraParameters()
        if keys is not None:
            parameters = LoraParameters(rank=config.rank, scale=config.lora_scale, dropout=config.dropout, keys=keys)
        return cls(fine_tune_type=config.method, num_layers=config.num_layers or -1, lora_parameters=parameters)

    @classmethod
    def of_prompt(cls, virtual_ids: range) -> AdapterConfig:
        """That of prompt tuning, whose virtual tokens have these ids."""
        return cls(
            fine_tune_type="prompt",
            num_layers=-1,
            lora_parameters=LoraParameters(),
            prompt_parameters=PromptParameters(num_virtual_tokens=len(virtual_ids), first_id=virtual_ids[0]),
        )
