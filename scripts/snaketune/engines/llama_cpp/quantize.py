"""Quantizing a 16-bit GGUF with llama.cpp's own quantizer, by the name of the type."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp._logger import llama_log_callback

from snaketune.config.schema import did_you_mean
from snaketune.errors import ConfigError, PackageError
from snaketune.files import StrPath, replacing
from snaketune.runtime import progress

GGML_TYPES = 43  # of ggml's enum ggml_type in the pinned version
PREFIXES = ("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_")
NOT_MADE = frozenset({"nvfp4"})
"""Types that the pinned llama.cpp names, and refuses to make at all."""


def types() -> dict[str, int]:
    """The types that the installed llama.cpp can make here: name in lower case -> its number."""
    return {
        key.removeprefix(prefix).lower(): number
        for prefix in PREFIXES
        for key, number in vars(llama_cpp).items()
        if key.startswith(prefix) and key.removeprefix(prefix).lower() not in NOT_MADE
    }


def check_type(name: str) -> int:
    """The number of a type; raises ConfigError with the nearest name if there is no such type."""
    known = types()
    if name.lower() not in known:
        raise ConfigError(
            f'llama.cpp has no type "{name}"{did_you_mean(name.lower(), known)}',
            where="package.gguf",
            fix=f"Types: {', '.join(sorted(known))}",
        )
    return known[name.lower()]


def quantize(
    source: StrPath,
    target: StrPath,
    type_name: str,
    *,
    threads: int,
    imatrix: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write `target`, the GGUF `source` in the type `type_name`; the same bytes for any number of threads.

    imatrix: an importance matrix, the mean squares of the inputs by the tensors' names (`Importance.mean_squares`).

    Rows whose length the type cannot hold fall back to another one in silence: `GGUFHeader.tensor_types` of the result
    says what was used. Raises ConfigError for an unknown type and PackageError when llama.cpp refuses, for instance a
    source that is quantized already.
    """
    number = check_type(type_name)
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = number
    settings.nthread = threads
    if imatrix is not None:
        settings.imatrix = imatrix_entries(imatrix)
    with (
        replacing(target) as temporary,
        keeping_words() as words,
        progress.watching(temporary, f"quantizing {progress.format_bytes(Path(source).stat().st_size)}, written"),
    ):
        failed = llama_cpp.llama_model_quantize(str(source).encode(), str(temporary).encode(), ctypes.byref(settings))
        if failed or not temporary.is_file():
            raise PackageError(
                f"llama.cpp could not quantize it to {type_name}: {words[-1] if words else f'code {failed}'}",
                where=str(source),
                fix=f"Delete {Path(source).name} and run snakemake again; it must be a whole 16-bit file",
            )


def imatrix_entries(imatrix: Mapping[str, np.ndarray]) -> ctypes.Array[llama_cpp.llama_model_imatrix_data]:
    """The matrix as llama.cpp takes it: an entry for each tensor, and one without a name at the end."""
    entries = (llama_cpp.llama_model_imatrix_data * (len(imatrix) + 1))()
    for entry, (name, values) in zip(entries, imatrix.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return entries


TIMED_ROWS, TIMED_WIDTH = 128, 4096  # of the matrix whose quantization is timed


def weights_per_second(type_name: str) -> float:
    """How many weights a thread of this machine quantizes in a second, to the type that most of such a file has.

    All inputs count alike, for the types that are not made without an importance matrix.
    """
    library = ctypes.CDLL(str(next((Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.*"))))
    library.ggml_type_name.restype = ctypes.c_char_p
    sizes = [ctypes.c_int64] * 3  # the first number, rows, their width
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *sizes, ctypes.c_void_p]
    numbers = {(library.ggml_type_name(number) or b"").decode().lower(): number for number in range(GGML_TYPES)}
    weights = np.random.default_rng(1).standard_normal((TIMED_ROWS, TIMED_WIDTH), dtype=np.float32)
    quantized = np.empty(weights.nbytes, np.uint8)
    alike = np.ones(TIMED_WIDTH, np.float32)
    source, target, importance = weights.ctypes.data, quantized.ctypes.data, alike.ctypes.data
    number = _main_type(type_name, numbers)
    library.ggml_quantize_init(number)  # tables that are made once
    started = time.perf_counter()
    library.ggml_quantize_chunk(number, source, target, 0, TIMED_ROWS, TIMED_WIDTH, importance)
    return weights.size / (time.perf_counter() - started)


def _main_type(type_name: str, numbers: dict[str, int]) -> int:
    """ggml's number of the type that most tensors of such a file have: q4_k of q4_k_m, iq3_s of iq3_m."""
    family = type_name.rpartition("_")[0]
    named = [type_name, family, f"{family}_s"]
    return next((numbers[name] for name in named if name in numbers), numbers["q8_0"])


@contextlib.contextmanager
def keeping_words() -> Iterator[list[str]]:
    """Keep what llama.cpp would print, a line for every tensor, for the case that it fails."""
    words: list[str] = []

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def keep(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        line = text.decode("utf-8", errors="replace").strip()
        if line:
            words.append(line)

    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    try:
        yield words
    finally:
        llama_cpp.llama_log_set(llama_log_callback, ctypes.c_void_p(0))
