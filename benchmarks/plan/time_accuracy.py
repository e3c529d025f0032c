"""The time of a whole run as its pilot forecast it and as it was; writes the table of docs/accuracy.md.

`python benchmarks/plan/time_accuracy.py` runs the demo and the stories configuration, each in a copy of the project:
five minutes on two quiet cores. The stories are left out where their model and rows are not beside the checkout.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import accuracy

sys.path.insert(0, str(accuracy.ROOT / "tests"))

from project_copy import SHARED, Project
from snaketune.contracts.report import ForecastRow

STORIES = accuracy.ROOT / "tests/configs/stories_wikisql.yaml"


def configurations() -> Iterator[tuple[str, Path | None]]:
    """Name and configuration file of each run; the demo's is the project's own."""
    yield "demo", None
    if (SHARED / "data/wikisql").is_dir():
        yield "stories", STORIES


def outcomes(configuration: Path | None) -> list[ForecastRow]:
    """Forecast and outcome of each stage's time."""
    with tempfile.TemporaryDirectory() as scratch:
        project = Project.copied(Path(scratch) / "project", configuration.name if configuration else None)
        (Path(scratch) / "shared").symlink_to(SHARED)
        if configuration:
            project.write(configuration.name, configuration.read_text(encoding="utf-8"))
        done = project.snakemake()
        if done.returncode:
            raise SystemExit(done.stdout[-4000:])
        run = next(project.folder.glob("results/*/report/report.json")).parents[1]
        return [row for row in accuracy.outcomes(run) if row.unit == "seconds"]


def table() -> str:
    lines = ["| run | stage | forecast, s | range, s | outcome, s | forecast / outcome |", "|---|---|---|---|---|---|"]
    for name, configuration in configurations():
        for one in outcomes(configuration):
            assert one.forecast is not None
            assert one.outcome
            lines.append(
                f"| {name} | {one.quantity} | {one.forecast:.1f} | {one.low:.1f} to {one.high:.1f} "
                f"| {one.outcome:.1f} | {one.forecast / one.outcome:.2f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    accuracy.put("time_accuracy", table(), machine=True)
