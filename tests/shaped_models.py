"""Models of real shape with random weights: python tests/shaped_models.py NAME FOLDER [BITS] [--layers N].

Weights are drawn and written piece by piece, so that a model of 16 GB is made in 1 GB of memory; the same name gives
the same bytes. BITS 4 writes MLX's own quantized format, as mlx-community's models have it. The tokenizer is one of the
family's kind, filled up to its full vocabulary.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import full_vocabulary
import numpy as np
from real_shapes import SHAPES, Shape, tensors

SHARD_BYTES = 4 << 30
PIECE = 1 << 24  # numbers drawn at once
GROUP_SIZE = 64
SPREAD = 0.02  # standard deviation of the weights, as transformers draws them
Part = tuple[str, str, tuple[int, ...]]  # name, safetensors type, shape
BYTES = {"BF16": 2, "U32": 4}


def make(shape: Shape, folder: Path, *, bits: int | None = None, shard_bytes: int = SHARD_BYTES) -> Path:
    """Write a model of this shape into `folder`; bits: quantized to so many."""
    folder.mkdir(parents=True, exist_ok=True)
    config = shape.config | full_vocabulary.write(folder, shape.family, shape.config["vocab_size"])
    if bits:
        quantization = {"group_size": GROUP_SIZE, "bits": bits, "mode": "affine"}
        config |= {"quantization": quantization, "quantization_config": quantization}
    listed = [list(_parts(tensor, size, bits)) for tensor, size in tensors(config)]
    shards = list(_shards(listed, shard_bytes))
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / file, shard, config["model_type"], bits)
        index |= {part[0]: file for parts in shard for part in parts}
    if len(shards) > 1:
        total = sum(_size(part) for parts in listed for part in parts)
        stated = {"metadata": {"total_size": total}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(stated), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return folder


def _parts(name: str, shape: tuple[int, ...], bits: int | None) -> Iterator[Part]:
    """What a file holds of one tensor: itself, or packed numbers with a scale and a bias for each group."""
    if not bits or len(shape) == 1:
        yield name, "BF16", shape
        return
    outputs, inputs = shape
    stem = name.removesuffix(".weight")
    yield name, "U32", (outputs, inputs * bits // 32)
    yield f"{stem}.scales", "BF16", (outputs, inputs // GROUP_SIZE)
    yield f"{stem}.biases", "BF16", (outputs, inputs // GROUP_SIZE)


def _size(part: Part) -> int:
    return math.prod(part[2]) * BYTES[part[1]]


def _shards(listed: list[list[Part]], most: int) -> Iterator[list[list[Part]]]:
    shard: list[list[Part]] = []
    held = 0
    for parts in listed:
        size = sum(map(_size, parts))
        if shard and held + size > most:
            yield shard
            shard, held = [], 0
        shard.append(parts)
        held += size
    yield shard


def _write_shard(path: Path, shard: list[list[Part]], kind: str, bits: int | None) -> None:
    """Write a safetensors file: the header with all offsets first, then each tensor piece by piece at its place."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for parts in shard:
        for name, dtype, shape in parts:
            end = offset + _size((name, dtype, shape))
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
            offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        begin = out.tell()
        for parts in shard:
            starts = [begin + header[name]["data_offsets"][0] for name, _, _ in parts]
            _write_tensor(out, parts, starts, kind, bits)


def _write_tensor(out: IO[bytes], parts: list[Part], starts: list[int], kind: str, bits: int | None) -> None:
    name, _, shape = parts[0]
    if len(parts) == 1 and len(shape) == 1:
        out.seek(starts[0])
        out.write(_vector(name, shape[0], kind).tobytes())
        return
    outputs = shape[0]
    inputs = shape[1] * 32 // bits if bits else shape[1]
    source = np.random.Generator(np.random.SFC64([*name.encode()]))
    rows = max(1, PIECE // inputs)
    for first in range(0, outputs, rows):
        count = min(rows, outputs - first)
        drawn = source.standard_normal((count, inputs), dtype=np.float32) * np.float32(SPREAD)
        for number, piece in enumerate(_quantized(drawn, bits) if bits else [bfloat16(drawn)]):
            out.seek(starts[number] + first * piece.nbytes // count)
            out.write(piece.tobytes())


def _vector(name: str, size: int, kind: str) -> np.ndarray:
    """A bias is 0; a norm multiplies by 1, in Gemma by 1 + weight."""
    plain = 0.0 if name.endswith(".bias") or kind.startswith("gemma") else 1.0
    return bfloat16(np.full(size, plain, np.float32))


def bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 rounded to bfloat16 (ties to even), as the 16 bits of each."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def _quantized(values: np.ndarray, bits: int) -> list[np.ndarray]:
    """The packed numbers, scales and biases of MLX's affine quantization."""
    import mlx.core as mx

    packed, scales, biases = mx.quantize(mx.array(values).astype(mx.bfloat16), group_size=GROUP_SIZE, bits=bits)
    return [np.array(packed), *(np.array(one.view(mx.uint16)) for one in (scales, biases))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("bits", nargs="?", type=int, choices=(4, 8))
    parser.add_argument("--layers", type=int)
    given = parser.parse_args()
    shape = SHAPES[given.name]
    make(shape.with_layers(given.layers) if given.layers else shape, given.folder, bits=given.bits)
