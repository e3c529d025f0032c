"""`snakemake` as a person starts it: in a terminal of its own, which can be typed into and closed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from project_copy import Project

PATIENCE = 600.0  # seconds for whatever must happen
SPIN_SECONDS = 0.5


def processor_share() -> float:
    """The share of a processor that a process gets just now: 1 on a quiet machine, less where more are at work."""
    began, used = time.monotonic(), time.process_time()
    while (passed := time.monotonic() - began) < SPIN_SECONDS:
        pass
    return min(1.0, (time.process_time() - used) / passed)


class Terminal:
    """`snakemake` in a terminal of its own, as its session's leader; everything that it and its jobs say is kept."""

    def __init__(self, project: Project, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        self.said = b""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.process = subprocess.Popen(
            ["snakemake", *arguments, *(["--configfile", project.configuration] if project.configuration else [])],
            cwd=project.folder,
            env=os.environ | {"PATH": path, "PYTHONPATH": str(project.folder / "scripts"), "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY),
        )
        os.close(theirs)
        self.closing = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        """Keep what is shown until the terminal is closed; by this thread: one being read stays open."""
        with contextlib.suppress(OSError):  # nobody has it open any more
            while not self.closing.is_set():
                if select.select([self.ours], [], [], 0.05)[0]:
                    self.said += os.read(self.ours, 1 << 16).replace(b"\r\n", b"\n")
        os.close(self.ours)

    @property
    def text(self) -> str:
        return self.said.decode(errors="replace")

    def jobs(self) -> list[psutil.Process]:
        """The processes of the scripts that run now."""
        with contextlib.suppress(psutil.Error):
            below = psutil.Process(self.process.pid).children(recursive=True)
            return [one for one in below if ".snakemake/scripts" in " ".join(_command(one))]
        return []

    def ended(self, patience: float = PATIENCE) -> int:
        """Wait for Snakemake itself; its exit code."""
        code = self.process.wait(patience)
        self.reader.join(1)  # not for ever: an orphan may still hold the terminal
        return code

    def close(self) -> None:
        self.closing.set()
        self.reader.join()

    def until(self, true: Callable[[], object], patience: float = PATIENCE) -> bool:
        """Wait until something is true, or the run has ended: False then."""
        limit = time.monotonic() + patience
        while not true():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > limit:
                raise TimeoutError(self.text[-2000:])
            time.sleep(0.05)
        return True


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []
