"""Trains an adapter with MLX: the part `engines.interface.Trainer`, and the model that is trained.

Several processes are started by `mlx.launch`.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import msgspec

from snaketune import files
from snaketune.config import experiments
from snaketune.contracts.train import TrainingJob, TrainingSummary
from snaketune.engines.mlx import capabilities, loading, lora, memory
from snaketune.engines.mlx.loading import Tensors, flatten, load_safetensors, save_safetensors, unflatten
from snaketune.engines.mlx.loss import ChunkedCrossEntropy
from snaketune.engines.mlx.optimizer import FlatParameters, Optimizer
from snaketune.engines.mlx.process_group import MLXProcessGroup
from snaketune.runtime.code_digest import code_digest
from snaketune.tokens.token_store import virtual_ids_of
from snaketune.train import launcher, training
from snaketune.train.batches import Batch
from snaketune.train.engine import StepResult, TrainingEngine
from snaketune.train.metrics_log import TrainingCallback
from snaketune.train.process_group import ProcessGroup

EXITED = re.compile(r"Node with rank (\d+) (?:was killed|exited with code (-?\d+))")


def train(job: TrainingJob, callback: TrainingCallback | None = None) -> TrainingSummary:
    """Run a training; see `engines.interface.Trainer`."""
    return training.train(job, training_engine(), callback)


def training_engine() -> TrainingEngine:
    """What MLX adds to a training."""
    return TrainingEngine(
        load_model=MLXTrainableModel,
        launch=launch,
        code=code_digest(__file__),
        versions=[version("mlx"), version("mlx-lm")],
        peak_memory=mx.get_peak_memory,
        four_bit_base=lambda: capabilities.four_bit_base(capabilities.describe_device().device).words,
    )


def launch(job: TrainingJob, callback: TrainingCallback) -> None:
    """Run a training on several processes; see `train.launcher`."""
    launcher.train(job, callback, launch_command(job), find_exit)


def launch_command(job: TrainingJob) -> list[str]:
    """The command line of mlx.launch."""
    port = str(launcher.free_ports(job.config.workers))
    scripts = Path(__file__).resolve().parents[3]
    return [
        str(Path(sys.executable).with_name("mlx.launch")),
        *experiments.launch_arguments(job.config.workers, job.config.hosts),
        *("--starting-port", port, "--nccl-port", port),
        *("--env", f"PYTHONPATH={scripts}"),
        "--",
        *(sys.executable, "-m", "snaketune.engines.mlx.worker", msgspec.json.encode(job).decode()),
    ]


def find_exit(line: str) -> tuple[int, int] | None:
    """(rank, exit code) of a worker that mlx.launch says has ended."""
    exited = EXITED.search(line)
    return (int(exited[1]), int(exited[2] or -signal.SIGTERM)) if exited else None


class MLXTrainableModel:
    """An MLX model whose adapter, or whose own weights, are trained. weights: what is trained, as flat vectors."""

    def __init__(self, job: TrainingJob, folder: Path, group: ProcessGroup) -> None:
        config = job.config
        memory.set_memory_limits(config.memory_limit)
        self.group = group if isinstance(group, MLXProcessGroup) else MLXProcessGroup()
        self.on_cpu = mx.default_device() == mx.cpu
        self.model = loading.load(folder, dtype=job.dtype).model
        self.adapter_config = lora.add_adapter(self.model, config, job.seed, virtual_ids_of(job.train_tokens))
        self.parameter_counts = lora.count_parameters(self.model)
        self.dropout_seeds = memory.DropoutSeeds(job.seed, group.rank)
        memory.wrap_blocks(self.model, self.dropout_seeds, recompute=config.gradient_checkpointing)
        weights = flatten(self.model.trainable_parameters())
        self.flat_params = FlatParameters(weights, config.optimizer)
        self.weights = self.flat_params.flatten(weights)
        self.optimizer = Optimizer(config, self.weights)
        self.loss = ChunkedCrossEntropy(self.model)
        self.loss_and_gradient = mx.value_and_grad(self._scaled_loss)

    def probe(self, batch: Batch) -> None:
        """See whether the head runs on target positions alone."""
        self.loss.probe_split_head(batch)

    def supports_packing(self, packed: Batch, unpacked: Sequence[Batch]) -> bool:
        """Whether packed rows have the loss that they have one by one; prints why not to stderr."""
        return self.loss.supports_packing(packed, unpacked)

    def train_step(
        self, step: int, batches: Sequence[Batch], num_target_tokens: int, learning_rate: float
    ) -> StepResult:
        """Dispatch one step; see `train.engine.TrainableModel`."""
        self.dropout_seeds.start(step)
        gradients: Tensors = {}
        loss = mx.array(0.0)
        for batch in batches:
            (_, batch_loss), gradient = self.loss_and_gradient(self.weights, batch, num_target_tokens)
            gradients = {name: gradients[name] + g if gradients else g for name, g in gradient.items()}
            loss = loss + batch_loss
            mx.async_eval(gradients, loss)
        gradients, loss = self._all_reduce_gradients(gradients, loss)
        self.weights, grad_norm, is_finite = self.optimizer.step(self.weights, gradients, loss, learning_rate)
        mx.async_eval(self.weights, self.optimizer.state, loss, grad_norm, is_finite)
        return StepResult(loss, grad_norm, is_finite)

    def synchronize(self) -> None:
        """Take the main process's weights."""
        self.weights = self.group.broadcast_arrays(self.weights)

    def validation_losses(self, batches: Iterator[Batch]) -> tuple[float, int]:
        """The loss over all processes' validation rows, and the number of their labels."""
        self.model.update(unflatten(self.flat_params.unflatten(self.weights)))
        self.model.eval()
        total, num_target_tokens = 0.0, 0
        for batch in batches:
            total += float(self.loss.value(batch))
            num_target_tokens += len(batch.labels)
        self.model.train()
        if self.group.world_size == 1:
            return total, num_target_tokens
        (num_target_tokens,) = self.group.all_reduce_counts(num_target_tokens)
        return float(self.group.all_reduce({"loss": mx.array(total)})["loss"]), num_target_tokens

    def save_adapter(self, path: Path) -> None:
        """Write what is trained, by its names in the model."""
        with files.replacing(path) as temporary:
            save_safetensors(temporary, self.flat_params.unflatten(self.weights))

    def save_state(self, path: Path) -> None:
        """Write weights and optimizer state."""
        tensors = {f"weights {name}": array for name, array in self.weights.items()}
        tensors |= {f"optimizer {name}": array for name, array in self.optimizer.state.items()}
        save_safetensors(path, tensors)

    def load_state(self, path: Path | None) -> None:
        """Continue from a file of `save_state`; the other processes take what the main one reads."""
        optimizer_state = self.optimizer.state
        if path:
            tensors = load_safetensors(path)
            self.weights = {name: tensors[f"weights {name}"] for name in self.weights}
            optimizer_state = {name: tensors[f"optimizer {name}"] for name in optimizer_state}
        self.weights = self.group.broadcast_arrays(self.weights)
        self.optimizer.load_state(self.weights, self.group.broadcast_arrays(optimizer_state))

    def peak_memory(self) -> int:
        """Bytes that MLX has held at most."""
        return mx.get_peak_memory()

    def _scaled_loss(self, weights: Tensors, batch: Batch, num_target_tokens: int) -> tuple[mx.array, mx.array]:
        """A micro-batch's part in the step's mean loss; first what is differentiated, then its value."""
        self.model.update(unflatten(self.flat_params.unflatten(weights)))
        surrogate, loss = self.loss(batch)
        return surrogate / num_target_tokens, loss / num_target_tokens

    def _all_reduce_gradients(self, gradients: Tensors, loss: mx.array) -> tuple[Tensors, mx.array]:
        """The sums over all processes; one that had no row of a short last step adds nothing."""
        mine = gradients or {name: mx.zeros_like(weights) for name, weights in self.weights.items()}
        return self.group.all_reduce(mine), self.group.all_reduce({"loss": loss})["loss"]
