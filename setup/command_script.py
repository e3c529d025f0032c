"""Writes .venv/bin/snakemake in the place of the script that pip puts there.

It ends at a Ctrl-C without a traceback while Snakemake is being imported, which takes a second, and lets
scripts/snakemake_command put the words of the command line in order. Where pip writes its own script again, everything
works but these two; the next set-up repairs it.
"""

from __future__ import annotations

from pathlib import Path

SCRIPT = """#!{python}
import os
import signal
import sys


def stop(*_):
    os.write(2, b"\\nsnaketune: stopped before any step ran\\n")
    os._exit(130)


signal.signal(signal.SIGINT, stop)  # until steps run; rules/snakemake_patches/hooks.py

if os.path.isdir("scripts/snakemake_command"):
    sys.path.insert(0, os.path.abspath("scripts"))
    from snakemake_command import main
else:
    from snakemake.cli import main
sys.exit(main())
"""


def script(python: Path) -> str:
    """Return the text of the script for an environment with this interpreter."""
    return SCRIPT.format(python=python)


def write(environment: Path) -> None:
    """Write the script of one environment."""
    target = environment / "bin" / "snakemake"
    target.write_text(script(environment / "bin" / "python"), encoding="utf-8")
    target.chmod(0o755)


def is_written(environment: Path) -> bool:
    """Tell whether the script is ours, as it is today."""
    target = environment / "bin" / "snakemake"
    return target.is_file() and target.read_text(encoding="utf-8") == script(environment / "bin" / "python")
