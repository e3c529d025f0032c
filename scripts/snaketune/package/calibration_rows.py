"""The rows that a quantization is calibrated on and judged by: parts of the training and the validation split.

Test rows have no part in it.
"""

from __future__ import annotations

from collections.abc import Iterable

from snaketune.contracts.data import DataRecord
from snaketune.engines.interface import CalibrationRows, LoglikelihoodRequest
from snaketune.files import StrPath
from snaketune.model.manifest import read_manifest
from snaketune.tokens.chat_template import Renderer, renderer_of

CALIBRATION_ROWS, VALIDATION_ROWS = 512, 64
MAX_TOKENS = 512  # of a row


def calibration_rows(
    model: StrPath, train: Iterable[DataRecord], valid: Iterable[DataRecord], *, chat_template: str | None, seed: int
) -> CalibrationRows:
    """Training rows to calibrate on and validation rows to judge by, spread evenly over their splits."""
    return CalibrationRows(
        training_ids(model, train, chat_template), validation_requests(model, valid, chat_template), seed
    )


def training_ids(model: StrPath, train: Iterable[DataRecord], chat_template: str | None) -> list[list[int]]:
    """The token ids of training rows, as they are trained. model: the manifest of the base."""
    renderer = _renderer(model, chat_template)
    return [renderer.record(row).ids[:MAX_TOKENS] for row in _spread(list(train), CALIBRATION_ROWS)]


def validation_requests(
    model: StrPath, valid: Iterable[DataRecord], chat_template: str | None
) -> list[LoglikelihoodRequest]:
    """Validation rows to score. model: the manifest of the base."""
    renderer = _renderer(model, chat_template)
    rendered = [renderer.record(row) for row in _spread(list(valid), VALIDATION_ROWS)]
    judged = [LoglikelihoodRequest(row.ids[:MAX_TOKENS], row.loss_mask[:MAX_TOKENS]) for row in rendered]
    return [row for row in judged if any(row.loss_mask[1:])]


def _renderer(model: StrPath, chat_template: str | None) -> Renderer:
    return renderer_of(read_manifest(model), chat_template)


def _spread(rows: list[DataRecord], count: int) -> list[DataRecord]:
    return [rows[i * len(rows) // count] for i in range(count)] if len(rows) > count else rows
