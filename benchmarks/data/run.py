"""Measures the data stage beside plain pandas: python benchmarks/data/run.py [ROUNDS] prints a section of Markdown.

Both sides run in processes of their own on one core, in turn, on the same generated files; the unit is CPU-seconds,
which other work on the machine changes less than the clock. The middle of the rounds is shown, with the extremes.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import generate

HERE = Path(__file__).parent
SMALL, LARGE = 50_000, 500_000
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


def measured(side: str, source: Path, folder: Path) -> dict[str, Any]:
    """One run of one side."""
    command = [sys.executable, str(HERE / "one_side.py"), side, str(source), str(folder)]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def compared(rounds: int) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """All runs by side and rows; sides and sizes alternate within a round."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as work:
        files = {rows: Path(work) / f"{rows}.jsonl" for rows in (SMALL, LARGE)}
        for rows, file in files.items():
            generate.write(rows, file)
        for _ in range(rounds):
            for rows, file in files.items():
                for side in ("snaketune", "pandas"):
                    found.setdefault((side, rows), []).append(measured(side, file, Path(work) / "out"))
    return found


def section(found: dict[tuple[str, int], list[dict[str, Any]]]) -> str:
    """The figures as Markdown."""
    names = {
        "snaketune": "snaketune: verdicts, exact and near duplicates, clusters, split",
        "pandas": "pandas: exact duplicates and split only",
    }
    lines = [
        "## Data",
        "",
        f"{LARGE:,} made-up instruction rows (`benchmarks/data/generate.py`), one core, {machine()}.",
        "",
        "| | rows | CPU-seconds | peak memory | rows kept |",
        "|---|---|---|---|---|",
    ]
    for (side, rows), runs in sorted(found.items()):
        seconds = [run["cpu_seconds"] for run in runs]
        spread = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        peak = max(run["peak_bytes"] for run in runs) / 2**20
        lines.append(f"| {names[side]} | {rows:,} | {spread} | {peak:,.0f} MiB | {runs[0]['kept']:,} |")
    small, large = (statistics.median(run["cpu_seconds"] for run in found["snaketune", n]) for n in (SMALL, LARGE))
    lines += ["", f"Ten times the rows took {large / small:.2f} times as long."]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """The processor and the system."""
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return f"{models[0] if models else platform.processor()}, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    print(section(compared(int(sys.argv[1]) if len(sys.argv) > 1 else 3)))
