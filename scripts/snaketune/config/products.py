"""The files that are handed over, by the names of their variants, and what a type of them means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from snaketune.errors import ConfigError

GGUF, MLX = "gguf-", "mlx-"
MODES = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}  # bits and group size, which are fixed
GROUP_SIZE = 64
CALIBRATIONS = ("dwq", "awq", "dynamic")
NEEDS_IMATRIX = frozenset({"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs", "q2_k_s"})
"""GGUF types that llama.cpp refuses to make without an importance matrix."""
READS_IMATRIX = NEEDS_IMATRIX | {"iq3_s", "iq3_m", "iq4_xs", "iq4_nl", "q2_k", "q3_k_s", "q3_k_m", "q3_k_l"}
READS_IMATRIX |= {"q4_0", "q4_1", "q4_k_s", "q4_k_m", "q5_0", "q5_1", "q5_k_s", "q5_k_m", "q6_k"}
"""GGUF types that come out otherwise with an importance matrix; the rest do not read it."""
FEW_BITS = ("iq", "q2_k", "q3_k")  # what the names begin with of types for which `auto` computes one
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


def takes_imatrix(kind: str, imatrix: bool | str) -> bool:
    """Whether a GGUF of this type is made with an importance matrix; imatrix: `package.imatrix`."""
    return kind in READS_IMATRIX and (imatrix is True or (imatrix == "auto" and kind.startswith(FEW_BITS)))


def types_with_imatrix(gguf: Iterable[str], imatrix: bool | str) -> list[str]:
    """The types of package.gguf that are made with an importance matrix."""
    return [kind for kind in gguf if takes_imatrix(kind, imatrix)]


def types_made_twice(gguf: Iterable[str], imatrix: bool | str) -> list[str]:
    """Those of them that are made without it too, to be compared with."""
    return [kind for kind in types_with_imatrix(gguf, imatrix) if kind not in NEEDS_IMATRIX]


def check_imatrix(gguf: Iterable[str], imatrix: bool | str) -> None:
    """Raise ConfigError for a GGUF type that cannot be made without the importance matrix that is switched off."""
    refused = [kind for kind in gguf if kind in NEEDS_IMATRIX and not takes_imatrix(kind, imatrix)]
    if refused:
        raise ConfigError(
            f"llama.cpp does not make {', '.join(refused)} without an importance matrix",
            where="package.gguf",
            why="package.imatrix is false, so none is computed, and the run would stop after its training",
            fix="Set package.imatrix: auto, or name another type, such as q3_k_m",
        )
