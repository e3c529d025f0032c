"""Which engine a run uses: what the configuration names, or what suits machine and base. Imports no engine.

The rules choose once and put the name into the environment, from which each step takes it.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, get_args

from snaketune.config.schema import did_you_mean
from snaketune.config.sections import ModelConfig, QuantizeConfig, RunConfig
from snaketune.errors import ConfigError
from snaketune.files import Record, read_json

EngineName = Literal["mlx", "torch"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
"""The engines that train."""
MEASURED_CPUS = ("x86_64", "AMD64")
"""Machines on whose CPUs torch was measured to be faster (docs/benchmarks.md)."""
SMALL_BASE = 20_000_000
"""Bytes of weights; below, the two CPU seconds by which each of torch's steps starts later are not won back."""
DEMO_BYTES = 3_000_000
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")
MLX_QUANTIZED = re.compile(r"\dbit|[-_]q\d", re.IGNORECASE)
NVIDIA_DEVICES = ("/proc/driver/nvidia/gpus/*", "/dev/nvidia[0-9]*", "/dev/dxg")  # the last is that of WSL

MLX_ON_CUDA = ("mlx-cuda-12", "mlx-cuda-13")
"""The packages of MLX's backend for NVIDIA cards."""


class EngineChoice(Record, frozen=True, kw_only=True):
    """The engine of a run, and why it is that one, as a sentence."""

    name: EngineName
    reason: str


def choose_engine(config: RunConfig, models: Iterable[ModelConfig]) -> EngineChoice:
    """The engine of a run and the reason; models: the bases of all experiments.

    Raises ConfigError for a base that the engine would have to quantize and cannot.
    """
    models = list(models)
    choice = _auto(config, models) if config.engine == "auto" else _named(config.engine)
    for model in models:
        if model.quantize:
            _check_quantize(model.quantize, choice)
    if choice.name == "torch" and config.package.mlx:
        raise ConfigError(
            "the torch engine does not quantize for MLX",
            where="package.mlx",
            why=f"{choice.reason}; folders for MLX are made and measured by MLX itself",
            fix="Set engine: mlx, or leave package.mlx out",
        )
    return choice


def _check_quantize(quantize: QuantizeConfig, choice: EngineChoice) -> None:
    """Raise ConfigError for a format that the engine does not have, or that this machine cannot compute in."""
    if quantize.mode == "nf4":
        if choice.name != "torch" or not has_nvidia_card():
            raise ConfigError(
                "NF4 needs the torch engine on an NVIDIA card, which is not what this run has",
                where="model.quantize.mode",
                why=choice.reason,
                fix="Set mode: affine with engine: mlx, or leave model.quantize out",
            )
        if quantize.bits != 4:
            raise ConfigError(f"NF4 has 4 bits, not {quantize.bits}", where="model.quantize.bits", fix="Set bits: 4")
    elif choice.name == "torch":
        raise ConfigError(
            f"the torch engine does not quantize a base to the format {quantize.mode}",
            where="model.quantize",
            why=f"{choice.reason}; that format is MLX's",
            fix="Set engine: mlx, or mode: nf4 on an NVIDIA card, or leave model.quantize out",
        )


def has_nvidia_card() -> bool:
    """Whether the system shows an NVIDIA card; nothing is imported or started to find out."""
    return any(True for pattern in NVIDIA_DEVICES for _ in Path("/").glob(pattern.removeprefix("/")))


def _named(engine: str) -> EngineChoice:
    if engine not in ENGINES:
        raise ConfigError(
            f'there is no engine "{engine}"{did_you_mean(engine, ENGINES)}',
            where="engine",
            fix=f"Set engine to auto, {' or '.join(ENGINES)}",
        )
    return EngineChoice(name=engine, reason=f"engine: {engine} is set")


def _auto(config: RunConfig, models: Sequence[ModelConfig]) -> EngineChoice:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return EngineChoice(name="mlx", reason="MLX computes on Apple silicon's own GPU and memory")
    if config.package.mlx:
        return EngineChoice(name="mlx", reason="package.mlx asks for folders that MLX alone makes")
    if has_nvidia_card():
        build = torch_build()
        if build is None or build.endswith("+cpu"):
            found = "there is no torch" if build is None else f"torch {build} is built without CUDA"
            return EngineChoice(name="mlx", reason=f"there is an NVIDIA card, but {found}")
        return EngineChoice(name="torch", reason="there is an NVIDIA card, which torch computes on")
    return _on_cpu(models)


def _on_cpu(models: Sequence[ModelConfig]) -> EngineChoice:
    """Torch, which the benchmark shows to be faster, unless something here is MLX's or too small for that to pay.

    It goes by the configuration and by folders on this machine alone, so that the same run has the same engine before
    and after its base is fetched.
    """
    if platform.machine() not in MEASURED_CPUS:
        return EngineChoice(name="mlx", reason=f"there is no GPU, and torch was not measured on {platform.machine()}")
    if torch_build() is None:
        return EngineChoice(name="mlx", reason="there is no GPU and no torch")
    for model in models:
        if model.quantize or _is_of_mlx(model.base):
            return EngineChoice(name="mlx", reason="there is no GPU, and MLX trains on a quantized base as it is")
    if any(_has_experts(model.base) for model in models):
        return EngineChoice(name="mlx", reason="there is no GPU, and torch does not train mixtures of experts")
    sizes = [_weights_size(model.base) for model in models]
    if all(size is not None and size < SMALL_BASE for size in sizes):
        return EngineChoice(
            name="mlx",
            reason="there is no GPU, and for so small a base MLX's shorter start counts for more",
        )
    return EngineChoice(
        name="torch", reason="there is no GPU, and on this kind of CPU torch trains half as fast again as MLX"
    )


def _is_of_mlx(base: str) -> bool:
    """Whether a base is one that MLX has quantized; those of the hub are known by their names."""
    described = _config_of(base)
    if described is not None:
        return "quantization" in described
    return base.startswith("mlx-community/") and bool(MLX_QUANTIZED.search(base))


def _has_experts(base: str) -> bool:
    counts = ((_config_of(base) or {}).get(key) for key in EXPERT_COUNTS)
    return any(isinstance(count, int) and count > 1 for count in counts)


def _config_of(base: str) -> dict[str, object] | None:
    """The config.json of a base in a folder on this machine; None for another base."""
    path = Path(base).expanduser() / "config.json"
    try:
        described = read_json(path) if path.is_file() else None
    except (OSError, ValueError):
        return None  # the step that reads it says what is wrong
    return described if isinstance(described, dict) else None


def _weights_size(base: str) -> int | None:
    """Bytes of a base's weights; None where they are not on this machine."""
    if base == "demo":
        return DEMO_BYTES
    if _config_of(base) is None:
        return None
    return sum(path.stat().st_size for path in Path(base).expanduser().glob("*.safetensors"))


def torch_build() -> str | None:
    """The version of the installed torch, which ends in `+cpu` where it is built for CPUs alone; None without torch."""
    return _installed("torch")


def computes_on_card(engine: str) -> bool:
    """Whether an engine computes on an NVIDIA card of this machine, by what is installed; it is not imported."""
    if not has_nvidia_card():
        return False
    if engine == "torch":
        build = torch_build()
        return build is not None and not build.endswith("+cpu")
    return any(_installed(package) for package in MLX_ON_CUDA)


def _installed(package: str) -> str | None:
    """The version of an installed package; None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
