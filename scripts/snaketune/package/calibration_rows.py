"""The rows that a quantization is calibrated on and judged by: parts of the training and the validation split.

They are rows that were trained on or measured while training: what `tokenize_rows` leaves out is left out here too.
Test rows have no part in it.
"""

from __future__ import annotations

from collections.abc import Iterable

from snaketune.contracts.data import DataRecord
from snaketune.engines.interface import CalibrationRows, LoglikelihoodRequest
from snaketune.errors import DataError
from snaketune.files import StrPath
from snaketune.model.manifest import read_manifest
from snaketune.tokens.chat_template import Rendered, renderer_of
from snaketune.tokens.row_samples import cut_around_answer, spread
from snaketune.tokens.tokenize import FilterConfig, token_filter_of

CALIBRATION_ROWS, VALIDATION_ROWS = 512, 64
MAX_TOKENS = 512  # of a row
COLLECTED_TOKENS = 32_768  # of all rows that an importance matrix reads; its mean squares settle long before


class RowReader:
    """Renders the rows of a run as its tokens were made.

    model: the manifest of the base; chat_template: as configured; filtering: which rows were trained on.
    """

    def __init__(self, model: StrPath, chat_template: str | None, filtering: FilterConfig) -> None:
        self.renderer = renderer_of(read_manifest(model), chat_template)
        self.token_filter = token_filter_of(self.renderer, filtering)

    def calibration_rows(
        self, train: Iterable[DataRecord], valid: Iterable[DataRecord], *, seed: int
    ) -> CalibrationRows:
        """Training rows to calibrate on and validation rows to judge by, spread evenly over their splits."""
        return CalibrationRows(self.training_ids(train), self.validation_requests(valid), seed)

    def training_ids(self, train: Iterable[DataRecord]) -> list[list[int]]:
        """The token ids of training rows, as they are trained."""
        return [row.ids for row in self._rows(train, CALIBRATION_ROWS, "training")]

    def validation_requests(self, valid: Iterable[DataRecord]) -> list[LoglikelihoodRequest]:
        """Validation rows to score, each with a target."""
        rows = self._rows(valid, VALIDATION_ROWS, "validation")
        return [LoglikelihoodRequest(row.ids, row.loss_mask) for row in rows]

    def _rows(self, rows: Iterable[DataRecord], count: int, split: str) -> list[Rendered]:
        found = spread(list(rows), count, self._trained)
        if not found:
            raise DataError(
                f"no {split} row is left after tokenizing",
                where="data.split",
                why="A type of few bits is rounded for the training rows and judged on the validation rows",
                fix="See data/tokens/*/tokens.json for the reasons, or ask for types that need no such rows",
            )
        return found

    def _trained(self, record: DataRecord) -> Rendered | None:
        """The tokens of a row that may be read; None where `tokenize_rows` drops it."""
        rendered = self.token_filter.filter(record).rendered
        if rendered is None:
            return None
        cut = cut_around_answer(rendered, MAX_TOKENS, self.renderer.virtual_ids)
        return cut if any(cut.loss_mask[1:]) else None
