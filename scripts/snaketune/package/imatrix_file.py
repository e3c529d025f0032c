"""The file of an importance matrix, in llama.cpp's own format: `llama-quantize --imatrix` reads it.

A GGUF with two float32 tensors for each tensor of the model: `<name>.in_sum2`, the sums of the squares of its inputs,
and `<name>.counts`, how many inputs each of its matrices had (tools/imatrix/imatrix.cpp in llama.cpp).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

import numpy as np

from snaketune.engines.llama_cpp.importance import Importance
from snaketune.errors import PackageError
from snaketune.files import StrPath, replacing
from snaketune.package import gguf_conversion
from snaketune.package.gguf_conversion import ALIGNMENT, ARRAY, STRING

VERSION, UINT32, FLOAT32 = 3, 4, 0
SUMS, COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class ImportanceMatrix:
    """The importance by the tensors' names; rows: how many it was collected on, of at most `longest` tokens."""

    tensors: Mapping[str, Importance]
    rows: int
    longest: int


def write(path: StrPath, matrix: ImportanceMatrix) -> None:
    """Write an importance matrix; llama.cpp calls a row a chunk."""
    tensors: dict[str, np.ndarray] = {}
    for name, found in sorted(matrix.tensors.items()):
        tensors[name + SUMS] = found.squares.astype("<f4")
        tensors[name + COUNTS] = found.counts.astype("<f4")[:, None]
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", VERSION, len(tensors), 4))
        file.write(_text("general.type") + struct.pack("<I", STRING) + _text("imatrix"))
        file.write(_text("imatrix.datasets") + struct.pack("<IIQ", ARRAY, STRING, 1) + _text("training rows"))
        file.write(_text("imatrix.chunk_count") + struct.pack("<II", UINT32, matrix.rows))
        file.write(_text("imatrix.chunk_size") + struct.pack("<II", UINT32, matrix.longest))
        offset = 0
        for name, values in tensors.items():
            shape = values.shape[::-1]
            file.write(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, FLOAT32, offset))
            offset += -(-values.nbytes // ALIGNMENT) * ALIGNMENT
        for values in tensors.values():
            _pad(file)
            file.write(values.tobytes())
        _pad(file)


def read(path: StrPath) -> ImportanceMatrix:
    """Read an importance matrix; raises PackageError for a file that is none."""
    header = gguf_conversion.read(path)
    if header.metadata.get("general.type") != "imatrix":
        raise PackageError(
            "this file is no importance matrix", where=str(path), fix="Delete it and run snakemake again"
        )
    values = {
        tensor.name: np.fromfile(
            path, "<f4", int(np.prod(tensor.shape)), offset=header.data_offset + tensor.offset
        ).reshape(tensor.shape[::-1])
        for tensor in header.tensors
    }
    tensors = {
        name.removesuffix(SUMS): Importance(sums, values[name.removesuffix(SUMS) + COUNTS].ravel())
        for name, sums in values.items()
        if name.endswith(SUMS)
    }
    return ImportanceMatrix(tensors, header.metadata["imatrix.chunk_count"], header.metadata["imatrix.chunk_size"])


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _pad(file: IO[bytes]) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))
