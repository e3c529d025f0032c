"""The tables of docs/accuracy.md: each stands between `<!-- name -->` and `<!-- end -->`, written by a script."""

from __future__ import annotations

import datetime
import re
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "accuracy.md"
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "scripts")]


def put(name: str, table: str, *, machine: bool = False) -> None:
    """Put a table into the page, and print it; machine: with the day and the machine above it."""
    from run import machine as described

    head = f"Taken on {datetime.date.today()}: {described()}, MLX {version('mlx')}.\n\n" if machine else ""
    page = PAGE.read_text(encoding="utf-8")
    block = re.compile(rf"<!-- {name} -->\n.*?<!-- end -->", re.DOTALL)
    assert block.search(page), f"{PAGE} has no place for {name}"
    PAGE.write_text(block.sub(lambda _: f"<!-- {name} -->\n{head}{table}\n<!-- end -->", page), encoding="utf-8")
    print(table)
