"""Memory, disk and time of a whole run on models of real size, as forecast and as they were; for docs/accuracy.md.

`python benchmarks/plan/size_accuracy.py llama-3.2-1b gemma-2-2b` runs the chain of tests/sized_chain.py on each shape
(a quarter of an hour for 1.2 billion weights on two quiet cores, in 13 GB of disk and 9 of memory; twice that for 2.6).
What came out is kept in measured/<shape>.json, and the table is made of all that is kept. `--folder` keeps the run, and
goes on with it where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import accuracy

sys.path.insert(0, str(accuracy.ROOT / "tests"))

import sized_chain
from project_copy import Project
from real_shapes import SHAPES
from snaketune.files import read_json

KEPT = Path(__file__).resolve().parent / "measured"
UNITS = {"seconds": ("s", 1.0), "bytes": ("GB", 1e9)}
HEAD = "| model | what | forecast | outcome | unit | forecast / outcome |\n|---|---|---|---|---|---|"


def measure(shape: str, folder: Path) -> None:
    """Run the chain on a shape in a folder, and keep what was forecast and what came of it."""
    begun = (folder / "size.yaml").is_file()
    project = Project(folder, "size.yaml") if begun else sized_chain.project(folder, shape)
    with sized_chain.watching_disk(folder / "results") as sizes:
        done = project.snakemake("report", timeout=6 * 3600)
    if done.returncode:
        raise SystemExit(done.stdout[-4000:])
    run = folder / "results" / "size"
    found = [
        {"what": one.quantity, "unit": one.unit, "forecast": one.forecast, "outcome": one.outcome}
        for one in accuracy.outcomes(run)
        if one.unit in UNITS
    ]
    if not begun:  # else the peak may have been before
        planned = read_json(run / "plan.json")["disk"]["total"]
        found.append({"what": "Disk at the peak", "unit": "bytes", "forecast": planned, "outcome": max(sizes)})
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{shape}.json").write_text(f"{json.dumps(found, indent=1)}\n", encoding="utf-8")


def table() -> str:
    """All that was measured, in the order of the shapes."""
    lines = [HEAD]
    for shape in SHAPES:
        path = KEPT / f"{shape}.json"
        for one in json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []:
            unit, size = UNITS[one["unit"]]
            forecast, outcome = one["forecast"] / size, one["outcome"] / size
            share = forecast / outcome if outcome else 0.0
            lines.append(f"| {shape} | {one['what']} | {forecast:.2f} | {outcome:.2f} | {unit} | {share:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", choices=[*SHAPES, []], default=[])
    parser.add_argument("--folder", type=Path, help="where the runs lie (default: a temporary folder)")
    given = parser.parse_args()
    for shape in given.shapes:
        with tempfile.TemporaryDirectory() as scratch:
            measure(shape, (given.folder or Path(scratch)) / shape)
    accuracy.put("size_accuracy", table(), machine=True)


if __name__ == "__main__":
    main()
