"""The files that are handed over, by the names of their variants, and what a type of package.mlx means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

GGUF, MLX = "gguf-", "mlx-"
MODES = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}  # bits and group size, which are fixed
GROUP_SIZE = 64
CALIBRATIONS = ("dwq", "awq", "dynamic")
_TYPE = re.compile(r"(?:(\d)bit(?:-g(\d+))?|(mxfp4|mxfp8|nvfp4))(?:-(\w+))?")


class MLXType(NamedTuple):
    """A type of package.mlx: `4bit`, `4bit-g32`, `mxfp4`, `4bit-dwq`.

    group_size: weights that share a scale; calibration: one of CALIBRATIONS, or None.
    """

    bits: int
    group_size: int
    mode: str
    calibration: str | None

    @classmethod
    def named(cls, name: str) -> MLXType:
        """The type of that name, which the schema has checked."""
        found = _TYPE.fullmatch(name)
        assert found, name
        bits, group, mode, calibration = found.groups()
        if mode:
            return cls(*MODES[mode], mode, calibration)
        return cls(int(bits), int(group or GROUP_SIZE), "affine", calibration)

    def bits_per_weight(self) -> float:
        """Bits of a weight with its share of scale (and bias, 16 bits each)."""
        return self.bits + (32 if self.mode == "affine" else 8) / self.group_size


def is_product(variant: str) -> bool:
    """Whether a variant is a file that people run."""
    return variant.startswith((GGUF, MLX))


def products_of(gguf: Iterable[str], mlx: Iterable[str]) -> list[str]:
    """The variants of the types of package.gguf and package.mlx."""
    return [f"{GGUF}{kind}" for kind in gguf] + [f"{MLX}{kind}" for kind in mlx]
