"""plan.json: what the run will see, hold and write, forecast before anything is trained. Written by snaketune.plan."""

from __future__ import annotations

from snaketune.files import Record
from snaketune.runtime.machine import Machine


class BatchShape(Record, frozen=True):
    """A micro-batch: `rows` x `length` positions with padding, of which `num_targets` carry a loss."""

    rows: int
    length: int
    num_targets: int

    @property
    def positions(self) -> int:
        return self.rows * self.length


class MemoryForecast(Record, frozen=True, kw_only=True):
    """Peak bytes of a training by part; parts that are gone at the moment of the peak are 0."""

    weights: int
    adapter: int
    optimizer: int
    gradients: int
    activations: int
    attention: int
    logits: int
    update: int
    total: int


class DiskForecast(Record, frozen=True, kw_only=True):
    """Bytes that each stage writes, and their sum."""

    base: int
    train: int
    fused: int
    f16: int
    gguf: int
    total: int


class PlannedExperiment(Record, frozen=True, kw_only=True):
    """What one experiment will do and hold.

    num_target_tokens and input_tokens: over the whole training; dtype_bytes: of a weight that is not quantized;
    usable_memory: bytes that the training may take; warnings: sentences for a person.
    """

    steps: int
    rows_per_step: int
    rows_seen: int
    times_each_row_is_seen: float
    num_target_tokens: int
    input_tokens: int
    validations: int
    parameters: int
    trainable_parameters: int
    largest_batch: BatchShape
    dtype_bytes: int
    memory: MemoryForecast
    usable_memory: int
    warnings: list[str]


class Plan(Record, frozen=True, kw_only=True):
    """plan.json. rows: number of rows by split; experiments by name, in the order of the configuration."""

    machine: Machine
    rows: dict[str, int]
    experiments: dict[str, PlannedExperiment]
    disk: DiskForecast
