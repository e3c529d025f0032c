"""A base model is a stranger's files: what is looked at before any of them is used.

Only safetensors are read, never pickles, and no code that comes with a model is run. Here: links that lead out of the
folder, code named in config.json, and safetensors whose headers are not what their files hold (an engine would map
memory by them). Chat templates and tokenizers that never end run under limits of time and memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from snaketune.errors import ModelError

LARGEST_JSON = 512 << 20  # bytes; a tokenizer of 256 thousand pieces has 35 MB
LARGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors library
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


def check(folder: Path, names: list[str]) -> None:
    """Look at these files of a model's folder; ModelError for the first that cannot be trusted."""
    for name in names:
        file = folder / name
        if not _is_own(folder, file):
            raise ModelError(
                f"{name} is a link to a file outside the model's folder", where=str(folder), fix="Put the file there"
            )
        if file.suffix == ".safetensors":
            check_safetensors(file)
        elif file.stat().st_size > LARGEST_JSON:
            raise ModelError(
                f"it has {file.stat().st_size:,} bytes, more than any tokenizer or configuration needs",
                where=str(file),
                fix="Take the model from its own publisher again",
            )
    if "config.json" in names:
        _check_config(folder / "config.json")


def _is_own(folder: Path, file: Path) -> bool:
    """Whether a file lies in the folder, or in the blobs of the same model in the hub's own cache."""
    target = file.resolve()
    return folder.resolve() in target.parents or folder.resolve().parent.parent / "blobs" == target.parent


def _check_config(path: Path) -> None:
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"this is not valid JSON ({error})", where=str(path), fix="Fetch the file again") from None
    if not isinstance(config, dict):
        raise ModelError("a model's configuration is a JSON object", where=str(path), fix="Fetch the file again")
    if config.get("model_file") is not None:
        raise ModelError(
            f"it names a program of its own, {config['model_file']!r}",
            where=f"{path}: model_file",
            why="Code that comes with a model is never run here",
            fix="Use a model of an architecture that mlx-lm has",
        )


def check_safetensors(path: Path) -> dict[str, dict[str, object]]:
    """The header of a safetensors file (name -> dtype, shape, data_offsets), held against the file's size.

    The format: eight bytes of length, that many bytes of JSON, then the tensors without gap or overlap
    (https://huggingface.co/docs/safetensors). ModelError says what is not so.
    """

    def wrong(what: str) -> ModelError:
        return ModelError(
            what,
            where=str(path),
            why="A file that is not what its header says is damaged or made to mislead",
            fix="Fetch the file again from the model's publisher",
        )

    size = path.stat().st_size
    with open(path, "rb") as content:
        start = content.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
        if length is None or length > size - 8:
            raise wrong(f"it is cut short: {size} bytes" + (f", with a header of {length}" if length else ""))
        if length > LARGEST_HEADER:
            raise wrong(f"its header claims {length:,} bytes, more than {LARGEST_HEADER:,}")
        try:
            header = json.loads(content.read(length))
        except (ValueError, RecursionError):
            raise wrong("its header is not JSON") from None
    if not isinstance(header, dict):
        raise wrong("its header is not a JSON object")
    tensors = {name: about for name, about in header.items() if name != "__metadata__"}
    spans = sorted(_span(name, about, wrong) for name, about in tensors.items())
    expected = 0
    for begin, end, name in spans:
        if begin != expected:
            raise wrong(f"tensor {name!r} begins at byte {begin} instead of {expected}")
        expected = end
    if expected != size - 8 - length:
        raise wrong(f"it holds {size - 8 - length:,} bytes of tensors where its header describes {expected:,}")
    return tensors


def _span(name: str, about: Any, wrong: Callable[[str], ModelError]) -> tuple[int, int, str]:
    """Where a tensor begins and ends, in bytes after the header, checked against its shape."""
    try:
        dtype, shape, (begin, end) = about["dtype"], about["shape"], about["data_offsets"]
        numbers = [*shape, begin, end]
        if not all(type(number) is int and 0 <= number < 1 << 62 for number in numbers):
            raise TypeError
        count = 1
        for extent in shape:
            count *= extent
        known = BITS[dtype]
    except (TypeError, KeyError, ValueError):
        raise wrong(f"its header does not describe tensor {name!r} in the way of the format") from None
    if end - begin != count * known // 8:
        raise wrong(f"tensor {name!r} has {end - begin} bytes where its shape {shape} needs {count * known // 8}")
    return begin, end, name


MAX_EXTRA_BYTES = 8 << 30  # address space beyond what the process has


@contextlib.contextmanager
def time_limit(seconds: float, doing: str, *, where: str) -> Iterator[None]:
    """End Python code that takes longer, with a ModelError; only in the main thread, where signals arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def too_long(*_: Any) -> None:
        raise ModelError(
            f"{doing} took longer than {seconds:g} seconds",
            where=where,
            why="It would do so for every row",
            fix="Set model.chat_template to another template, or use another base",
        )

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def probe_in_subprocess(work: Callable[[], None], doing: str, *, where: str, seconds: float) -> None:
    """Run `work` in a fork of this process, with limits; ModelError if it does not end, or ends by a crash.

    An exception of `work` is not reported: the caller does the same again and meets it. The tokenizer's engine works
    outside Python, where no signal handler is run, hence a process that can be killed; where its patterns give up, it
    panics, which is no Exception.
    """
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            _limit_memory(MAX_EXTRA_BYTES)
            with contextlib.suppress(Exception):
                work()
            code = 0
        os._exit(code)
    until = time.monotonic() + seconds
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < until:
        time.sleep(0.02)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not ended or status:
        crash = f"was ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "crashed"
        how = crash if ended else f"took longer than {seconds:g} seconds"
        raise ModelError(
            f"{doing} {how}",
            where=where,
            why="A tokenizer or template that is sound needs less than a second for a few short texts",
            fix="Take the model from its own publisher again, or use another base",
        )


def _limit_memory(more: int) -> None:
    """Give this process at most `more` bytes of address space beyond what it has, where the system can say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)
