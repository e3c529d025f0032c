"""Every benchmark in turn, into docs/benchmarks.md: `make bench` (an hour on two cores; leave the machine alone).

`python benchmarks/run.py --rounds 1` takes one round of each instead of three, `--only evaluate` that section alone.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
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
    scripts = {path.parent.name: path for path in sorted(HERE.glob("*/run.py"))}
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", default="3")
    parser.add_argument("--only", choices=scripts, help="measure this section and leave the others as they are")
    given = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    for name in [given.only] if given.only else scripts:
        command = [sys.executable, str(scripts[name]), given.rounds]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        taken = f"Taken on {datetime.date.today()}, {given.rounds} rounds: {machine()}."
        head, _, body = said.strip().partition("\n")
        page = with_section(page, head, f"{head}\n\n{taken}\n{body.rstrip()}\n")
    PAGE.write_text(page, encoding="utf-8")


def with_section(page: str, head: str, section: str) -> str:
    """The page with a section in the place of the one of that heading, or at its end."""
    old = re.search(rf"^{re.escape(head)}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if not old:
        return f"{page.rstrip()}\n\n{section}"
    return f"{page[: old.start()]}{section}\n{page[old.end() :]}".rstrip() + "\n"


if __name__ == "__main__":
    main()
