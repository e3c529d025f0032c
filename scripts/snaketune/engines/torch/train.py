"""Trains an adapter with PyTorch: the part `engines.interface.Trainer`, and the model that is trained.

Several processes are started by torchrun, on this machine or, over ssh, on others.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file

from snaketune import files
from snaketune.config import experiments
from snaketune.contracts.train import TrainingJob, TrainingSummary
from snaketune.engines.torch import capabilities, loading, lora, sharding
from snaketune.engines.torch.device import best_device, forget_peak, peak_memory, set_memory_limit
from snaketune.engines.torch.loss import ChunkedCrossEntropy
from snaketune.engines.torch.optimizer import FlatParameters, Optimizer
from snaketune.engines.torch.process_group import TorchProcessGroup
from snaketune.engines.torch.weights import load_safetensors
from snaketune.errors import ConfigError
from snaketune.runtime.code_digest import code_digest
from snaketune.tokens.token_store import virtual_ids_of
from snaketune.train import launcher, training
from snaketune.train.batches import Batch
from snaketune.train.engine import StepResult, TrainingEngine
from snaketune.train.metrics_log import TrainingCallback
from snaketune.train.process_group import ProcessGroup

FAILED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")


def train(job: TrainingJob, callback: TrainingCallback | None = None) -> TrainingSummary:
    """Run a training; see `engines.interface.Trainer`."""
    return training.train(job, training_engine(), callback)


def training_engine() -> TrainingEngine:
    """What PyTorch adds to a training."""
    return TrainingEngine(
        load_model=TorchTrainableModel,
        launch=launch,
        code=code_digest(__file__),
        versions=[version("torch"), version("transformers")],
        peak_memory=lambda: peak_memory(best_device()),
        four_bit_base=lambda: capabilities.four_bit_base(capabilities.describe_device().device).words,
    )


def launch(job: TrainingJob, callback: TrainingCallback) -> None:
    """Run a training on several processes; see `train.launcher`."""
    launcher.train(job, callback, launch_command(job), find_exit)


def launch_command(job: TrainingJob) -> list[str]:
    """The command line of torchrun; for several hosts, a shell that starts one on each."""
    names = experiments.host_list(job.config.hosts)
    port = launcher.free_ports(1)
    if len(names) == 1:
        return torchrun(job, "127.0.0.1", port, job.config.workers)
    each = job.config.workers // len(names)
    commands = []
    for number, name in enumerate(names):
        command = torchrun(job, names[0], port, each, nodes=len(names), node=number)
        commands.append(
            shlex.join(["ssh", "-tt" if number else "-T", name, f"cd {Path.cwd()} && {shlex.join(command)}"])
        )
    return ["bash", "-c", " & ".join([*(f"{one} < /dev/null" for one in commands[1:]), f"{commands[0]}; wait"])]


def torchrun(job: TrainingJob, master: str, port: int, processes: int, *, nodes: int = 1, node: int = 0) -> list[str]:
    """One host's torchrun; `master` is the host whose port all processes meet at."""
    scripts = Path(__file__).resolve().parents[3]
    return [
        *("env", f"PYTHONPATH={scripts}", "TORCH_CPP_LOG_LEVEL=ERROR"),
        *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", f"--node-rank={node}"),
        *(f"--nproc-per-node={processes}", f"--master-addr={master}", f"--master-port={port}"),
        *("-m", "snaketune.engines.torch.worker", msgspec.json.encode(job).decode()),
    ]


def find_exit(line: str) -> tuple[int, int] | None:
    """(rank, exit code) of a worker that torchrun says has failed first; local ranks, on one host the ranks."""
    failed = FAILED.search(line)
    return (int(failed[2]), int(failed[1])) if failed else None


PACKED_TOLERANCE = 1e-4  # relative difference between packed and unpacked rows, in float32
TOLERANCE_16_BIT = 2e-3  # bfloat16 rounds at 4e-3 a value


class TorchTrainableModel:
    """A transformers model whose adapter, or whose own weights, are trained."""

    def __init__(self, job: TrainingJob, folder: Path, group: ProcessGroup) -> None:
        device = best_device()
        set_memory_limit(job.config.memory_limit, device)
        self.group, self.seed, self.on_cpu = group, job.seed, device.type == "cpu"
        self.sharded = job.config.fsdp and group.world_size > 1
        self.model = loading.load(folder, dtype=job.dtype, to_device=not self.sharded)
        forget_peak(device)
        if self.model.dtype == torch.float16 and job.config.method == "full":
            raise ConfigError(
                "the torch engine does not train whole models in float16",
                where="model.dtype",
                why="An optimizer's squares of gradients are below its range, and its steps would be no numbers",
                fix="Set model.dtype to auto, bfloat16 or float32, or train.method to lora",
            )
        self.prefix = loading.adapter_prefix(folder)
        self.adapter_config = lora.add_adapter(self.model, job.config, job.seed, virtual_ids_of(job.train_tokens))
        self.parameter_counts = lora.count_parameters(self.model)
        if job.config.gradient_checkpointing:
            self.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        if self.sharded:
            sharding.shard(self.model, group, device)
        trained = {name: one for name, one in self.model.named_parameters() if one.requires_grad}
        self.parameters = FlatParameters(trained, job.config.optimizer)
        self.optimizer = Optimizer(job.config, self.parameters)
        with self._fetching():
            self.loss = ChunkedCrossEntropy(self.model)

    def probe(self, batch: Batch) -> None:
        """Nothing is left to see: the head was measured when the loss was made."""

    def supports_packing(self, packed: Batch, unpacked: Sequence[Batch]) -> bool:
        """Whether packed rows have the loss that they have one by one; prints why not to stderr."""
        with self._fetching():
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
        """Make one step; see `train.engine.TrainableModel`."""
        torch.manual_seed(dropout_seed(self.seed, step, self.group.rank))
        if not self.model.training:  # telling every layer again would cost a small model a twentieth of its step
            self.model.train()
        self.parameters.zero_gradients()
        # in float16 the share that one of many tokens has would be below the range
        divisor = 1 if self.model.dtype == torch.float16 else num_target_tokens
        loss = torch.zeros((), device=self.model.device)
        for batch in self._in_step(iter(batches)):
            with self._fetching():
                loss += self.loss.backward(batch, divisor)
        if divisor != num_target_tokens:
            for summed in (loss, *self.parameters.gradients().values()):
                summed.div_(num_target_tokens)
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
        for batch in self._in_step(batches):
            with self._fetching():
                total += float(self.loss.value(batch))
            num_target_tokens += len(batch.labels)
        (num_target_tokens,) = self.group.all_reduce_counts(num_target_tokens)
        if isinstance(self.group, TorchProcessGroup):
            total = total.to(self.model.device)  # NCCL reduces what is on its card alone
            self.group.all_reduce_(total)
        return float(total), num_target_tokens

    def _fetching(self) -> contextlib.AbstractContextManager[None]:
        """What the model runs in: where weights are spread, running it waits for the other processes."""
        return sharding.fetching(self.group) if self.sharded else contextlib.nullcontext()

    def _in_step(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """This process's batches; where weights are spread, all processes have equally many."""
        return sharding.in_step(batches, self.group) if self.sharded else batches

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
        self.optimizer.load_state(
            {name: one.cpu() if one.dim() == 0 else one.to(device) for name, one in optimizer.items()}
        )
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
