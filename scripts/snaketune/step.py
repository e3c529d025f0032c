"""How a step runs: its words go to the terminal and to its log, and a person's mistake ends it without a traceback."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from snaketune.errors import UserError


class _Tee(io.TextIOBase):
    """Writes to the terminal as it is, and to the log without the redrawn lines of a progress bar."""

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self.terminal, self.log = terminal, log

    def write(self, text: str) -> int:
        self.terminal.write(text)
        self.log.write(text)
        return len(text)

    def flush(self) -> None:
        self.terminal.flush()
        self.log.flush()

    def isatty(self) -> bool:
        return self.terminal.isatty()


@contextlib.contextmanager
def running(log: str | Path) -> Iterator[None]:
    """Run a step's work: stderr is copied to `log`; a UserError is shown as its sentences and ends with exit code 1.

    Any other exception is a defect of ours: the log keeps its traceback, and it ends with exit code 1 as well.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8", buffering=1) as kept:
        terminal = sys.stderr
        sys.stderr = _Tee(terminal, kept)
        try:
            yield
        except UserError as error:
            print(f"snaketune: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except Exception:
            traceback.print_exc(file=kept)
            print(f"snaketune: this should not have happened; the traceback is in {log}", file=terminal)
            raise SystemExit(1) from None
        finally:
            sys.stderr = terminal
