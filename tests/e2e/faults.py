"""Faults of the machine, each made to meet a step of a real run at its start."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
from project_copy import Project
from pty_session import Terminal

Fault = Callable[[psutil.Process], AbstractContextManager[None]]


def at_every_step(project: Project, fault: Fault) -> dict[str, str]:
    """Run a project to its end, the fault meeting each step once; by step, what the run that it met showed.

    Between two faults the run is started again, as it is, and so goes on from what the fault left.
    """
    said: dict[str, str] = {}
    while True:
        terminal = Terminal(project, "--cores", "1")
        try:
            begun = _next(project, terminal, said)
            if begun is None:
                assert terminal.ended() == 0, terminal.text
                return said
            name, job = begun
            with fault(job):
                job.resume()
                terminal.ended()
            said[name] = terminal.text
        finally:
            terminal.close()


def _next(project: Project, terminal: Terminal, known: dict[str, str]) -> tuple[str, psutil.Process] | None:
    """The next step that begins and has not met the fault yet, held up; None when the run ends before."""
    while terminal.process.poll() is None:
        for begun in _begun(project, known):
            return begun
        time.sleep(0.004)
    return None


def _begun(project: Project, known: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """A step that has begun and has not met the fault yet, held up."""
    for lock in (project.folder / "results").glob("*/logs/.*.lock"):
        with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
            if lock.stem[1:] not in known:
                job = psutil.Process(json.loads(lock.read_text())["pid"])
                job.suspend()
                yield lock.stem[1:], job
                return


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """An empty file system of so many megabytes; raises PermissionError where none may be mounted."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "snaketune", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        raise PermissionError("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """The disk that this folder is on has no byte left."""
    filler = disk / "filler"
    try:
        with open(filler, "wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(bytes(4096))
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Nothing can be written on this file system."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@contextlib.contextmanager
def little_memory(job: psutil.Process, megabytes: int = 8) -> Iterator[None]:
    """The process gets no more memory than it has, and a little."""
    limit = job.memory_info().vms + megabytes * 2**20
    job.rlimit(psutil.RLIMIT_AS, (limit, limit))
    yield
