"""What a step asks of a cluster: memory and time, from the plan and the pilot, with a margin that grows with attempts.

Both answers are upper bounds on purpose: a job that asks too much waits a little longer, one that asks too little is
killed. A step that is killed all the same asks for more the next time, up to a limit; a training goes on from its
checkpoint, and as often as its queue is short: running out of time is no reason to ask for more memory.
"""

from __future__ import annotations

import contextlib
import functools
import math
from pathlib import Path

from snaketune.contracts.plan import PilotDecision, Plan
from snaketune.errors import UserError
from snaketune.files import StrPath, read_json
from snaketune.train.checkpoints import CHECKPOINT_SAVED

UNKNOWN_MB, UNKNOWN_MINUTES = 8000, 120  # before there is a plan, or a pilot to tell the speed
LIBRARIES_MB = 1500  # the interpreter and what a step imports
MEMORY_MARGIN, TIME_MARGIN = 1.3, 2.0
START_MINUTES = 10
ATTEMPT_FACTOR, MAX_FACTOR = 1.5, 4.0  # of each further attempt, and of all together
LAST_WORDS = 4096  # bytes at the end of a log


def memory_mb(run: str, experiment: str, attempt: int = 1, log: StrPath | None = None) -> int:
    """Megabytes for training an experiment of a run (its results folder), or for answering with its base.

    log: of a training, whose last attempt may have been stopped in order; then its memory was enough.
    """
    plan = _plan(run)
    planned = plan and plan.experiments.get(experiment)
    requested = planned.memory.total / 1e6 * MEMORY_MARGIN + LIBRARIES_MB if planned else UNKNOWN_MB
    return _scale_by_attempt(requested, 1 if log and _stopped_in_order(Path(log)) else attempt)


def minutes(run: str, experiment: str, part: str, attempt: int = 1) -> int:
    """Minutes for a part ("train", "package" or "evaluate") of an experiment's way, by what the pilot measured.

    The pilot is of one experiment; another one takes longer in proportion to its tokens and parameters.
    """
    plan = _plan(run)
    decision = _decision(run)
    if not plan or not decision or experiment not in plan.experiments:
        return _scale_by_attempt(UNKNOWN_MINUTES, attempt)
    piloted = plan.experiments.get(decision.piloted.experiment)
    own = plan.experiments[experiment]
    if not piloted:  # a decision of other experiments: it will be made again
        return _scale_by_attempt(UNKNOWN_MINUTES, attempt)
    times = own.parameters / piloted.parameters
    if part == "train":
        times *= own.num_target_tokens / max(1, piloted.num_target_tokens)
    return _scale_by_attempt(decision.forecast.seconds[part] / 60 * times * TIME_MARGIN + START_MINUTES, attempt)


def _scale_by_attempt(requested: float, attempt: int) -> int:
    return math.ceil(requested * min(ATTEMPT_FACTOR ** (attempt - 1), MAX_FACTOR))


def _stopped_in_order(log: Path) -> bool:
    try:
        with open(log, "rb") as words:
            words.seek(max(0, log.stat().st_size - LAST_WORDS))
            return CHECKPOINT_SAVED.encode() in words.read()
    except OSError:
        return False


def _plan(run: str) -> Plan | None:
    state = _state(f"{run}/plan.json")
    return _read_plan(*state) if state else None


def _decision(run: str) -> PilotDecision | None:
    state = _state(f"{run}/pilot/decision.json")
    return _read_decision(*state) if state else None


def _state(path: str) -> tuple[str, int, int] | None:
    """Return path, time and size of a file, by which it is read once for all jobs; None where it does not exist yet."""
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return path, stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=2)
def _read_plan(path: str, _time: int, _size: int) -> Plan | None:
    with contextlib.suppress(OSError, UserError):  # of another version, or just being written
        return read_json(path, type=Plan)
    return None


@functools.lru_cache(maxsize=2)
def _read_decision(path: str, _time: int, _size: int) -> PilotDecision | None:
    with contextlib.suppress(OSError, UserError):
        return read_json(path, type=PilotDecision)
    return None
