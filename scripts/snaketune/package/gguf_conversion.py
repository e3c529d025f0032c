"""Conversion from Hugging Face format to GGUF, by llama.cpp's own converters in a process of their own.

The process alone imports torch. Its input is a symbolic link of a fixed name, because the converter writes what it
reads out of the folder's name into the file; so the bytes depend on the model and on `name`, not on where it lies.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from snaketune.engines.llama_cpp.convertible import LLAMA_CPP, pretokenizer
from snaketune.errors import PackageError, ResourceError, message_to_resource_error
from snaketune.files import StrPath, replacing

RESOURCES = ("converter_process.py",)
PROCESS = Path(__file__).with_name(RESOURCES[0])
LAST_LINES = 15  # of the converter's output in a message


def convert(folder: StrPath, target: StrPath, *, name: str, outtype: str = "f16", threads: int = 1) -> None:
    """Write the model in `folder` as the GGUF file `target`, in `outtype` (f32, f16 or bf16).

    `name` becomes general.name in it. Raises PackageError with the converter's last lines when it fails.
    """
    with replacing(target) as temporary, tempfile.TemporaryDirectory() as scratch:
        link = Path(scratch) / "model"
        link.symlink_to(Path(folder).resolve(), target_is_directory=True)
        run_converter(
            "convert_hf_to_gguf.py",
            [str(link), "--outfile", str(temporary.resolve()), "--outtype", outtype, "--model-name", name],
            source=folder,
            threads=threads,
            pretokenizer=pretokenizer(folder),
        )


def run_converter(
    script: str, options: list[str], *, source: StrPath, threads: int, pretokenizer: str | None = None
) -> None:
    """Run one of llama.cpp's converters to its end; raises PackageError with its last lines if it fails.

    source: what is converted, for the message; pretokenizer: the name to write for a tokenizer that the converter does
    not know.
    """
    if not (LLAMA_CPP / script).is_file():
        raise ResourceError(
            f"llama.cpp's {script} is not there", where=str(LLAMA_CPP), fix="Run `make setup`, which unpacks it"
        )
    quiet = {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }
    done = subprocess.run(
        [sys.executable, str(PROCESS), str(LLAMA_CPP), script, pretokenizer or "-", *options],
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()][-LAST_LINES:]
        raise message_to_resource_error(_last_line(lines), str(source)) or PackageError(
            f"llama.cpp's {script} failed: {_last_line(lines)}",
            where=str(source),
            why="\n".join(["Its last lines were:", *lines]) + "\n",
            fix="If the base is of a kind that it does not know, choose another base or a newer llama.cpp",
        )


def _last_line(lines: list[str]) -> str:
    return lines[-1].strip() if lines else "it printed nothing"
