"""Terminal view of a run: one line a stage, redrawn in place while it works, and left standing when it is done."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

from snaketune.display.board import Board, Job, Stage
from snaketune.display.lines import end_line, job_line, wrapped
from snaketune.runtime.events import Event
from snaketune.runtime.progress import format_time

NAME_WIDTH = 9
TIME_WIDTH = 11
DEFAULT_SIZE = (80, 24)
NARROW = 40  # columns, below which the times are left out
MIN_ROWS = 3
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ASCII_FRAMES = "|/-\\"


class _Console(Console):
    """A console that measures the terminal that it writes to, at each drawing, and never hides the cursor.

    A killed run could not show the cursor again.
    """

    @property
    def size(self) -> ConsoleDimensions:
        try:
            columns, rows = os.get_terminal_size(self.file.fileno())
        except OSError:
            columns = rows = 0
        return ConsoleDimensions(columns or DEFAULT_SIZE[0], rows or DEFAULT_SIZE[1])  # some terminals say 0

    @size.setter
    def size(self, _size: tuple[int, int]) -> None:
        raise NotImplementedError

    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002
        return False


def _is_plain_locale() -> bool:
    """Whether a person asked for the locale C, in which Python writes UTF-8 all the same (and says so in LC_CTYPE)."""
    whole, letters, language = (os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    coerced = letters.upper().replace("-", "") == "C.UTF8"
    return (whole or (language if coerced else letters or language)) in ("C", "POSIX")


class TerminalView:
    """Draws the stages at work below the lines that stand."""

    def __init__(self, stream: TextIO, board: Board) -> None:
        self.board = board
        self.console = _Console(file=stream, highlight=False, markup=False, emoji=False)
        unicode = (self.console.encoding or "").startswith("utf") and not _is_plain_locale()
        self.done, self.wrong, self.open = ("✓", "✗", "■") if unicode else ("+", "x", "-")
        self.ellipsis = "…" if unicode else "..."
        self.frames = FRAMES if unicode else ASCII_FRAMES
        self._frame = 0
        self._standing: set[str] = set()  # the stages whose line is final
        self._live = Live(
            console=self.console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False, transient=True
        )
        self._live.start()

    def say(self, text: str) -> None:
        """Print lines for a person above those that are redrawn; a command stays one line, to be copied."""
        self.console.print(Text(wrapped(text, self.console.width)), soft_wrap=True)

    def ended(self, job: Job, event: Event) -> None:
        """Leave the line of a stage standing once all of it is done."""
        stage = self.board.stage(job.step)
        if stage.is_done and stage.name not in self._standing:
            self._stand(stage, event.time)

    def _stand(self, stage: Stage, now: float) -> None:
        self._standing.add(stage.name)
        if stage.failed:
            mark, style = self.wrong, "red"
        elif stage.is_done:
            mark, style = self.done, "green"
        else:
            mark, style = self.open, "yellow"
        line = self._line(mark, style, stage.name, end_line(stage), format_time(stage.elapsed(now)))
        self.console.print(line, soft_wrap=True)

    def tick(self, now: float) -> None:
        """Draw the stages at work anew."""
        self._frame += 1
        jobs = sum(len(stage.jobs) for stage in self.board.stages.values())
        room = max(MIN_ROWS, self.console.height - 2)
        rows = list(itertools.islice(self._rows(now), room if jobs <= room else room - 1))
        if jobs > len(rows):
            rows.append(Text(f"    and {jobs - len(rows):,} more at work", style="dim"))
        self._live.update(Group(*rows), refresh=True)

    def _rows(self, now: float) -> Iterator[Text]:
        spinner = self.frames[self._frame % len(self.frames)]
        for stage in self.board.stages.values():
            for number, job in enumerate(stage.jobs.values()):
                name, mark = (stage.name, spinner) if number == 0 else ("", " ")
                text = job_line(job, is_training_alone=len(stage.jobs) == 1)
                yield self._line(mark, "cyan", name, text, format_time(job.seconds(now)))

    def _line(self, mark: str, style: str, name: str, text: str, time: str) -> Text:
        """Compose a line that fits: mark, stage, what is to say, time."""
        width = self.console.width - 1  # a full line would wrap on some terminals
        shown_time = f"{time:>{TIME_WIDTH}}" if width >= NARROW else ""
        room = max(0, width - 3 - NAME_WIDTH - len(shown_time))
        line = Text(no_wrap=True)
        line.append(f" {mark} ", style=style)
        line.append(f"{name:<{NAME_WIDTH}}", style="bold")
        line.append(set_cell_size(self._fit(text, room), room))
        line.append(shown_time, style="dim")
        return line

    def _fit(self, text: str, room: int) -> str:
        text = text.replace("\n", " ")
        if cell_len(text) <= room:
            return text
        return set_cell_size(text, max(0, room - len(self.ellipsis))).rstrip() + self.ellipsis

    def close(self, now: float) -> None:
        """Stop drawing; leave a line for each stage that did not get to its end."""
        self._live.stop()
        for stage in self.board.stages.values():
            if stage.has_begun and stage.name not in self._standing:
                self._stand(stage, now)
