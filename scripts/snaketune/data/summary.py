"""What `snakemake data` says at its end: five lines that tell whether these data can be trusted."""

from __future__ import annotations

from typing import Any

from snaketune.data.splits import NAMES


def lines(report: dict[str, Any], split: dict[str, Any], leaks: dict[str, Any]) -> list[str]:
    """The five lines, from report.json, split.json and leaks.json."""
    reasons = ", ".join(f"{count} {code}" for code, count in report["reasons"].items())
    rows = split["rows"]
    length = report["lengths"]["row"]
    pairs = leaks["pairs"]
    said = [*split["warnings"], *report["advice"]]
    remarks = f"{len(said)} remarks, the first" if len(said) > 1 else "a remark"
    return [
        f"rows     {report['read']} read = {report['kept']} kept + {report['rejected']} rejected + "
        f"{report['duplicates']} duplicates + {report['near_duplicates']} near duplicates",
        f"rejected {reasons or 'none'}",
        f"splits   {', '.join(f'{rows[name]} {name}' for name in NAMES)}; {split['clustered_rows']} rows in "
        f"{split['clusters']} clusters that stay together",
        f"lengths  {length['smallest']} to {length['largest']} characters, half of the rows below {length['median']}"
        if length
        else "lengths  no rows",
        f"leaks    {pairs or 'none'}{' pairs of rows on two sides' if pairs else ''}"
        + (f"; {remarks}: {said[0]}" if said else ""),
    ]
