"""Writes merged weights in 16 bits, and measures what each 16-bit format loses of them; for every engine's exporter.

An engine gives one tensor after another. It is rounded, looked at, written and hashed in pieces that the processor's
cache holds, so that the numbers pass through memory once. Rounding takes small updates away: a bfloat16 weight lies on
bfloat16's grid, so an update smaller than half a step of the grid is gone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snaketune import files
from snaketune.contracts.package import Rounding
from snaketune.engines.interface import FusedWeights
from snaketune.errors import PackageError

FORMATS = ("float16", "bfloat16")
STORED = {"float16": "F16", "bfloat16": "BF16"}
LARGEST_FLOAT16 = {"float16": 0x7BFF, "bfloat16": 0x477F}  # the bits of the largest number that float16 can hold
INFINITE = {"float16": 0x7C00, "bfloat16": 0x7F80}
SHARD = 2 << 30  # bytes of a file at most
PIECE = 1 << 16  # numbers rounded at once
SAMPLED_ROWS = 64  # of each matrix, to measure what rounding loses


class Sample(NamedTuple):
    """Rows of a merged matrix, and of the same without the adapter where that changed it; float32."""

    merged: np.ndarray
    before: np.ndarray | None


class MergedNumbers(NamedTuple):
    """One merged tensor, flat: float32, or uint16 with the bits of numbers that are in the wanted format already."""

    numbers: np.ndarray
    sample: Sample


def write(
    folder: Path,
    dtype: str,
    shapes: Mapping[str, tuple[int, ...]],
    take: Callable[[str], MergedNumbers],
    shard: int = SHARD,
) -> FusedWeights:
    """Write tensors as safetensors files of at most `shard` bytes into `folder`, in the order of their names.

    dtype: one of FORMATS; take: gives a tensor by its name, and is asked for each once. Raises PackageError where the
    format does not hold a number.
    """
    sizes = {name: 2 * math.prod(shapes[name]) for name in sorted(shapes)}
    groups = list(files.in_shards(sizes, shard))
    rounder = Rounder(dtype, folder)
    folder.mkdir(parents=True, exist_ok=True)
    digests: dict[str, str] = {}
    index: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        tensors = ((key, rounder.pieces(key, take(key))) for key in group)
        digests[name] = files.write_safetensors(
            folder / name, STORED[dtype], {key: shapes[key] for key in group}, tensors
        )
        index |= dict.fromkeys(group, name)
    names, total = list(digests), sum(sizes.values())
    if len(groups) > 1:
        names.append("model.safetensors.index.json")
        files.write_json(
            folder / names[-1], {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
        )
    return FusedWeights(
        dtype=dtype, files=names, parameters=total // 2, digests=digests, rounding=rounder.meter.result()
    )


class Rounder:
    """Rounds one tensor after another to a 16-bit format; where: what is written, for messages."""

    def __init__(self, dtype: str, where: Path) -> None:
        self._dtype, self._where = dtype, where
        self._bits = np.empty(PIECE, np.uint16)
        self.meter = RoundingMeter()

    def pieces(self, name: str, merged: MergedNumbers) -> Iterator[np.ndarray]:
        """Yield the bits of a tensor piece by piece, each of which is good until the next."""
        numbers, largest = merged.numbers, 0
        for start in range(0, numbers.size, PIECE):
            piece = numbers[start : start + PIECE]
            bits = piece if piece.dtype == np.uint16 else rounded(piece, self._dtype, self._bits)
            largest = max(largest, largest_bits(bits))
            if largest >= INFINITE[self._dtype]:
                raise PackageError(
                    f"the merged weights of {name} are not finite in 16 bits",
                    where=str(self._where),
                    why="A value is beyond what the number format holds, or the adapter itself is broken",
                    fix="Set model.dtype: bfloat16, whose range is that of 32 bits",
                )
            yield bits
        weight = numbers.size / max(1, merged.sample.merged.size)
        self.meter.add(merged.sample, weight, largest <= LARGEST_FLOAT16[self._dtype])


def rounded(exact: np.ndarray, dtype: str, scratch: np.ndarray | None = None) -> np.ndarray:
    """Flat float32 numbers rounded to the nearest of a 16-bit format (ties to even), as the 16 bits of each.

    scratch: at least as many uint16, where they are written to. A number beyond the format's range, and one that was
    not finite, has the bits of infinity or NaN.
    """
    result = np.empty(exact.size, np.uint16) if scratch is None else scratch[: exact.size]
    if dtype == "float16":
        with np.errstate(over="ignore"):
            result.view(np.float16)[:] = exact
        return result
    bits = exact.view(np.uint32)
    sums = bits >> np.uint32(16)
    sums &= np.uint32(1)
    sums += np.uint32(0x7FFF)
    sums += bits
    result[:] = sums.view(np.uint16)[1::2]
    if not np.isfinite([exact.min(initial=0), exact.max(initial=0)]).all():  # the sum can carry NaN over into a number
        result[~np.isfinite(exact)] = INFINITE["bfloat16"]
    return result


DROPPED_BITS = {"float16": 13, "bfloat16": 16}  # of a float32 number's 23 that stand after the point
LARGEST_DITHERED = 65_472.0  # above it the next number of float16 is infinity
NUM_DRAWN = 1 << 20  # chances that are drawn; a larger matrix meets them again


def dithered(exact: np.ndarray, dtype: str) -> np.ndarray:
    """Float32 numbers rounded to a 16-bit format up or down by chance, the nearer the likelier; still in float32.

    A bfloat16 weight lies on float16's grid. An update below half a step of it is lost whole when the sum is rounded to
    the nearest, and kept in the mean when it is rounded by chance. Numbers on the grid stay; if all are, so does the
    array. The draw is the same one for every tensor.
    """
    bits, low = exact.reshape(-1).view(np.uint32), np.uint32((1 << DROPPED_BITS[dtype]) - 1)
    pieces = [slice(start, start + PIECE) for start in range(0, bits.size, PIECE)]
    if not any((bits[piece] & low).any() for piece in pieces) or np.abs(exact).max() > LARGEST_DITHERED:
        return exact
    chances = _chances(int(low))
    result = np.empty_like(bits)
    for piece in pieces:
        found, start = result[piece], piece.start % NUM_DRAWN
        np.add(bits[piece], chances[start : start + found.size], out=found)
        found &= ~low
    return result.view(np.float32).reshape(exact.shape)


@functools.cache
def _chances(largest: int) -> np.ndarray:
    """The draw of `dithered`, of numbers from 0 to `largest`: read-only, and made once for all tensors."""
    drawn = np.random.default_rng(0).integers(0, largest + 1, NUM_DRAWN, dtype=np.uint32)
    drawn.flags.writeable = False
    return drawn


def largest_bits(bits: np.ndarray) -> int:
    """The bits of the largest magnitude among 16-bit numbers; of infinity or above it if one is not finite."""
    return int((bits & np.uint16(0x7FFF)).max(initial=0))


@dataclass
class RoundingMeter:
    """Sums over the sampled rows of all tensors, from which `Rounding` follows for each 16-bit format."""

    squares: float = 0.0
    updates: float = 0.0
    errors: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FORMATS, 0.0))
    retained: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FORMATS, 0.0))
    in_float16: bool = True

    def add(self, sample: Sample, weight: float, in_float16: bool) -> None:
        """Count a tensor's sample; weight: numbers of the tensor for each one in the sample."""
        self.in_float16 &= in_float16
        merged = sample.merged.astype(np.float64)
        update = None if sample.before is None else merged - sample.before
        self.squares += weight * float((merged**2).sum())
        self.updates += 0.0 if update is None else weight * float((update**2).sum())
        for dtype, found in _all_rounded(sample.merged):
            self.errors[dtype] += weight * float(((found - merged) ** 2).sum())
            if update is not None:
                self.retained[dtype] += weight * float(((found - sample.before) * update).sum())

    def result(self) -> dict[str, Rounding]:
        """What each format loses."""
        return {
            dtype: Rounding(
                error=_significant((self.errors[dtype] / self.squares) ** 0.5) if self.squares else 0.0,
                update_retained=round(self.retained[dtype] / self.updates, 4) if self.updates else None,
                in_range=self.in_float16 or dtype == "bfloat16",
            )
            for dtype in FORMATS
        }


def _all_rounded(exact: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The numbers in each 16-bit format, as float64."""
    with np.errstate(over="ignore"):
        yield "float16", exact.astype(np.float16).astype(np.float64)
    bits = rounded(np.ascontiguousarray(exact).reshape(-1), "bfloat16").astype(np.uint32) << np.uint32(16)
    yield "bfloat16", bits.view(np.float32).reshape(exact.shape).astype(np.float64)


def _significant(value: float) -> float:
    return float(f"{value:.4g}")
