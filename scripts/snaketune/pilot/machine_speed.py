"""How fast this machine packages a model: a part of the merge is made, and a few weights are quantized to each type."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from snaketune.engines import get_exporter
from snaketune.engines.interface import MergedTensor
from snaketune.engines.llama_cpp.quantize import weights_per_second
from snaketune.engines.sixteen_bit import MergedNumbers, Sample, write
from snaketune.files import StrPath

SAMPLE = 1 << 27  # weights that are merged, 256 MB in 16 bits
LARGEST = SAMPLE // 4  # no embedding of a large vocabulary, which would be all of the sample


def merged_per_second(base: StrPath, adapter: StrPath, folder: Path) -> float:
    """Weights that are read, merged, rounded, written and hashed in a second.

    base, adapter: folders; folder: where the merged sample goes.
    """
    tensors = dict(_sampled(get_exporter().merge(base, adapter)))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    started = time.monotonic()
    # bfloat16 holds every weight that is finite; rounding to float16 takes up to 2 ns a weight more
    written = write(folder, "bfloat16", shapes, lambda name: _numbers(tensors[name]))
    return written.parameters / max(1e-6, time.monotonic() - started)


def _sampled(tensors: dict[str, MergedTensor]) -> Iterable[tuple[str, MergedTensor]]:
    taken = 0
    for name, tensor in tensors.items():
        size = int(np.prod(tensor.shape))
        if size > LARGEST or taken + size > SAMPLE:
            continue
        taken += size
        yield name, tensor


def _numbers(tensor: MergedTensor) -> MergedNumbers:
    value = tensor.load()
    return MergedNumbers(value.reshape(-1), Sample(value[:1], None))


def quantized_per_second(types: Iterable[str]) -> dict[str, float]:
    """Weights that one thread quantizes in a second, by GGUF type."""
    return {kind: weights_per_second(kind) for kind in types if kind != "f16"}
