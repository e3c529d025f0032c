"""GGUF files that are rounded with an importance matrix of the training rows, where that is measured to be better.

The file of a matrix has llama.cpp's own format, which `llama-quantize --imatrix` reads: a GGUF with two float32 tensors
for each tensor of the model: `<name>.in_sum2`, the sums of the squares of its inputs, and `<name>.counts`, how many
inputs each of its matrices had (tools/imatrix/imatrix.cpp in llama.cpp).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from snaketune import files
from snaketune.config.products import NEEDS_IMATRIX
from snaketune.contracts.package import CalibrationResult, MergedLoss
from snaketune.engines import load_gguf
from snaketune.engines.interface import LoadOptions, LoglikelihoodRequest
from snaketune.engines.llama_cpp import importance
from snaketune.engines.llama_cpp.importance import Importance
from snaketune.engines.llama_cpp.quantize import quantize
from snaketune.errors import PackageError
from snaketune.files import StrPath, replacing
from snaketune.package import gguf_conversion
from snaketune.package.calibration_rows import COLLECTED_TOKENS
from snaketune.package.gguf_conversion import ALIGNMENT, ARRAY, STRING

VERSION, UINT32, FLOAT32 = 3, 4, 0
SUMS, COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class ImportanceMatrix:
    """The importance by the tensors' names; rows: how many it was collected on, of at most `longest` tokens."""

    tensors: Mapping[str, Importance]
    rows: int
    longest: int


@dataclass(frozen=True)
class Judge:
    """Validation rows to judge a type by, and the loss that the 16-bit model has on them."""

    rows: Sequence[LoglikelihoodRequest]
    merged_loss: float


def collect_imatrix(gguf: StrPath, rows: Sequence[Sequence[int]], target: StrPath, *, threads: int) -> int:
    """Write the importance matrix of the model in `gguf` (16 bits) on `rows` of token ids; returns the rows read.

    Where the rows hold more than COLLECTED_TOKENS tokens, every second, third, ... is read.
    """
    step = max(1, math.ceil(sum(map(len, rows)) / COLLECTED_TOKENS))
    read = [row for row in rows[::step] if row]
    found = importance.collect(gguf, read, threads=threads)
    write_imatrix(target, ImportanceMatrix(found, rows=len(read), longest=max(map(len, read))))
    return len(read)


def merged_loss(gguf: StrPath, valid: Sequence[LoglikelihoodRequest], *, threads: int) -> MergedLoss:
    """The loss of the model in `gguf` (16 bits) on validation rows, with which each type's is compared."""
    return MergedLoss(loss=round(_loss(gguf, valid, threads), 6), validation_rows=len(valid))


def quantize_with_imatrix(
    gguf: StrPath,
    imatrix: StrPath,
    target: StrPath,
    type_name: str,
    *,
    judge: Judge,
    threads: int,
) -> CalibrationResult:
    """Write `target`, the 16-bit `gguf` in a type, rounded with an importance matrix if that has the lower loss.

    The loss is that of the validation rows. A type that llama.cpp does not make without a matrix has nothing to be
    compared with, and is kept.
    """
    matrix = read_imatrix(imatrix)
    means = {name: found.mean_squares() for name, found in matrix.tensors.items()}
    with files.scratch(target) as folder:
        weighted, plain = folder / "imatrix.gguf", folder / "plain.gguf"
        quantize(gguf, weighted, type_name, threads=threads, imatrix=means)
        loss, plain_loss = _loss(weighted, judge.rows, threads), None
        if type_name not in NEEDS_IMATRIX:
            quantize(gguf, plain, type_name, threads=threads)
            plain_loss = _loss(plain, judge.rows, threads)
        is_kept = plain_loss is None or loss < plain_loss
        os.replace(weighted if is_kept else plain, Path(target))
    return CalibrationResult(
        method="imatrix",
        kept=is_kept,
        loss=round(loss, 6),
        plain_loss=None if plain_loss is None else round(plain_loss, 6),
        merged_loss=judge.merged_loss,
        rows=matrix.rows,
        validation_rows=len(judge.rows),
    )


def _loss(gguf: StrPath, rows: Sequence[LoglikelihoodRequest], threads: int) -> float:
    """Nats a target token."""
    longest = max((len(row.ids) for row in rows), default=1)
    model = load_gguf(gguf, LoadOptions(context_length=longest, threads=threads, exact=True))
    try:
        targets = sum(sum(row.loss_mask[1:]) for row in rows)
        return -sum(model.loglikelihood(rows)) / max(1, targets)
    finally:
        model.close()


def write_imatrix(path: StrPath, matrix: ImportanceMatrix) -> None:
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


def read_imatrix(path: StrPath) -> ImportanceMatrix:
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
