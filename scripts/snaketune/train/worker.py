"""What a process of a training on several does besides training: messages to its launcher.

On standard output it sends messages (see `launcher`): what it prints, that it is alive and how far it is, and how it
ended. On standard input it hears that the launcher is alive, and `stop`.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable

import msgspec

from snaketune.contracts.train import TrainingJob
from snaketune.errors import UserError
from snaketune.train.engine import TrainingEngine
from snaketune.train.launcher import Ended, Heartbeat, Message, Output, describe_error
from snaketune.train.process_group import PeerLostError, ProcessGroup
from snaketune.train.training import train_worker

HEARTBEAT_INTERVAL = 1.0  # seconds
HEARTBEAT_TIMEOUT = 60.0  # seconds of silence after which the launcher counts as gone, and training stops in good order
EXIT_ORPHANED = 70
MAX_REASON = 500  # characters


def send(message: Message) -> None:
    """Send a message to the launcher, in one write, so that lines of several threads do not mix."""
    with contextlib.suppress(OSError):  # the launcher is gone
        os.write(1, msgspec.json.encode(message) + b"\n")


class LogForwarder(io.TextIOBase):
    """Stands for stderr: sends whole lines to the launcher."""

    def __init__(self, rank: int) -> None:
        self._rank, self._partial_line = rank, ""

    def write(self, text: str) -> int:
        *lines, self._partial_line = (self._partial_line + text).split("\n")
        for line in lines:
            send(Output(rank=self._rank, line=line))
        return len(text)


class HeartbeatThreads:
    """Sends signs of life to the launcher, and ends this process when the launcher is gone."""

    def __init__(self, rank: int, *, listens: bool) -> None:
        self.rank, self.group = rank, ProcessGroup()
        # None where standard input goes to the main process alone: the others never hear anything
        self._last_heard: float | None = None
        for loop in (self._send_heartbeats, self._listen) if listens else (self._send_heartbeats,):
            threading.Thread(target=loop, daemon=True).start()

    def _send_heartbeats(self) -> None:
        while True:
            group = self.group
            send(Heartbeat(rank=self.rank, num_collectives=group.num_collectives, is_waiting=group.is_waiting))
            time.sleep(HEARTBEAT_INTERVAL)
            silence = 0.0 if self._last_heard is None else time.monotonic() - self._last_heard
            if silence > HEARTBEAT_TIMEOUT:
                self.group.stop_signal = signal.SIGTERM
            if silence > 2 * HEARTBEAT_TIMEOUT:
                os._exit(EXIT_ORPHANED)

    def _listen(self) -> None:
        while line := os.read(0, 4096):
            self._last_heard = time.monotonic()
            if b"stop" in line:
                self.group.stop_signal = signal.SIGTERM
        if self._last_heard is not None:
            self.group.stop_signal = signal.SIGTERM


def run(
    rank: int,
    join: Callable[[TrainingJob], ProcessGroup],
    engine: TrainingEngine,
    *,
    listens: bool = True,
) -> None:
    """Run one process's part of the job in sys.argv, and tell the launcher how it ended.

    join: meets the other processes; listens: whether standard input is this process's own.
    """
    sys.stderr = LogForwarder(rank)
    heartbeat = HeartbeatThreads(rank, listens=listens)
    try:
        job = msgspec.json.decode(sys.argv[1], type=TrainingJob)
        group = join(job)
        group.stop_signal, heartbeat.group = heartbeat.group.stop_signal, group
        train_worker(job, group, engine)
        send(Ended(rank=rank, how="well"))
        return
    except UserError as error:
        send(Ended(rank=rank, how="error", error=describe_error(error)))
    except (PeerLostError, KeyboardInterrupt) as error:
        send(Ended(rank=rank, how="lost", reason=textwrap.shorten(str(error), MAX_REASON)))
    except Exception:
        traceback.print_exc()
        send(Ended(rank=rank, how="defect"))
    os._exit(1)  # at once: an orderly end would wait for the others
