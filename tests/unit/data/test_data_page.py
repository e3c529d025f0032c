"""docs/data.md tells of every reason there is, and of no other."""

import re
from pathlib import Path

from snaketune.data.readers import raw_row
from snaketune.tokens import tokenize

PAGE = Path(__file__).resolve().parents[3] / "docs/data.md"


def test_every_reason_has_its_row_in_the_page_and_every_row_a_reason() -> None:
    told = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(told) == sorted([*raw_row.REJECTION_REASONS, *tokenize.FILTER_REASONS])
