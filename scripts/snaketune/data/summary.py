"""What `snakemake data` prints at its end: five lines that show whether these data can be trusted, and all remarks."""

from __future__ import annotations

from typing import Any

from snaketune.data.splits import NAMES
from snaketune.files import StrPath


def lines(report: dict[str, Any], split: dict[str, Any], leaks: dict[str, Any], rejected: StrPath) -> list[str]:
    """The lines, from report.json, split.json and leaks.json. rejected: the file that lists the rejected rows."""
    reasons = ", ".join(f"{count} {code}" for code, count in report["reasons"].items())
    rows = split["rows"]
    length = report["lengths"]["row"]
    leaking = ", ".join(f"{n} of {leaks['rows'][name]} {name}" for name, n in leaks["affected"].items() if n)
    return [
        f"rows     {report['read']} read = {report['kept']} kept + {report['rejected']} rejected + "
        f"{report['duplicates']} duplicates + {report['near_duplicates']} near duplicates",
        f"rejected {f'{reasons}; see {rejected}' if reasons else 'none'}",
        f"splits   {', '.join(f'{rows[name]} {name}' for name in NAMES)}; {split['clustered_rows']} rows in "
        f"{split['clusters']} clusters that stay together",
        f"lengths  {length['smallest']} to {length['largest']} characters, half of the rows below {length['median']}"
        if length
        else "lengths  no rows",
        f"leaks    {f'{leaking} rows belong together with rows of another split' if leaking else 'none'}",
        *(f"remark   {sentence}" for sentence in (*split["warnings"], *report["advice"])),
    ]
