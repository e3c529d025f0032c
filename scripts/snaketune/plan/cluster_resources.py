"""What a step asks of a cluster: memory and time, from the plan and the pilot, with a margin that grows with attempts.

Both answers are upper bounds on purpose: a job that asks too much waits a little longer, one that asks too little is
killed. A step that is killed all the same asks for more the next time, up to a limit; a training goes on from its
checkpoint, and as often as its queue is short: running out of time is no reason to ask for more memory.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

from snaketune.files import StrPath, read_json
from snaketune.train.signals import SAVED

UNKNOWN_MB, UNKNOWN_MINUTES = 8000, 120  # before there is a plan, or a pilot to tell the speed
LIBRARIES_MB = 1500  # the interpreter and what a step imports
MEMORY_MARGIN, TIME_MARGIN = 1.3, 2.0
START_MINUTES = 10
GROWTH, MOST = 1.5, 4.0  # of each further attempt, and of all together
LAST_WORDS = 4096  # bytes at the end of a log


def memory_mb(run: str, experiment: str, attempt: int = 1, log: StrPath | None = None) -> int:
    """Megabytes for training an experiment of a run (its results folder), or for answering with its base.

    log: of a training, whose last attempt may have been stopped in order; then its memory was enough.
    """
    plan = _known(f"{run}/plan.json")
    known = plan and plan["experiments"].get(experiment)
    asked = known["memory"]["total"] / 1e6 * MEMORY_MARGIN + LIBRARIES_MB if known else UNKNOWN_MB
    return _grown(asked, 1 if log and _stopped_in_order(Path(log)) else attempt)


def minutes(run: str, experiment: str, part: str, attempt: int = 1) -> int:
    """Minutes for a part ("train", "package" or "evaluate") of an experiment's way, by what the pilot measured.

    The pilot is of one experiment; another one takes longer in proportion to its tokens and parameters.
    """
    plan, decision = _known(f"{run}/plan.json"), _known(f"{run}/pilot/decision.json")
    if not plan or not decision or experiment not in plan["experiments"]:
        return _grown(UNKNOWN_MINUTES, attempt)
    piloted = plan["experiments"].get(decision["piloted"]["experiment"])
    own = plan["experiments"][experiment]
    if not piloted:  # a decision of other experiments: it will be made again
        return _grown(UNKNOWN_MINUTES, attempt)
    times = own["parameters"] / piloted["parameters"]
    if part == "train":
        times *= own["trained_tokens"] / max(1, piloted["trained_tokens"])
    return _grown(decision["forecast"]["seconds"][part] / 60 * times * TIME_MARGIN + START_MINUTES, attempt)


def _grown(asked: float, attempt: int) -> int:
    return math.ceil(asked * min(GROWTH ** (attempt - 1), MOST))


def _stopped_in_order(log: Path) -> bool:
    try:
        with open(log, "rb") as words:
            words.seek(max(0, log.stat().st_size - LAST_WORDS))
            return SAVED.encode() in words.read()
    except OSError:
        return False


def _known(path: str) -> Any:
    """A JSON file of the run, read once for all jobs; None where it is not there (yet)."""
    try:
        state = Path(path).stat()
    except OSError:
        return None
    return _read(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4)
def _read(path: str, _time: int, _size: int) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
