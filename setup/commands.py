"""Runs the programs of the set-up: what they say goes to the log, how far they are to the terminal."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from progress_line import ProgressLine

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv"
VENDOR = ROOT / "vendor"
LOG = VENDOR / "setup.log"
SECONDS_TO_END = 10.0

NETWORK = ("name resolution", "name or service not known", "newconnectionerror", "connection refused", "unreachable")

# the second one where a file of constraints names the package too
NOT_FOUND = ("No matching distribution found", "ResolutionImpossible")


class SetupError(Exception):
    """Says what is missing, why it matters, and what to do, in one or two sentences."""


class CommandFailed(SetupError):
    """Holds what a program said before it failed, beside the explanation."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output

    @property
    def is_network(self) -> bool:
        """Tell whether the program failed for want of a connection."""
        return any(words in self.output.lower() for words in NETWORK)

    @property
    def is_not_found(self) -> bool:
        """Tell whether pip found no such version or build."""
        return any(words in self.output for words in NOT_FOUND)


def run(
    command: Sequence[str | Path],
    line: ProgressLine | None = None,
    watch: Callable[[str], str] = lambda _: "",
    env: dict[str, str] | None = None,
    *,
    folder: Path | None = None,
) -> str:
    """Run a program and return what it said; `watch` turns a line of it into what the progress line shows.

    `watch` is called twice a second with nothing while the program is silent. folder: another copy of the project to
    run it in, which has a log of its own.
    """
    path = folder / "vendor" / LOG.name if folder else LOG
    path.parent.mkdir(exist_ok=True)
    said: list[str] = []
    with open(path, "a", encoding="utf-8", buffering=1) as log:
        log.write(f"$ {' '.join(map(str, command))}\n")
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=folder or ROOT,
            env={**os.environ, **(env or {})},
            encoding="utf-8",
            errors="replace",
        )
        try:
            _follow(process, log, said, line, watch)
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        output = "".join(said)
        raise CommandFailed(explained(output), output)
    return "".join(said)


def _follow(
    process: subprocess.Popen[str],
    log: TextIO,
    said: list[str],
    line: ProgressLine | None,
    watch: Callable[[str], str],
) -> None:
    """Pass on each line until the program ends; the time on the progress line moves between lines too."""
    assert process.stdout is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read(source: TextIO) -> None:
        for text in source:
            lines.put(text)
        lines.put(None)

    threading.Thread(target=read, args=(process.stdout,), daemon=True).start()
    while True:
        text: str | None = ""
        with contextlib.suppress(queue.Empty):
            text = lines.get(timeout=0.5)
        if text is None:
            break
        if text:
            log.write(text)
            said.append(text)
        if line:
            line.update(watch(text))
    process.wait()


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()


def pip(
    *arguments: str | Path,
    line: ProgressLine | None = None,
    watch: Callable[[str], str] = lambda _: "",
    env: dict[str, str] | None = None,
) -> str:
    """Run the environment's pip with the person's own configuration of pip."""
    python = ENVIRONMENT / "bin" / "python"
    command = (python, "-m", "pip", "--disable-pip-version-check", *arguments)
    return run(command, line, watch, {"PYTHONUNBUFFERED": "1", "PIP_PROGRESS_BAR": "off", **(env or {})})


def explained(output: str) -> str:
    """Turn a program's last words into a sentence that says what to do."""
    low = output.lower()
    if "no space left" in low:
        return f"the disk is full. Free 3 gigabytes and run make again (details: {LOG})."
    if "these packages do not match the hashes" in low:
        return (
            f"a package is not the one that was pinned (its SHA-256 differs). Check where pip gets it: `pip config "
            f"list` (details: {LOG})."
        )
    if any(words in low for words in NETWORK):
        return f"the package index cannot be reached. Connect to the network and run make again (details: {LOG})."
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no words")
    return f"set-up stopped: {last.strip()} (details: {LOG}). Run make again to go on."
