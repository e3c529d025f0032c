"""What a training asks of an engine: a model that it can train step by step, and what stands around that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, SupportsFloat

from snaketune.contracts.train import AdapterConfig, TrainingJob
from snaketune.train.batches import Batch
from snaketune.train.checkpoints import ParameterCounts
from snaketune.train.metrics_log import TrainingCallback
from snaketune.train.process_group import ProcessGroup


class StepResult(NamedTuple):
    """What a step came to; float() and bool() may have to wait for it.

    loss: mean over the step's target tokens, nats; grad_norm: before clipping; is_finite: whether the step was made.
    """

    loss: SupportsFloat
    grad_norm: SupportsFloat
    is_finite: object


class TrainableModel(Protocol):
    """A base model with what is trained of it, its optimizer and its loss: an engine's part of a training.

    Each process has one; its gradients, losses and weights are those of all processes of its group.
    """

    adapter_config: AdapterConfig
    parameter_counts: ParameterCounts
    on_cpu: bool

    def probe(self, batch: Batch) -> None:
        """See on a first batch which fast paths this model has, before anything is computed."""
        ...

    def supports_packing(self, packed: Batch, unpacked: Sequence[Batch]) -> bool:
        """Whether packed rows have the loss that they have one by one; prints why not to stderr."""
        ...

    def train_step(
        self, step: int, batches: Sequence[Batch], num_target_tokens: int, learning_rate: float
    ) -> StepResult:
        """Make the step of the gradient of the mean over all target tokens, whatever the micro-batches.

        batches: this process's, perhaps none; num_target_tokens: of all processes. Where loss or gradient are not
        finite, weights and optimizer state stay as they are. Dropout is drawn from the step alone.
        """
        ...

    def synchronize(self) -> None:
        """Take the main process's weights, before they are measured."""
        ...

    def validation_losses(self, batches: Iterator[Batch]) -> tuple[float, int]:
        """(the sum of the negative log-likelihoods of all labels, their number), over all processes' batches."""
        ...

    def save_adapter(self, path: Path) -> None:
        """Write what is trained as safetensors, by mlx-lm's names."""
        ...

    def save_state(self, path: Path) -> None:
        """Write weights and optimizer state as safetensors."""
        ...

    def load_state(self, path: Path | None) -> None:
        """Continue from such a file, or from the beginning; the other processes take what the main one reads."""
        ...

    def peak_memory(self) -> int:
        """Bytes that the engine has held at most."""
        ...


@dataclass(frozen=True)
class TrainingEngine:
    """What an engine adds to a training.

    load_model: (job, folder of the base, this process's group) -> what is trained; launch: runs the job on several
    processes; code: a digest of the engine's code; versions: of the libraries that its results depend on; peak_memory:
    bytes that it has held at most; four_bit_base: what to set for a base that its device holds in four bits.
    """

    load_model: Callable[[TrainingJob, Path, ProcessGroup], TrainableModel]
    launch: Callable[[TrainingJob, TrainingCallback], None]
    code: str
    versions: list[str]
    peak_memory: Callable[[], int]
    four_bit_base: Callable[[], str]
