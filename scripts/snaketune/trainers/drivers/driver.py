"""What all drivers share: the request of the step that started them, their events, and the wish to stop.

A driver is a script that runs inside a trainer's own environment, which has none of this project's packages: it may
import the standard library, its trainer and its neighbors in this folder. It is started as `python run_<name>.py
request.json` and appends events to a file, one JSON object a line (docs/engines.md has the list).
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

IGNORED = -100  # the label of a token without loss, in every trainer


class Request:
    """The request file: paths, the order of visits, and the settings in the trainer's own words.

    base: the model's folder; folder: where the trainer works; visits: indices of training rows in the order in which
    they are to be seen, all epochs after one another; resume: whether to look for a checkpoint in `folder`.
    """

    def __init__(self, path: str) -> None:
        content = json.loads(Path(path).read_text())
        self.base: str = content["base"]
        self.folder = Path(content["folder"])
        self.train_rows: str = content["train_rows"]
        self.valid_rows: str = content["valid_rows"]
        self.visits: list[int] = content["visits"]
        self.steps: int = content["steps"]
        self.dtype: str = content["dtype"]
        self.seed: int = content["seed"]
        self.settings: dict[str, Any] = content["settings"]


class Events:
    """The file that the starting step reads while the trainer runs; each line is whole or not there."""

    def __init__(self, path: str | Path) -> None:
        self._out = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the training is
        self._began = time.monotonic()

    def write(self, event: str, **values: Any) -> None:
        """Append an event with the seconds since the training began, and the process's peak memory and CPU time."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        measured = {
            "seconds": round(time.monotonic() - self._began, 3),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
            "memory_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        }
        line = {"event": event, **{name: _finite(value) for name, value in values.items()}, **measured}
        self._out.write(json.dumps(line, allow_nan=False) + "\n")
        self._out.flush()

    def begin(self, step: int, **counts: int) -> None:
        """Start the clock: the model is loaded; step: the one resumed from; counts: of parameters."""
        self._began = time.monotonic()
        self.write("begin", step=step, **counts)


def _finite(value: Any) -> Any:
    """A value as JSON can hold it: null where a number is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Stop:
    """Whether the training was asked to end early; the first SIGTERM only asks, a second one ends the process."""

    def __init__(self) -> None:
        self.requested = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, _frame: object) -> None:
        if self.requested:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.requested = True


def begin() -> tuple[Request, Events]:
    """The request and the event file that the command line names.

    From here on the process ends with the one that started it, however that ends.
    """
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    request, events = Request(sys.argv[1]), Events(sys.argv[2])
    sys.argv[1:] = []  # a trainer that reads its own command line must not find ours
    return request, events


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def iterate_rows(path: str) -> Iterator[dict[str, list[int]]]:
    """The rows of a file one by one."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def read_rows(path: str) -> list[dict[str, list[int]]]:
    """The rows of a file: `input_ids` and `labels`, -100 where a token has no loss."""
    return list(iterate_rows(path))


def write_rows(path: Path, rows: Iterable[dict[str, list[int]]]) -> None:
    """Write rows as JSON Lines, for trainers that want a file of their own."""
    with open(path, "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row) + "\n")


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages by name; those that are not installed are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
