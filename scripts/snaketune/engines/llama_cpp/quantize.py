"""Quantizing a 16-bit GGUF with llama.cpp's own quantizer, by the name of the type."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp._logger import llama_log_callback

from snaketune.config.schema import did_you_mean
from snaketune.errors import ConfigError, PackageError
from snaketune.files import StrPath, replacing
from snaketune.runtime import progress

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
