"""GGUF files that are rounded with an importance matrix of the training rows, where that is measured to be better."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from snaketune import files
from snaketune.config.products import NEEDS_IMATRIX
from snaketune.contracts.package import CalibrationResult
from snaketune.engines import load_gguf
from snaketune.engines.interface import LoadOptions, LoglikelihoodRequest
from snaketune.engines.llama_cpp import importance
from snaketune.engines.llama_cpp.quantize import quantize
from snaketune.files import StrPath
from snaketune.package import imatrix_file
from snaketune.package.calibration_rows import COLLECTED_TOKENS
from snaketune.package.imatrix_file import ImportanceMatrix


def collect_imatrix(gguf: StrPath, rows: Sequence[Sequence[int]], target: StrPath, *, threads: int) -> int:
    """Write the importance matrix of the model in `gguf` (16 bits) on `rows` of token ids; returns the rows read.

    Where the rows hold more than COLLECTED_TOKENS tokens, every second, third, ... is read.
    """
    step = max(1, math.ceil(sum(map(len, rows)) / COLLECTED_TOKENS))
    read = [row for row in rows[::step] if row]
    found = importance.collect(gguf, read, threads=threads)
    imatrix_file.write(target, ImportanceMatrix(found, rows=len(read), longest=max(map(len, read))))
    return len(read)


def quantize_with_imatrix(
    gguf: StrPath,
    imatrix: StrPath,
    target: StrPath,
    type_name: str,
    *,
    valid: Sequence[LoglikelihoodRequest],
    threads: int,
) -> CalibrationResult:
    """Write `target`, the 16-bit `gguf` in a type, rounded with an importance matrix if that has the lower loss.

    The loss is that of the validation rows. A type that llama.cpp does not make without a matrix has nothing to be
    compared with, and is kept.
    """
    matrix = imatrix_file.read(imatrix)
    means = {name: found.mean_squares() for name, found in matrix.tensors.items()}
    with files.scratch(target) as folder:
        weighted, plain = folder / "imatrix.gguf", folder / "plain.gguf"
        quantize(gguf, weighted, type_name, threads=threads, imatrix=means)
        loss, plain_loss = _loss(weighted, valid, threads), None
        if type_name not in NEEDS_IMATRIX:
            quantize(gguf, plain, type_name, threads=threads)
            plain_loss = _loss(plain, valid, threads)
        is_kept = plain_loss is None or loss < plain_loss
        os.replace(weighted if is_kept else plain, Path(target))
    return CalibrationResult(
        method="imatrix",
        kept=is_kept,
        loss=round(loss, 6),
        plain_loss=None if plain_loss is None else round(plain_loss, 6),
        merged_loss=round(_loss(gguf, valid, threads), 6),
        rows=matrix.rows,
        validation_rows=len(valid),
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
