"""Which engine a run uses: what the configuration names, or what suits the machine. Imports no engine.

The rules choose once and put the name into the environment, from which each step takes it.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from snaketune.config.sections import ModelConfig, RunConfig
from snaketune.errors import ConfigError
from snaketune.files import Record

NVIDIA_DEVICES = ("/proc/driver/nvidia/gpus/*", "/dev/nvidia[0-9]*", "/dev/dxg")  # the last is that of WSL


class EngineChoice(Record, frozen=True, kw_only=True):
    """The engine of a run, and why it is that one, as a sentence."""

    name: Literal["mlx", "torch"]
    reason: str


def choose_engine(config: RunConfig, models: Iterable[ModelConfig]) -> EngineChoice:
    """The engine of a run and the reason; models: the bases of all experiments.

    Raises ConfigError for a base that the engine would have to quantize and cannot.
    """
    choice = _auto(config.package.mlx) if config.engine == "auto" else _named(config.engine)
    if choice.name == "torch" and any(model.quantize for model in models):
        raise ConfigError(
            "the torch engine does not quantize a base",
            where="model.quantize",
            why=f"{choice.reason}; the quantized formats of model.quantize are MLX's",
            fix="Set engine: mlx, or leave model.quantize out",
        )
    if choice.name == "torch" and config.package.mlx:
        raise ConfigError(
            "the torch engine does not quantize for MLX",
            where="package.mlx",
            why=f"{choice.reason}; folders for MLX are made and measured by MLX itself",
            fix="Set engine: mlx, or leave package.mlx out",
        )
    return choice


def has_nvidia_card() -> bool:
    """Whether the system shows an NVIDIA card; nothing is imported or started to find out."""
    return any(True for pattern in NVIDIA_DEVICES for _ in Path("/").glob(pattern.removeprefix("/")))


def _named(engine: str) -> EngineChoice:
    return EngineChoice(name="torch" if engine == "torch" else "mlx", reason=f"engine: {engine} is set")


def _auto(folders: Sequence[str]) -> EngineChoice:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return EngineChoice(name="mlx", reason="MLX computes on Apple silicon's own GPU and memory")
    if folders and has_nvidia_card():
        return EngineChoice(name="mlx", reason="package.mlx asks for folders that MLX alone makes")
    if has_nvidia_card():
        build = torch_build()
        if build is None or build.endswith("+cpu"):
            found = "there is no torch" if build is None else f"torch {build} is built without CUDA"
            return EngineChoice(name="mlx", reason=f"there is an NVIDIA card, but {found}")
        return EngineChoice(name="torch", reason="there is an NVIDIA card, which torch computes on")
    return EngineChoice(
        name="mlx",
        reason="there is no GPU, and MLX starts in less time; a training of hours is faster with engine: torch",
    )


def torch_build() -> str | None:
    """The version of the installed torch, which ends in `+cpu` where it is built for CPUs alone; None without torch."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return None
