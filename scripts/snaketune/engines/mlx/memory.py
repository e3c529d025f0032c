"""Memory: the limit that a person sets, and an allocation that failed, put as what would help."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import mlx.core as mx

from snaketune.errors import ResourceError

GB = 10**9
FAILURES = ("out of memory", "outofmemory", "insufficient memory", "unable to allocate", "bad_alloc", "malloc")
KEPT = GB  # of freed buffers for reuse, on an accelerator; lengths that keep changing would let them grow


def limit(gigabytes: float | None) -> None:
    """Hand the limit to MLX, and let it pin what the accelerator recommends."""
    if gigabytes is not None:
        mx.set_memory_limit(int(gigabytes * GB))
    if mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))
    if mx.default_device() != mx.cpu:
        mx.set_cache_limit(KEPT)


@contextlib.contextmanager
def explaining(train: dict[str, Any], longest: int) -> Iterator[None]:
    """Turn a failed allocation into a ResourceError with the numbers and the three settings that would help most.

    train: the configuration's section; longest: the longest row in tokens.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(word in str(error).lower() for word in FAILURES):
            raise
        helps = "; ".join(f"{number}. {what}" for number, what in enumerate(helpful(train, longest)[:3], 1))
        raise ResourceError(
            f"out of memory at a peak of {mx.get_peak_memory() / GB:.1f} GB, with micro-batches of up to "
            f"{train['batch_size']} rows and rows of up to {longest} tokens ({str(error).strip() or 'no memory'})",
            where="train",
            why="The last checkpoint is kept",
            fix=f"What helps most, in this order: {helps}",
        ) from error


def helpful(train: dict[str, Any], longest: int) -> list[str]:
    """Settings that lower the peak, those that cost least first."""
    found = []
    if train["batch_size"] > 1:
        half = train["batch_size"] // 2
        pieces = -(-train["batch_size"] * train["gradient_accumulation_steps"] // half)
        smaller = f"train.batch_size {half} with train.gradient_accumulation_steps {pieces}"
        found.append(f"{smaller} (the same training in smaller pieces)")
    if not train["gradient_checkpointing"]:
        found.append("train.gradient_checkpointing true (the same training, a fifth slower)")
    if train["method"] == "full":
        found.append("train.method lora")
    found.append("model.quantize {bits: 4} if the base is not quantized yet")
    found.append(f"data.max_length {longest // 2} (the longest rows are left out)")
    found.append("train.num_layers 8 (only the last layers)")
    found.append("a smaller model.base")
    return found
