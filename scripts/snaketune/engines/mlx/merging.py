"""Adds an adapter to its base, tensor by tensor in float32, and measures what a 16-bit format would lose of the sum.

Nothing is computed before it is needed, and what was taken is forgotten: memory holds one tensor, not the model. A
quantized base is dequantized and never quantized again here: requantizing would round small updates away. Rounding does
that too: a bfloat16 weight lies on bfloat16's grid, so an update smaller than half a step of the grid is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import dequantize_model, load_model

from snaketune.contracts.package import Rounding
from snaketune.engines.mlx import loading
from snaketune.errors import ModelError
from snaketune.files import StrPath

EXPERT_STACK = ".switch_mlp."
MIXTRAL_NAMES = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
SIXTEEN_BIT = {"float16": mx.float16, "bfloat16": mx.bfloat16}
LARGEST_FLOAT16 = {"float16": 0x7BFF, "bfloat16": 0x477F}  # the bits of the largest number that float16 can hold
INFINITE = {"float16": 0x7C00, "bfloat16": 0x7F80}
SAMPLED_ROWS = 64  # of each matrix, to measure what rounding loses
KEPT_BYTES = 512 << 20  # of freed memory that MLX keeps, so that the next tensor is not given new pages by the system
PIECE = 1 << 16  # numbers rounded at once: as many as the processor's cache holds


@dataclass
class Merged:
    """The tensors of a merged model by name, not yet computed.

    dtype: the 16-bit format that most of the base has (float16 for one in float32). tensors: float32 where they were
    changed or dequantized, else as they are in the base. before: what the adapter's matrices were without it.
    """

    dtype: str
    tensors: dict[str, mx.array]
    before: dict[str, mx.array]

    def take(self, name: str) -> tuple[mx.array, Sample]:
        """Compute a tensor and forget it here; the sample is some rows of it, with and without the adapter."""
        value, before = self.tensors.pop(name), self.before.pop(name, None)
        rows = slice(None, None, max(1, value.shape[0] // SAMPLED_ROWS))
        sampled = value[rows].astype(mx.float32)
        unchanged = None if before is None else before[rows].astype(mx.float32)
        mx.eval(value, sampled, *([] if unchanged is None else [unchanged]))
        return value, Sample(np.array(sampled), None if unchanged is None else np.array(unchanged))


@dataclass(frozen=True)
class Sample:
    """Rows of a merged matrix, and of the same without the adapter where that changed it; float32."""

    merged: np.ndarray
    before: np.ndarray | None


def merge(base: StrPath, adapter: StrPath, drop_prefix: str = "") -> Merged:
    """Open the base folder with the adapter folder added; drop_prefix: is left out of the tensors' names.

    Raises ModelError for a base that cannot be loaded and for an adapter that does not fit.
    """
    mx.set_cache_limit(KEPT_BYTES)
    model, own = _open(base)
    plain = loading.flatten(model.parameters())
    try:
        model.set_dtype(mx.float32)
        model = load_adapters(model, str(adapter))
        changed = set(loading.load_safetensors(Path(adapter) / "adapters.safetensors"))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the adapter does not fit its base ({str(error).splitlines()[0]})",
            where=str(adapter),
            fix="Run snakemake again; the adapter must come from this very base",
        ) from error
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "fuse")}
    changed |= {f"{name}.weight" for name in adapted}
    before = {f"{name}.weight": _inner_weight(module) for name, module in adapted.items()}
    model.update_modules(tree_unflatten([(name, module.fuse(dequantize=True)) for name, module in adapted.items()]))
    model = dequantize_model(model)
    whole = {
        name: value if name in changed or plain[name].dtype == mx.uint32 else plain[name]
        for name, value in loading.flatten(model.parameters()).items()
    }
    tensors = {name.removeprefix(drop_prefix): value for name, value in unstack_experts(whole).items()}
    return Merged(own, tensors, {name.removeprefix(drop_prefix): value for name, value in before.items()})


def _inner_weight(module: nn.Module) -> mx.array:
    inner: nn.Module = module["linear"] if "linear" in module else module["embedding"]
    return loading.dequantized_weight(inner)


def _open(base: StrPath) -> tuple[nn.Module, str]:
    """The base with weights still on disk, and the 16-bit format that suits it."""
    try:
        model, _ = load_model(Path(base), lazy=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"the base cannot be loaded ({str(error).splitlines()[0]})", where=str(base), fix="Fetch it again"
        ) from error
    sizes: dict[Any, int] = {}
    for value in loading.flatten(model.parameters()).values():
        sizes[value.dtype] = sizes.get(value.dtype, 0) + value.size
    bfloat = sizes.get(mx.bfloat16, 0) > sizes.get(mx.float16, 0)
    return model, "bfloat16" if bfloat else "float16"


def unstack_experts(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Cut every stack of experts (experts, outputs, inputs) into one matrix (outputs, inputs) for each expert.

    Other programs have a name for each expert, where mlx-lm has a stack.
    """
    found: dict[str, mx.array] = {}
    for name, value in weights.items():
        block, stacked, part = name.partition(EXPERT_STACK)
        if not stacked:
            found[name] = value
            continue
        layer, _, kind = part.rpartition(".")
        layer = MIXTRAL_NAMES[layer] if block.endswith("block_sparse_moe") else layer
        found |= {f"{block}.experts.{number}.{layer}.{kind}": value[number] for number in range(value.shape[0])}
    return found


def in_16_bits(value: mx.array, dtype: str, scratch: np.ndarray | None = None) -> np.ndarray:
    """The numbers rounded to the nearest of a 16-bit format (ties to even), as the 16 bits of each; flat.

    scratch: at least as many uint16, where they are written to; new pages for each tensor took longer than rounding it.
    A number beyond the format's range, and one that was not finite, has the bits of infinity or NaN.
    """
    if value.dtype == SIXTEEN_BIT[dtype]:
        return np.array(value.reshape(-1).view(mx.uint16), copy=False)
    exact = np.array(value.astype(mx.float32).reshape(-1), copy=False)
    rounded = np.empty(exact.shape, np.uint16) if scratch is None else scratch[: exact.size]
    for start in range(0, exact.size, PIECE):
        _round(exact[start : start + PIECE], rounded[start : start + PIECE], dtype)
    return rounded


def _round(exact: np.ndarray, rounded: np.ndarray, dtype: str) -> None:
    """Write the 16 bits of each number into `rounded`."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            rounded.view(np.float16)[:] = exact
        return
    bits = exact.view(np.uint32)
    sums = bits >> np.uint32(16)
    sums &= np.uint32(1)
    sums += np.uint32(0x7FFF)
    sums += bits
    rounded[:] = sums.view(np.uint16)[1::2]
    if not np.isfinite([exact.min(initial=0), exact.max(initial=0)]).all():  # the sum can carry NaN over into a number
        rounded[~np.isfinite(exact)] = INFINITE["bfloat16"]


def largest_bits(numbers: np.ndarray) -> int:
    """The bits of the largest magnitude among 16-bit numbers; of infinity or above it if one is not finite."""
    pieces = (numbers[start : start + PIECE] for start in range(0, numbers.size, PIECE))
    return max((int((piece & np.uint16(0x7FFF)).max()) for piece in pieces), default=0)


@dataclass
class RoundingMeter:
    """Sums over the sampled rows of all tensors, from which `Rounding` follows for each 16-bit format."""

    squares: float = 0.0
    updates: float = 0.0
    errors: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SIXTEEN_BIT, 0.0))
    retained: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SIXTEEN_BIT, 0.0))
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
            for dtype in SIXTEEN_BIT
        }


def _all_rounded(exact: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The numbers in each 16-bit format, as float64."""
    with np.errstate(over="ignore"):
        yield "float16", exact.astype(np.float16).astype(np.float64)
    bits = in_16_bits(mx.array(exact), "bfloat16").astype(np.uint32) << np.uint32(16)
    yield "bfloat16", bits.view(np.float32).reshape(exact.shape).astype(np.float64)


def _significant(value: float) -> float:
    return float(f"{value:.4g}")
