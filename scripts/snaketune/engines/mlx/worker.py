"""One process of a training on several: `python -m snaketune.engines.mlx.worker ARGUMENTS`, started by launching.py.

It speaks in lines of JSON on its standard output, each with its number: what it says to a person, that it is alive and
how far it is, and how it ended. From its standard input it hears that whoever started it is alive, and `stop`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any

from snaketune.runtime.step import block_torch

block_torch()  # before mlx-lm imports transformers

import mlx.core as mx  # noqa: E402

from snaketune.engines.mlx import train  # noqa: E402
from snaketune.engines.mlx.process_group import LostError, Workers  # noqa: E402
from snaketune.errors import UserError  # noqa: E402

BEAT = 1.0  # seconds between signs of life
SILENCE = 60.0  # seconds after which whoever started this is taken as gone, and then to stop in good order
RANKS = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")  # known before the others are found
ABANDONED = 70


class Voice(io.TextIOBase):
    """What stands for stderr: whole lines, each sent with this worker's number."""

    def __init__(self, number: int) -> None:
        self._number, self._rest = number, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self.send(says=line)
        return len(text)

    def send(self, **fields: Any) -> None:
        line = json.dumps({"worker": self._number, **fields}) + "\n"
        with contextlib.suppress(OSError):  # nobody hears it any more
            os.write(1, line.encode())  # at once, so that lines of several threads do not mix


class Life:
    """Signs of life to whoever started this, and an end of this process when they are gone."""

    def __init__(self, voice: Voice) -> None:
        self.voice, self.workers = voice, Workers()
        self._heard: float | None = None  # where standard input goes to the first process alone, the others never hear
        for work in (self._beat, self._listen):
            threading.Thread(target=work, daemon=True).start()

    def _beat(self) -> None:
        while True:
            self.voice.send(steps=self.workers.steps, waiting=self.workers.waiting)
            time.sleep(BEAT)
            silence = 0.0 if self._heard is None else time.monotonic() - self._heard
            if silence > SILENCE:
                self.workers.asked_to_stop = signal.SIGTERM
            if silence > 2 * SILENCE:
                os._exit(ABANDONED)

    def _listen(self) -> None:
        while line := os.read(0, 4096):
            self._heard = time.monotonic()
            if b"stop" in line:
                self.workers.asked_to_stop = signal.SIGTERM
        if self._heard is not None:
            self.workers.asked_to_stop = signal.SIGTERM


def main() -> None:
    number = next((int(os.environ[name]) for name in RANKS if name in os.environ), 0)
    voice = Voice(number)
    sys.stderr = voice
    life = Life(voice)
    given = json.loads(sys.argv[1])
    try:
        workers = Workers(mx.distributed.init(strict=True, backend=given.pop("backend")))
        workers.asked_to_stop, life.workers = life.workers.asked_to_stop, workers
        train.train_part(**given, workers=life.workers)
        voice.send(ended="well")
        return
    except UserError as error:
        told = {name: getattr(error, name) for name in ("what", "where", "why", "fix")}
        voice.send(ended="error", kind=type(error).__name__, error=told)
    except (LostError, KeyboardInterrupt) as error:
        voice.send(ended="lost", error=str(error))
    except Exception:
        traceback.print_exc()
        voice.send(ended="defect")
    os._exit(1)  # at once: an orderly end would wait for the others


if __name__ == "__main__":
    main()
