"""Measures how costs grow: python benchmarks/scale/run.py [ROUNDS] prints a section of Markdown.

Experiments: `snakemake -n` with grids of 100 and 1,000 points, beside one experiment, in CPU-seconds, which other work
on the machine changes less than the clock. Rows: the data stage and the token store at one and two million made-up rows
(once; 7 GB of disk while it runs).
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GRIDS = (1, 100, 1000)
ROWS = (1_000_000, 2_000_000)
STEPS = {
    "validate": "validate_rows: verdicts, exact and near duplicates, clusters",
    "split": "split_rows",
    "write_store": "writing a token store",
    "open_store": "opening it as a training does",
}
PARTS = "Snakefile config.yaml rules scripts schemas envs profiles presets report data".split()
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


def planned(project: Path, points: int) -> tuple[float, float]:
    """CPU-seconds and seconds of `snakemake -n` with a grid of so many points."""
    rates = [1e-6 * (number + 1) for number in range(points)]
    settings = {"run": f"grid-{points}", "model": {"base": "demo"}, "grid": {"learning_rate": rates}}
    settings["data"] = {"sources": [{"path": "data/sample.jsonl"}]}
    (project / "grid.yaml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = ["snakemake", "-n", "--quiet", "all", "--configfile", "grid.yaml"]
    subprocess.run(command, cwd=project, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - began


def experiments(rounds: int) -> list[str]:
    """The table of planning, and what it says about proportion."""
    taken: dict[int, list[tuple[float, float]]] = {points: [] for points in GRIDS}
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        project.mkdir()
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, project / part)
        planned(project, 1)  # parsing remembers digests; they are not what is measured
        for _ in range(rounds):
            for points in GRIDS:
                taken[points].append(planned(project, points))
    seconds = {points: [cpu for cpu, _ in found] for points, found in taken.items()}
    clock = {points: statistics.median(wall for _, wall in found) for points, found in taken.items()}
    middle = {points: statistics.median(found) for points, found in seconds.items()}
    one, some, many = (middle[points] for points in GRIDS)
    each = [(some - one) / (GRIDS[1] - 1), (many - one) / (GRIDS[2] - 1)]
    rows = [
        f"| {points:,} | {middle[points]:.2f} | {min(found):.2f} to {max(found):.2f} | {clock[points]:.1f} s |"
        for points, found in seconds.items()
    ]
    return [
        f"`snakemake -n` from nothing, medians of {rounds} round{'s' if rounds > 1 else ''} (wanted: under 20 s):",
        "",
        "| experiments | CPU-seconds | spread | by the clock |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Over the start with one experiment, each of 100 costs {1000 * each[0]:.1f} ms and each of 1,000 "
        f"{1000 * each[1]:.1f} ms: {100 * (each[1] / each[0] - 1):+.0f} % against proportional (wanted: within 15 %).",
    ]


def measured(step: str, rows: int, folder: Path) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "one_step.py"), step, str(rows), str(folder)]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rows_by_step() -> list[str]:
    """The table of rows, and the growth of memory with them."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for rows in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            measured("generate", rows, Path(folder))
            for step in STEPS:
                found[step, rows] = measured(step, rows, Path(folder))
    lines = [
        "| | " + " | ".join(f"{rows:,} rows" for rows in ROWS) + " | memory of one more row |",
        "|---|---|---|---|",
    ]
    for step, title in STEPS.items():
        some, many = (found[step, rows] for rows in ROWS)
        cells = [f"{one['cpu_seconds']:.0f} CPU-s, {one['peak_bytes'] / 2**20:,.0f} MiB" for one in (some, many)]
        growth = (many["peak_bytes"] - some["peak_bytes"]) / (ROWS[1] - ROWS[0])
        lines.append(f"| {title} | {cells[0]} | {cells[1]} | {growth:,.0f} bytes |")
    return lines


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(
        "\n".join(
            [
                "## Scale",
                "",
                *experiments(3 * rounds),  # short ones: what 99 experiments add is hardly more than the spread
                "",
                "Rows, one core, peak memory of the process:",
                "",
                *rows_by_step(),
            ]
        )
    )


if __name__ == "__main__":
    main()
