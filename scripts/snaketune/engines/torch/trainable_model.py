"""What the torch engine trains: model, adapter, loss and optimizer; the part `train.trainer.TrainableModel`."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from snaketune import files
from snaketune.contracts.train import TrainingJob
from snaketune.engines.torch import loading, lora
from snaketune.engines.torch.device import best_device, forget_peak, peak_memory, set_memory_limit
from snaketune.engines.torch.loss import ChunkedCrossEntropy
from snaketune.engines.torch.optimizer import FlatParameters, Optimizer
from snaketune.engines.torch.process_group import TorchProcessGroup
from snaketune.engines.torch.weights import load_safetensors
from snaketune.train.batches import Batch
from snaketune.train.process_group import ProcessGroup
from snaketune.train.trainer import StepResult

PACKED_TOLERANCE = 1e-4  # relative difference between packed and unpacked rows, in float32
TOLERANCE_16_BIT = 2e-3  # bfloat16 rounds at 4e-3 a value


class TorchTrainableModel:
    """A transformers model whose adapter, or whose own weights, are trained."""

    def __init__(self, job: TrainingJob, folder: Path, group: ProcessGroup) -> None:
        device = best_device()
        set_memory_limit(job.config.memory_limit, device)
        self.group, self.seed, self.on_cpu = group, job.seed, device.type == "cpu"
        self.model = loading.load(folder, dtype=job.dtype)
        forget_peak(device)
        self.prefix = loading.adapter_prefix(folder)
        self.adapter_config = lora.add_adapter(self.model, job.config, job.seed)
        self.parameter_counts = lora.count_parameters(self.model)
        if job.config.gradient_checkpointing:
            self.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        trained = {name: one for name, one in self.model.named_parameters() if one.requires_grad}
        self.parameters = FlatParameters(trained, job.config.optimizer)
        self.optimizer = Optimizer(job.config, self.parameters)
        self.loss = ChunkedCrossEntropy(self.model)

    def probe(self, batch: Batch) -> None:
        """Nothing is left to see: the head was measured when the loss was made."""

    def supports_packing(self, packed: Batch, unpacked: Sequence[Batch]) -> bool:
        """Whether packed rows have the loss that they have one by one; prints why not to stderr."""
        expected = sum(float(self.loss.value(batch)) for batch in unpacked)
        loss = float(self.loss.value(packed))
        exact = self.model.dtype == torch.float32
        if abs(loss - expected) <= (PACKED_TOLERANCE if exact else TOLERANCE_16_BIT) * abs(expected):
            return True
        reason = f"their loss is {loss:.6g}, and {expected:.6g} one by one"
        print(f"snaketune: this model cannot keep packed rows apart ({reason}); they are not packed", file=sys.stderr)
        return False

    def train_step(
        self, step: int, batches: Sequence[Batch], num_target_tokens: int, learning_rate: float
    ) -> StepResult:
        """Make one step; see `train.trainer.TrainableModel`."""
        torch.manual_seed(dropout_seed(self.seed, step, self.group.rank))
        if not self.model.training:  # telling every layer again would cost a small model a twentieth of its step
            self.model.train()
        self.parameters.zero_gradients()
        loss = torch.zeros((), device=self.model.device)
        for batch in batches:
            loss += self.loss.backward(batch, num_target_tokens)
        if isinstance(self.group, TorchProcessGroup):
            for gradient in self.parameters.gradients().values():
                self.group.all_reduce_(gradient)
            self.group.all_reduce_(loss)
        made = self.optimizer.step(loss, learning_rate)
        return StepResult(loss, made.grad_norm, made.is_finite)

    def synchronize(self) -> None:
        """Take the main process's weights."""
        if isinstance(self.group, TorchProcessGroup):
            for vector in self.parameters.flat.values():
                self.group.broadcast_(vector.data)

    def validation_losses(self, batches: Iterator[Batch]) -> tuple[float, int]:
        """The loss over all processes' validation rows, and the number of their labels."""
        self.model.eval()
        total, num_target_tokens = torch.zeros((), dtype=torch.float64), 0
        for batch in batches:
            total += float(self.loss.value(batch))
            num_target_tokens += len(batch.labels)
        (num_target_tokens,) = self.group.all_reduce_counts(num_target_tokens)
        if isinstance(self.group, TorchProcessGroup):
            self.group.all_reduce_(total)
        return float(total), num_target_tokens

    def save_adapter(self, path: Path) -> None:
        """Write what is trained, by mlx-lm's names."""
        named = {
            self.prefix + name: one.detach().cpu().contiguous().clone() for name, one in self.parameters.named.items()
        }
        with files.replacing(path) as temporary:
            save_file(named, temporary)

    def save_state(self, path: Path) -> None:
        """Write weights and optimizer state."""
        tensors = {f"weights {name}": vector.detach() for name, vector in self.parameters.flat.items()}
        tensors |= {f"optimizer {name}": one for name, one in self.optimizer.state().items()}
        save_file({name: _saved(one) for name, one in tensors.items()}, path)

    def load_state(self, path: Path | None) -> None:
        """Continue from a file of `save_state`; the other processes take what the main one reads."""
        saved = load_safetensors(path) if path else {}
        if isinstance(self.group, TorchProcessGroup):
            saved = self.group.broadcast_tensors(saved)
        device = self.model.device
        for name, vector in self.parameters.flat.items():
            if f"weights {name}" in saved:
                vector.data.copy_(saved[f"weights {name}"])
        optimizer = {
            name.removeprefix("optimizer "): one for name, one in saved.items() if name.startswith("optimizer ")
        }
        self.optimizer.load_state({name: one if one.dim() == 0 else one.to(device) for name, one in optimizer.items()})
        self.synchronize()

    def peak_memory(self) -> int:
        """Bytes that the engine has held at most."""
        return peak_memory(self.model.device)


def _saved(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that can be written: on the CPU, with memory of its own."""
    return tensor.detach().cpu().contiguous().clone()


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout in one process: so dropout needs no state in a checkpoint."""
    digest = hashlib.blake2b(f"{seed}:{step}:{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
