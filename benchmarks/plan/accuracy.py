"""The tables of docs/accuracy.md: each stands between `<!-- name -->` and `<!-- end -->`, written by a script."""

from __future__ import annotations

import datetime
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snaketune.contracts.report import ForecastRow

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "accuracy.md"
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "scripts")]


def outcomes(run: Path) -> list[ForecastRow]:
    """Forecast and outcome of each quantity that has both, as the page of a finished run shows them."""
    from snaketune.report import collect, forecast_accuracy

    rows = forecast_accuracy.forecast_accuracy(collect.collect(run), collect.measurements(run))
    return [row for row in rows if row.forecast is not None and row.outcome is not None]


def put(name: str, table: str, *, machine: bool = False, page: Path = PAGE) -> None:
    """Put a table into a page, and print it; machine: with the day and the machine above it."""
    from run import machine as described

    head = f"Taken on {datetime.date.today()}: {described()}, MLX {version('mlx')}.\n\n" if machine else ""
    text = page.read_text(encoding="utf-8")
    block = re.compile(rf"<!-- {name} -->\n.*?<!-- end -->", re.DOTALL)
    assert block.search(text), f"{page} has no place for {name}"
    page.write_text(block.sub(lambda _: f"<!-- {name} -->\n{head}{table}\n<!-- end -->", text), encoding="utf-8")
    print(table)
