"""Every benchmark in turn, into docs/benchmarks.md: `make bench` (an hour on two cores; leave the machine alone).

`python benchmarks/run.py 1` takes one round of each instead of three.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"


def machine() -> str:
    """The processor, where the system names it, cores and memory."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()}, Python {platform.python_version()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def main() -> None:
    sections = [
        subprocess.run([sys.executable, script, *sys.argv[1:]], check=True, stdout=subprocess.PIPE, text=True).stdout
        for script in sorted(HERE.glob("*/run.py"))
    ]
    rounds = f" ({sys.argv[1]} round of each)" if sys.argv[1:] else ""
    head = f"# Benchmarks\n\nMeasured by `make bench`{rounds} on {datetime.date.today()}: {machine()}.\n"
    PAGE.write_text("\n".join([head, *sections]), encoding="utf-8")


if __name__ == "__main__":
    main()
