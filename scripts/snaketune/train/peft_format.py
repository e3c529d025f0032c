"""Adapters in PEFT's format, read and turned into mlx-lm's, which is this project's own.

PEFT holds A as (rank, input) and B as (output, rank), mlx-lm both the other way round; PEFT multiplies their product by
lora_alpha / r, mlx-lm by a `scale` that is written down. Nothing is lost between the two.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import safetensors
from safetensors.numpy import save_file

from snaketune import files
from snaketune.contracts.train import AdapterConfig, LoraParameters, PromptParameters
from snaketune.errors import PackageError, TrainingError
from snaketune.files import Record, StrPath
from snaketune.train.checkpoints import validate_safetensors

PREFIX = "base_model.model."
BLOCK = re.compile(r"(?P<before>.*\blayers)\.(?P<number>\d+)\.(?P<path>.+)")
PARTS = {"lora_A.weight": "lora_a", "lora_B.weight": "lora_b", "lora_magnitude_vector": "m"}
"""PEFT's names of a layer's tensors, and mlx-lm's."""
PARAMETERS = tuple(field.name for field in msgspec.structs.fields(LoraParameters))
NUMBERS = {"F32": np.float32, "F16": np.float16, "F64": np.float64}


class PeftConfig(Record, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What matters here of PEFT's adapter_config.json."""

    peft_type: str
    r: int = 0
    lora_alpha: float = 0
    lora_dropout: float = 0.0
    use_rslora: bool | None = None
    use_dora: bool | None = None
    bias: str = "none"
    fan_in_fan_out: bool | None = None
    rank_pattern: dict[str, int] = msgspec.field(default_factory=dict)
    alpha_pattern: dict[str, float] = msgspec.field(default_factory=dict)
    modules_to_save: list[str] | None = None

    @property
    def scale(self) -> float:
        """What the product of A and B is multiplied by."""
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)


class Adapter(NamedTuple):
    """An adapter in mlx-lm's format: float32 tensors by its names, and its adapter_config.json."""

    tensors: dict[str, np.ndarray]
    config: AdapterConfig


def read_peft(folder: StrPath) -> Adapter:
    """The adapter that PEFT saved in a folder, in mlx-lm's format.

    Raises TrainingError for one that mlx-lm's format cannot hold: another method than LoRA or DoRA, ranks that differ
    between layers, biases, whole layers beside the adapter.
    """
    folder = Path(folder)
    config = files.read_json(folder / "adapter_config.json", PeftConfig)
    _check_expressible(config, folder)
    tensors: dict[str, np.ndarray] = {}
    for name, value in read_tensors(folder / "adapter_model.safetensors").items():
        layer, part = _split_name(name, folder)
        tensors[f"{layer}.{part}"] = np.ascontiguousarray(value.T) if part != "m" else value.reshape(-1)
    return Adapter(tensors, describe(tensors, config.scale, config.lora_dropout))


def describe(tensors: dict[str, np.ndarray], scale: float, dropout: float) -> AdapterConfig:
    """The adapter_config.json of tensors by mlx-lm's names, whose layers and rank are read from the tensors."""
    found = [match for name in tensors if (match := BLOCK.fullmatch(name.rpartition(".")[0]))]
    if len(found) < len(tensors) or not found:
        other = next((name for name in tensors if not BLOCK.fullmatch(name.rpartition(".")[0])), "no tensor at all")
        raise TrainingError(
            f"the adapter has {other} outside the blocks of the model",
            where="train.target_modules",
            why="The adapter's format here knows layers of blocks alone",
            fix="Name the linear layers of the blocks, such as [q_proj, v_proj]",
        )
    blocks = {int(match["number"]) for match in found}
    rank = next(value.shape[-1] for name, value in tensors.items() if name.endswith(".lora_a"))
    parameters = LoraParameters(
        rank=rank, scale=scale, dropout=dropout, keys=sorted({match["path"] for match in found})
    )
    kind = "dora" if any(name.endswith(".m") for name in tensors) else "lora"
    return AdapterConfig(
        fine_tune_type=kind, num_layers=-1 if min(blocks) == 0 else len(blocks), lora_parameters=parameters
    )


def save(adapter: Adapter, tensors: StrPath, config: StrPath) -> None:
    """Write the two files of an adapter in mlx-lm's format."""
    with files.replacing(tensors) as temporary:
        save_file(dict(sorted(adapter.tensors.items())), temporary, metadata={"format": "mlx"})
    files.write_json(config, adapter.config)


def read_tensors(path: StrPath) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as float32 arrays; numpy has no bfloat16, whose bits are the upper half."""
    found = {}
    for name, entry in safetensors.deserialize(Path(path).read_bytes()):
        kind, data = entry["dtype"], entry["data"]
        if kind == "BF16":
            values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(data, NUMBERS[kind]).astype(np.float32)
        found[name] = values.reshape(entry["shape"])
    return found


def _split_name(name: str, folder: Path) -> tuple[str, str]:
    """The layer's path in the model and the part in mlx-lm's word."""
    for theirs, ours in PARTS.items():
        for ending in (f".{theirs}", f".{theirs}.weight"):
            if name.startswith(PREFIX) and name.endswith(ending):
                return name.removeprefix(PREFIX).removesuffix(ending), ours
    raise TrainingError(
        f"{name} is no part of a LoRA or DoRA adapter of linear layers",
        where=str(folder),
        fix="Set train.target_modules to linear layers, such as all-linear",
    )


def _check_expressible(config: PeftConfig, folder: Path) -> None:
    odd = {
        f"the method {config.peft_type}": config.peft_type != "LORA",
        "ranks or alphas that differ between layers": bool(config.rank_pattern or config.alpha_pattern),
        "trained biases": config.bias != "none",
        "transposed weights": bool(config.fan_in_fan_out),
        "whole trained layers": bool(config.modules_to_save),
    }
    for what, present in odd.items():
        if present:
            raise TrainingError(
                f"this adapter has {what}",
                where=str(folder / "adapter_config.json"),
                why="mlx-lm's format, in which adapters are kept here, cannot hold that",
                fix="Train LoRA or DoRA on linear layers",
            )


def read_adapter(folder: StrPath) -> Adapter:
    """The adapter in a folder, whether mlx-lm's format or PEFT's; also one that mlx-lm's own trainer wrote."""
    folder = Path(folder)
    if (folder / "adapter_model.safetensors").is_file():
        return read_peft(folder)
    described = files.read_json(folder / "adapter_config.json")
    known = {key: one for key, one in (described.get("lora_parameters") or {}).items() if key in PARAMETERS}
    config = AdapterConfig(
        fine_tune_type=described.get("fine_tune_type", "lora"),
        num_layers=described.get("num_layers", -1),
        lora_parameters=msgspec.convert(known, LoraParameters),
        prompt_parameters=prompt_parameters(folder),
    )
    return Adapter(read_tensors(validate_safetensors(folder / "adapters.safetensors")), config)


def prompt_parameters(folder: StrPath) -> PromptParameters | None:
    """What prompt tuning learned, where the adapter in a folder is of that method."""
    path = Path(folder) / "adapter_config.json"
    described = files.read_json(path) if path.is_file() else {}
    return msgspec.convert(described.get("prompt_parameters"), PromptParameters | None)


def export_peft(folder: StrPath) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """An adapter folder as PEFT's LoRA, for programs that know no other method; PackageError where it is none."""
    adapter = read_adapter(folder)
    if adapter.config.fine_tune_type == "dora":
        raise _not_lora("dora", str(folder))
    return to_peft(adapter, str(folder))


def _not_lora(kind: str, where: str) -> PackageError:
    return PackageError(
        f"a {kind} fine-tune cannot be written as a LoRA adapter",
        where=where,
        fix="Use the fused model or its GGUF, which hold all of it",
    )


def to_peft(adapter: Adapter, where: str) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """A LoRA or DoRA adapter as PEFT's tensors and adapter_config.json.

    Raises PackageError for what PEFT's LoRA of linear layers cannot express: full fine-tunes, stacks of experts.
    """
    kind, settings = adapter.config.fine_tune_type, adapter.config.lora_parameters
    if kind not in ("lora", "dora"):
        raise _not_lora(kind, where)
    theirs = {ours: name for name, ours in PARTS.items()}
    found: dict[str, np.ndarray] = {}
    for name, value in sorted(adapter.tensors.items()):
        layer, _, part = name.rpartition(".")
        if part not in theirs or value.ndim != (1 if part == "m" else 2):
            raise PackageError(
                f"{name} cannot be written as a LoRA adapter: it belongs to a mixture of experts or another method",
                where=where,
                fix="Use the fused model or its GGUF, which hold all of it",
            )
        found[f"{PREFIX}{layer}.{theirs[part]}"] = np.array(value.T, np.float32, order="C")
    rank, scale = settings.rank or 0, settings.scale or 0.0
    config: dict[str, object] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": settings.dropout or 0.0,
        "target_modules": sorted({name.rpartition(".")[0].rpartition(".")[2] for name in adapter.tensors}),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "base_model_name_or_path": None,
    }
    return found, config | ({"use_dora": True} if kind == "dora" else {})
