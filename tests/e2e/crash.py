"""Runs in a terminal of their own, ended at seeded moments in the ways in which runs end for people.

A moment is the start of some job of the run and a delay after it, so that it means the same on a fast machine and on a
busy one. What a run leaves behind is held against an uninterrupted run, file by file.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import psutil
from project_copy import Project
from pty_session import Terminal

DELAY = 2.5  # seconds after a job's start, at most, where jobs take as long
STARTED = re.compile(rb"^(?:local)?rule \w+:", re.MULTILINE)
TOTAL = re.compile(rb"^total +(\d+)", re.MULTILINE)


def _to_all(number: int) -> Callable[[Terminal], None]:
    def end(terminal: Terminal) -> None:
        every = [psutil.Process(terminal.process.pid)]
        every += every[0].children(recursive=True)
        for process in every:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    return end


def _to_snakemake(number: int) -> Callable[[Terminal], None]:
    return lambda terminal: terminal.process.send_signal(number)


def _to_a_job(number: int) -> Callable[[Terminal], None]:
    def end(terminal: Terminal) -> None:
        if terminal.until(terminal.jobs):
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                terminal.jobs()[0].send_signal(number)

    return end


ENDS: dict[str, Callable[[Terminal], Any]] = {
    "SIGKILL to Snakemake alone": _to_snakemake(signal.SIGKILL),
    "SIGKILL to the job": _to_a_job(signal.SIGKILL),
    "terminal closed": Terminal.close,
    "ctrl-C": lambda terminal: os.write(terminal.ours, b"\x03"),
    "SIGKILL to both": _to_all(signal.SIGKILL),
    "SIGTERM to Snakemake alone": _to_snakemake(signal.SIGTERM),
    "SIGTERM to the job": _to_a_job(signal.SIGTERM),
    "SIGTERM to both": _to_all(signal.SIGTERM),
    "SIGINT to Snakemake alone": _to_snakemake(signal.SIGINT),
}


@dataclass
class Kill:
    """One kill: how, and when: after the start of job number `job` of those that were left (0: before the first)."""

    how: str
    job: int
    of: int
    delay: float
    code: int | None = None  # Snakemake's own exit code after it; None: the run was over before the moment came
    orphans: int = 0  # jobs that outlived it


def killed_run(
    project: Project, how: str, draw: random.Random, *, left: int = 1, longest: float = DELAY
) -> tuple[Kill, str]:
    """Start a run and end it at a drawn moment; returns what was done and what the terminal showed.

    left: how many kills this project is still to see, this one included; they share what is left of the work.
    longest: seconds after a job's start, at most.
    """
    terminal = Terminal(project, "--logger-snaketune-off")
    share, delay = draw.random() / left, draw.random() * longest
    try:
        reached = terminal.until(lambda: TOTAL.search(terminal.said))
        found = TOTAL.search(terminal.said)
        kill = Kill(how, 0, int(found[1]) if found else 0, round(delay, 2))
        kill.job = int(share * (kill.of + 1))
        if reached and terminal.until(lambda: len(STARTED.findall(terminal.said)) >= kill.job):
            with contextlib.suppress(subprocess.TimeoutExpired):
                terminal.process.wait(delay)
        if terminal.process.poll() is None:
            jobs = terminal.jobs()
            ENDS[how](terminal)
            kill.code = terminal.ended()
            kill.orphans = sum(job.is_running() for job in jobs)
        return kill, terminal.text
    finally:
        terminal.close()


def survived(project: Project, hows: list[str], seed: int, longest: float = DELAY) -> dict[str, Any]:
    """End runs of a project one after the other, then run it to its end as a person would; a record of it all.

    "ended_well": each run went on until it was ended, and the last to its end; "said": what the first bad one showed.
    """
    draw = random.Random(seed)
    kills: list[Kill] = []
    said = ""
    for number, how in enumerate(hows):
        kill, shown = killed_run(project, how, draw, left=len(hows) - number, longest=longest)
        kills.append(kill)
        if kill.code is None and "Nothing to be done" not in shown and "(100%) done" not in shown:
            said = said or shown
    last = project.snakemake()
    if last.returncode:
        said = said or last.stdout
    return {"seed": seed, "kills": [asdict(kill) for kill in kills], "ended_well": not said, "said": said[-4000:]}


def debris(project: Project) -> list[str]:
    """What should never be left after a run that ended well."""
    folder = project.folder
    half = [str(path) for path in (folder / "results").rglob(".*.tmp")]
    return half + [str(path) for kind in ("locks", "incomplete") for path in (folder / ".snakemake" / kind).glob("*")]
