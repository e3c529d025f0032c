"""Writes .venv/bin/snakemake in the place of the script that pip puts there.

It ends at a Ctrl-C without a traceback while Python starts and Snakemake is imported, which takes a second, and lets
scripts/snakemake_command put the words of the command line in order. Where pip writes its own script again, everything
works but these two; the next set-up repairs it.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

LONGEST_LINE = 250  # characters of the first line that Linux reads
SCRIPT = """#!{interpreter}
import os
import signal
import sys


def stop(*_):
    os.write(2, b"\\nsnaketune: stopped before any step ran\\n")
    os._exit(130)


signal.signal(signal.SIGINT, stop)  # until steps run; rules/snakemake_patches/hooks.py
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # a Ctrl-C since the start arrives now

if os.path.isdir("scripts/snakemake_command"):
    sys.path.insert(0, os.path.abspath("scripts"))
    from snakemake_command import main
else:
    from snakemake.cli import main
sys.exit(main())
"""


def script(python: Path) -> str:
    """Return the text of the script for an environment with this interpreter."""
    line = f"{_env_that_blocks()} -S --block-signal=INT {python}"
    fits = _env_that_blocks() and " " not in str(python) and len(line) < LONGEST_LINE
    return SCRIPT.format(interpreter=line if fits else python)


@functools.cache
def _env_that_blocks() -> str | None:
    """Return the `env` of a system where it can hold a signal back while a program starts; it cannot on macOS."""
    env = shutil.which("env")
    if env is None:
        return None
    tried = subprocess.run([env, "--block-signal=INT", "true"], capture_output=True, check=False)
    return env if tried.returncode == 0 else None


def write(environment: Path) -> None:
    """Write the script of one environment."""
    target = environment / "bin" / "snakemake"
    target.write_text(script(environment / "bin" / "python"), encoding="utf-8")
    target.chmod(0o755)


def is_written(environment: Path) -> bool:
    """Tell whether the script is ours, as it is today."""
    target = environment / "bin" / "snakemake"
    return target.is_file() and target.read_text(encoding="utf-8") == script(environment / "bin" / "python")
