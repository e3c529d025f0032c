"""Sets MLX's memory limits, and explains an allocation that failed with the settings that would help."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import mlx.core as mx

from snaketune.config.sections import TrainConfig
from snaketune.errors import ResourceError

GB = 10**9
FAILURES = ("out of memory", "outofmemory", "insufficient memory", "unable to allocate", "bad_alloc", "malloc")
BUFFER_CACHE_BYTES = GB  # freed buffers that an accelerator may keep; changing row lengths would let them grow


def set_memory_limits(gigabytes: float | None) -> None:
    """Hand the limit to MLX, and let it pin what the accelerator recommends."""
    if gigabytes is not None:
        mx.set_memory_limit(int(gigabytes * GB))
    if mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))
    if mx.default_device() != mx.cpu:
        mx.set_cache_limit(BUFFER_CACHE_BYTES)


@contextlib.contextmanager
def explain_out_of_memory(config: TrainConfig, max_row_length: int) -> Iterator[None]:
    """Turn a failed allocation into a ResourceError with the numbers and the three settings that would help most.

    max_row_length: of the longest row, in tokens.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(word in str(error).lower() for word in FAILURES):
            raise
        changes = memory_saving_changes(config, max_row_length)[:3]
        raise ResourceError(
            f"out of memory at a peak of {mx.get_peak_memory() / GB:.1f} GB, with micro-batches of up to "
            f"{config.batch_size} rows and rows of up to {max_row_length} tokens ({str(error).strip() or 'no memory'})",
            where="train",
            why="The last checkpoint is kept",
            fix=f"Try in this order: {'; '.join(f'{index}. {change}' for index, change in enumerate(changes, 1))}",
        ) from error


def memory_saving_changes(config: TrainConfig, max_row_length: int) -> list[str]:
    """Settings that lower the peak, the cheapest first."""
    changes = []
    if config.batch_size > 1:
        half = config.batch_size // 2
        accumulation = -(-config.batch_size * config.gradient_accumulation_steps // half)
        changes.append(
            f"train.batch_size {half} with train.gradient_accumulation_steps {accumulation} "
            "(the same training in smaller pieces)"
        )
    if not config.gradient_checkpointing:
        changes.append("train.gradient_checkpointing true (the same training, a fifth slower)")
    if config.method == "full":
        changes.append("train.method lora")
    changes.append("model.quantize {bits: 4} if the base is not quantized yet")
    changes.append(f"data.max_length {max_row_length // 2} (the longest rows are left out)")
    changes.append("train.num_layers 8 (only the last layers)")
    changes.append("a smaller model.base")
    return changes
