"""From a folder in Hugging Face format to a 16-bit GGUF, by llama.cpp's own converter in a process of its own.

The process alone imports torch. Its input is a symbolic link of a fixed name, because the converter writes what it
reads out of the folder's name into the file; so the bytes depend on the model and on `name`, not on where it lies.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from snaketune.config.schema import did_you_mean
from snaketune.errors import ModelError, PackageError, ResourceError
from snaketune.files import StrPath, read_json, replacing
from snaketune.package.pretokenizer import pretokenizer
from snaketune.runtime import os_errors

LLAMA_CPP = Path(__file__).resolve().parents[3] / "vendor" / "llama.cpp"
RESOURCES = ("converter_process.py",)
PROCESS = Path(__file__).with_name(RESOURCES[0])
SHOWN = 15  # lines of the converter's own words in a message


def convert(folder: StrPath, target: StrPath, *, name: str, outtype: str = "f16", threads: int = 1) -> None:
    """Write the model in `folder` as the GGUF file `target`, in `outtype` (f32, f16 or bf16).

    `name` becomes general.name in it. Raises PackageError with the converter's last words when it fails.
    """
    with replacing(target) as temporary, tempfile.TemporaryDirectory() as scratch:
        link = Path(scratch) / "model"
        link.symlink_to(Path(folder).resolve(), target_is_directory=True)
        run(
            "convert_hf_to_gguf.py",
            [str(link), "--outfile", str(temporary.resolve()), "--outtype", outtype, "--model-name", name],
            pre=pretokenizer(folder),
            about=folder,
            threads=threads,
        )


def run(script: str, options: list[str], *, pre: str | None, about: StrPath, threads: int) -> None:
    """Run one of llama.cpp's converters to its end; its last words are told if it fails."""
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
        [sys.executable, str(PROCESS), str(LLAMA_CPP), script, pre or "-", *options],
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()][-SHOWN:]
        raise os_errors.in_words(_reason(words), str(about)) or PackageError(
            f"llama.cpp's {script} failed: {_reason(words)}",
            where=str(about),
            why="\n".join(["Its last words were:", *words]) + "\n",
            fix="If the base is of a kind that it does not know, choose another base or a newer llama.cpp",
        )


def _reason(words: list[str]) -> str:
    return words[-1].strip() if words else "it said nothing"


def check_convertible(folder: StrPath) -> None:
    """Raise ModelError if the pinned converter does not know the architecture or tokenizer of the model in `folder`.

    Reads config.json and the tokenizer only, without torch, so that a run can be refused before it trains.
    """
    config = read_json(Path(folder) / "config.json")
    architectures = config.get("architectures") or ["none"]
    known = architecture_names()
    if architectures[0] not in known:
        raise ModelError(
            f"llama.cpp's converter does not know the architecture {architectures[0]}"
            f"{did_you_mean(architectures[0], known)}",
            where=str(folder),
            why="The trained model could not be made into a GGUF file",
            fix="Choose a base of another family: llama, qwen, gemma, mistral, phi or smollm",
        )
    if _needs_hash(Path(folder)) and pretokenizer(folder) is None and tokenizer_hash(folder) not in hashes():
        raise ModelError(
            "llama.cpp's converter does not know how this model's tokenizer splits text",
            where=str(folder),
            why="The trained model could not be made into a GGUF file that reads text as it was trained",
            fix="Choose another base, or a newer llama.cpp",
        )


def _needs_hash(folder: Path) -> bool:
    """Whether the tokenizer is of the byte-level BPE kind, which the converter knows by a hash."""
    path = folder / "tokenizer.json"
    if (folder / "tokenizer.model").is_file() or not path.is_file():
        return False
    model = read_json(path)["model"]
    return model.get("type") == "BPE" and not model.get("byte_fallback")


def tokenizer_hash(folder: StrPath) -> str:
    """The hash by which the converter knows a tokenizer: SHA-256 over the ids of its own check text."""
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder, local_files_only=True).encode(_check_text())
    return hashlib.sha256(str(ids).encode()).hexdigest()


@functools.cache
def architecture_names() -> frozenset[str]:
    """The text architectures that the pinned converter has, read from its source without running it."""
    tree = ast.parse((LLAMA_CPP / "conversion" / "__init__.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "TEXT_MODEL_MAP" and node.value:
            return frozenset(ast.literal_eval(node.value))
    raise ResourceError("llama.cpp's converter is not the one this version was made for", where=str(LLAMA_CPP))


@functools.cache
def _hash_function() -> ast.FunctionDef:
    tree = ast.parse((LLAMA_CPP / "conversion" / "base.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "get_vocab_base_pre":
            return node
    raise ResourceError("llama.cpp's converter is not the one this version was made for", where=str(LLAMA_CPP))


@functools.cache
def hashes() -> frozenset[str]:
    """The tokenizer hashes in the converter's table."""
    constants = (node.value for node in ast.walk(_hash_function()) if isinstance(node, ast.Constant))
    return frozenset(value for value in constants if isinstance(value, str) and len(value) == 64)


def _check_text() -> str:
    for node in ast.walk(_hash_function()):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "chktxt":
            return ast.literal_eval(node.value)
    raise ResourceError("llama.cpp's converter is not the one this version was made for", where=str(LLAMA_CPP))
