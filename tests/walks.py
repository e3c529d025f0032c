"""Follows a value through the library: the functions that take it or give it back, in the order of their first call.

What a value is, in its several shapes, the caller says. Nothing is followed into files that tests lie in, nor into what
every value passes: the contracts (types alone), the reading and writing of files, and how a step runs.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

LIBRARY = Path(__file__).resolve().parents[1] / "scripts" / "snaketune"
PASSED_BY_ALL = ("contracts/", "runtime/", "files.py", "report/run_files.py")
DEEPEST = 3  # containers inside of each other that are looked into
WIDEST = 3  # entries of each that are looked at


@contextlib.contextmanager
def following(is_it: Callable[[Any], bool]) -> Iterator[dict[str, list[str]]]:
    """Yield what is filled during the block: functions by the module that they are in, as they were first met."""
    found: dict[str, list[str]] = {}

    def look(frame: FrameType, event: str, value: Any) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(str(LIBRARY)):
            return
        module = Path(code.co_filename).relative_to(LIBRARY).as_posix()
        name = code.co_qualname.replace(".<locals>", "")
        if module.startswith(PASSED_BY_ALL) or name in found.get(module, ()) or "<" in name:
            return
        values = [value] if event == "return" else _arguments(frame)
        if any(_holds(one, is_it) for one in values):
            found.setdefault(module, []).append(name)

    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(None)


def _arguments(frame: FrameType) -> list[Any]:
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return [frame.f_locals[name] for name in code.co_varnames[:count] if name != "self" and name in frame.f_locals]


def _holds(value: Any, is_it: Callable[[Any], bool], deep: int = DEEPEST) -> bool:
    if is_it(value):
        return True
    if not deep:
        return False
    if isinstance(value, dict):
        parts = [*value.values()]
    elif isinstance(value, list | tuple):
        parts = [*value]
    else:
        return False
    return any(_holds(part, is_it, deep - 1) for part in parts[:WIDEST])
