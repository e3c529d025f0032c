"""Runs a step: stderr is copied to the log, and a UserError is printed without a traceback (exit code 1).

Where a display draws on the terminal (DISPLAY_VARIABLE), stderr goes to the log alone, and what a person is to read
goes to the events of the run, which the display follows.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from snaketune.errors import StoppedError, UserError, to_resource_error, with_command
from snaketune.runtime import events, locks, stopping

ENGINE_VARIABLE = "SNAKETUNE_ENGINE"
DEFAULT_ENGINE = "mlx"  # of a process that no rule started


class _Tee(io.TextIOBase):
    """Writes to several streams: the terminal, which comes first, and the log."""

    def __init__(self, *streams: TextIO) -> None:
        self.streams = streams

    @property
    def terminal(self) -> TextIO:
        """Where a line may be redrawn if it is a terminal, past the log; the log itself where a display draws."""
        return self.streams[0]

    def write(self, text: str) -> int:
        for stream in self.streams:
            with contextlib.suppress(OSError):  # a closed terminal or a full disk: output must not end the step
                stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            with contextlib.suppress(OSError):
                stream.flush()

    def isatty(self) -> bool:
        return self.terminal.isatty()


def lock_file(log: str | Path) -> Path:
    """Return the lock file that the step with this log holds while it runs."""
    return Path(log).with_name(f".{Path(log).stem}.lock")


def step_locks(results: str | Path) -> list[Path]:
    """Return the lock files of all steps that ever ran in a results folder."""
    return sorted(path for pattern in ("logs/.*.lock", "*/logs/.*.lock") for path in Path(results).glob(pattern))


def all_locks(results: str | Path) -> list[Path]:
    """Return the same and those of trainings, whose worker processes may outlive their step."""
    return [*step_locks(results), *sorted(Path(results).glob("**/checkpoints/lock"))]


def selected_engine() -> str:
    """The engine that trains, answers and fuses in this process; the rules of a run name it in the environment."""
    return os.environ.get(ENGINE_VARIABLE, DEFAULT_ENGINE)


def block_torch() -> None:
    """Make `import torch` fail in this process.

    transformers, which mlx-lm uses for tokenizers, imports torch wherever it is installed, and torch costs seconds and
    hundreds of megabytes. It is there for llama.cpp's converter, which runs in a process of its own, and for the torch
    engine: a process that has imported `snaketune.engines` where that engine is selected keeps it.
    """
    if selected_engine() == "torch" and "snaketune.engines" in sys.modules:
        return
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # documented: None makes an import fail at once
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it would advise to install torch


def allow_torch() -> None:
    """Take `block_torch` back; before transformers is imported, which asks for torch once."""
    if sys.modules.get("torch", sys) is None:
        del sys.modules["torch"]


@contextlib.contextmanager
def no_garbage_collected() -> Iterator[None]:
    """Look for no garbage while modules are imported, nor later among what they made, which stays.

    Importing PyTorch and transformers makes a million objects, which would be looked at nine hundred times on the way.
    Where all was imported before, what is alive is not kept: it is the work of a step, and may be garbage later.
    """
    known, was_enabled = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def running(
    log: str | Path, *, wildcards: Mapping[str, str] | None = None, needs_torch: bool = False
) -> Iterator[None]:
    """Run a step's work: stderr is copied to `log`; a UserError is shown as its sentences and ends with exit code 1.

    wildcards: those of the rule, for the events; needs_torch: whether the step computes with PyTorch; otherwise its
    process is kept free of it.

    A full disk and a lack of memory become such errors. Any other exception is a defect of ours: the log keeps its
    traceback, and the exit code is 1 as well. No step runs twice at once: the second one fails and names the pid of
    the first.
    """
    terminal = sys.stderr
    if not needs_torch:
        block_torch()
    with events.reporting(log, wildcards) as reported:

        def say(kept: str) -> None:
            _end(reported, "stopped", f"{Path(log).stem} was stopped; {kept}.", terminal)

        try:
            with (
                stopping.stop_on_signals(say),
                locks.hold_lock(lock_file(log), f"running {Path(log).stem}"),
                _logged(log),
            ):
                yield
        except StoppedError as error:
            _end(reported, "stopped", str(error), terminal)
            raise SystemExit(1) from None
        except UserError as error:
            _end(reported, "failed", str(error), terminal)
            raise SystemExit(1) from None
        except _InternalError as error:
            _end(reported, "failed", str(error), terminal)
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            raise SystemExit(stopping.exit_code()) from None


class _InternalError(Exception):
    """A defect of ours; the log has the traceback."""


def _end(reported: events.StepEvents | None, state: events.State, message: str, terminal: TextIO) -> None:
    """Say how a step ended without success: to the display that follows the events, else to the terminal.

    The display ends with the command that goes on after a stop.
    """
    if reported is not None:
        reported.add(state, message)
    if not _is_displayed():
        go_on = with_command(" Run snakemake again to go on.") if state == "stopped" else ""
        _print_message(f"snaketune: {message}{go_on}", terminal)


def _is_displayed() -> bool:
    return bool(os.environ.get(events.DISPLAY_VARIABLE))


@contextlib.contextmanager
def _logged(log: str | Path) -> Iterator[None]:
    """Copy stderr to `log` during the block, and what it ends with as well; where a display draws, into `log` alone."""
    terminal = sys.stderr
    log_file = _open_log(log)
    with contextlib.ExitStack() as stack:
        stack.callback(_close, log_file)
        if _is_displayed():
            for standard in (1, 2):  # also what C libraries and programs say
                stack.enter_context(_redirected(standard, log_file.fileno()))
            sys.stderr = _Tee(log_file)
        else:
            sys.stderr = _Tee(terminal, log_file)
        try:
            yield
        except Exception as error:
            known = error if isinstance(error, UserError) else to_resource_error(error, log)
            if known:
                _print_message(f"snaketune: {known}", log_file)
                raise known from None
            _print_message("".join(traceback.format_exception(error)), log_file)
            raise _InternalError(f"internal error; see the traceback in {log} and please report it") from None
        finally:
            sys.stderr = terminal


@contextlib.contextmanager
def _redirected(descriptor: int, target: int) -> Iterator[None]:
    """Let one file descriptor lead where another does, during the block."""
    saved = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


def _close(log_file: TextIO) -> None:
    with contextlib.suppress(OSError):
        log_file.close()


def _open_log(log: str | Path) -> TextIO:
    return open(log, "w", encoding="utf-8", buffering=1)


def _print_message(message: str, stream: TextIO) -> None:
    """Print a line, in the place of a status line that was cut off."""
    with contextlib.suppress(OSError):
        print(f"\r\x1b[K{message}" if stream.isatty() else message, file=stream)
