"""Runs as processes: start one as the terminal would, find the one that runs, and stop it as Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from snaketune.config import schema
from snaketune.errors import BusyError, ConfigError
from snaketune.runtime.locks import LockHolder, recorded_holder
from snaketune.ui.project import Project, command_of

Ending = Literal["keep", "stop"]
STAGES = ("", "data", "plan", "pilot", "train", "package", "evaluate", "report", "preview", "runs")
TASK = "running snakemake for "  # how the lock of results names its holder, before the run's name
OUTPUT = ".ui/{}.log"  # below results: what snakemake itself printed
MAX_OUTPUT = 20_000  # bytes of it that a page shows


@dataclass
class Started:
    """A run that this server has started."""

    run: str
    command: str
    process: subprocess.Popen[bytes]


@dataclass
class Processes:
    """The processes of a project's runs, whoever started them."""

    project: Project
    started: dict[str, Started] = field(default_factory=dict)

    def start(self, configuration: str, stage: str, ending: Ending) -> Started:
        """Start a run, or one of its stages; BusyError while another run is at work in this project.

        ending: what becomes of it when this server ends.
        """
        if stage not in STAGES:
            raise ConfigError(f'there is no stage "{stage}"{schema.did_you_mean(stage, STAGES)}', where="stage")
        path = self.project.configuration(configuration)
        run = str(schema.complete(schema.read(path))["run"])
        if busy := self.running():
            raise BusyError(
                f"{busy} is running in this project",
                why="One run at a time, as on the terminal: two writers in one place would corrupt each other's files",
                fix="Wait for it, or stop it",
            )
        words = command_of(configuration, stage)
        output = self.project.results / OUTPUT.format(run)
        output.parent.mkdir(parents=True, exist_ok=True)
        with open(output, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "snaketune.ui.launcher", ending, *words],
                cwd=self.project.root,
                env=self._environment(),
                stdin=subprocess.PIPE if ending == "stop" else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started[run] = Started(run, shlex.join(words), process)
        return self.started[run]

    def _environment(self) -> dict[str, str]:
        """The environment of a terminal in which .venv is active."""
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return os.environ | {"PATH": programs, "PYTHONPATH": str(self.project.root / "scripts"), "TERM": "dumb"}

    def running(self) -> str | None:
        """The run that is at work, or about to be."""
        holder = self.holder()
        if holder:
            return holder.task.removeprefix(TASK)
        return next((one.run for one in self.started.values() if one.process.poll() is None), None)

    def begun(self, run: str) -> float | None:
        """When the process that is at work on a run began, in seconds since 1970; None where there is none."""
        import psutil

        if self.running() != run:
            return None
        holder, own = self.holder(), self.started.get(run)
        pid = holder.pid if holder else own.process.pid if own else 0
        try:
            return psutil.Process(pid).create_time()
        except psutil.Error:  # it has just ended, or runs on another machine
            return 0.0

    def holder(self) -> LockHolder | None:
        """The process that holds the lock of the results.

        The lock itself is not tried: a run that begins at that moment would find it taken.
        """
        holder = recorded_holder(self.project.results / ".lock")
        if holder and (holder.host != os.uname().nodename or _is_snakemake(holder.pid)):
            return holder
        return None

    def stop(self, run: str) -> None:
        """Send a run what Ctrl-C sends; it saves what it can and ends within seconds."""
        if self.running() != run:
            raise ConfigError(f"{run} is not running", fix="Reload the page")
        holder, own = self.holder(), self.started.get(run)
        if holder is None and own is not None:
            self._interrupt(own.process.pid)
        elif holder is not None:
            if holder.host != os.uname().nodename:
                raise ConfigError(f"{run} runs on {holder.host}", fix=f"There: kill -INT {holder.pid}")
            self._interrupt(holder.pid)

    @staticmethod
    def _interrupt(pid: int) -> None:
        """Signal a process, and its group where it leads one: a group that make or a shell leads is left alone."""
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGINT)
            else:
                os.kill(pid, signal.SIGINT)

    def stop_command(self, run: str) -> str:
        """The command that does the same as `stop`."""
        holder = self.holder()
        return f"kill -INT {holder.pid}" if holder and self.running() == run else ""

    def output(self, run: str) -> str:
        """The end of what snakemake printed, where this page has started the run."""
        return tail(self.project.results / OUTPUT.format(run), MAX_OUTPUT)


def _is_snakemake(pid: int) -> bool:
    """Whether this process lives and is a snakemake; a killed one's number may be another's by now."""
    import psutil

    try:
        return any("snakemake" in word for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def tail(path: Path, size: int) -> str:
    """The last bytes of a text file, from the beginning of a line; empty where there is none."""
    try:
        with open(path, "rb") as content:
            length = content.seek(0, os.SEEK_END)
            content.seek(max(0, length - size))
            found = content.read(size)
    except OSError:
        return ""
    if length > size:
        found = found.partition(b"\n")[2]
    return found.decode(errors="replace")
