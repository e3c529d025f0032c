"""Converts models and adapters to GGUF, by llama.cpp's own converters in a process of their own; reads GGUF headers.

The process alone imports torch. Its input is a symbolic link of a fixed name, because the converter writes what it
reads out of the folder's name into the file; so the bytes depend on the model and on `name`, not on where it lies.

A header is read without llama.cpp. Format: ggml's docs/gguf.md, version 3, little endian: magic, version, tensor count,
key count, the keys with typed values, then name, dimensions, type and offset of each tensor. Lists are passed over:
they are the vocabulary, up to half a million texts, and nothing here asks for them.
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from snaketune import files
from snaketune.contracts.package import FusedManifest
from snaketune.engines import get_exporter
from snaketune.engines.llama_cpp.convertible import LLAMA_CPP, pretokenizer
from snaketune.errors import PackageError, ResourceError, UserError, message_to_resource_error
from snaketune.files import Record, StrPath, dumps, replacing
from snaketune.model.manifest import read_manifest, stored_dtype
from snaketune.package.tokenizer_files import QUANTIZED
from snaketune.runtime.progress import watching

OUTTYPES = {"float16": "f16", "bfloat16": "bf16"}
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
SIZE = struct.Struct("<Q")  # of a text in bytes, which stands before it
ALIGNMENT = 32  # of the data, where no key says otherwise
TYPE_NAMES = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 9: "q8_1", 10: "q2_k", 11: "q3_k",
    12: "q4_k", 13: "q5_k", 14: "q6_k", 15: "q8_k", 16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s",
    20: "iq4_nl", 21: "iq3_s", 22: "iq2_s", 23: "iq4_xs", 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64",
    29: "iq1_m", 30: "bf16", 34: "tq1_0", 35: "tq2_0", 39: "mxfp4", 40: "nvfp4", 41: "q1_0", 42: "q2_0",
}  # fmt: skip
"""ggml's enum ggml_type, by number."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: `shape` with the row length first; `offset` in bytes from where the data begin."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int


@dataclass
class GGUFHeader:
    """What stands before the weights; metadata: each key's number, text or truth value, None where it is a list."""

    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    data_offset: int = 0
    """Where the data begin, in bytes from the file's beginning."""

    def tensor_types(self) -> dict[str, int]:
        """How many tensors of each type the file really holds, the commonest first."""
        return dict(Counter(tensor.type for tensor in self.tensors).most_common())

    def template(self) -> str | None:
        return self.metadata.get("tokenizer.chat_template")

    def parameters(self) -> int:
        """The number of weights."""
        total = 0
        for tensor in self.tensors:
            count = 1
            for size in tensor.shape:
                count *= size
            total += count
        return total


class _Reader:
    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.offset = content, 0

    def scalar(self, kind: str) -> Any:
        (value,) = struct.unpack_from(f"<{kind}", self.content, self.offset)
        self.offset += struct.calcsize(kind)
        return value

    def text(self) -> str:
        size = self.scalar("Q")
        if self.offset + size > len(self.content):
            raise ValueError("a text goes past the end of the file")
        found = self.content[self.offset : self.offset + size].decode("utf-8", errors="replace")
        self.offset += size
        return found

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.scalar(SCALARS[kind])
        return self.pass_over(self.scalar("I"), self.scalar("Q"))

    def pass_over(self, kind: int, count: int) -> None:
        """Go on after a list of so many values of a kind."""
        if kind == STRING:
            content, offset, end, size_at = self.content, self.offset, len(self.content), SIZE.unpack_from
            for _ in range(count):
                offset += 8 + size_at(content, offset)[0]
                if offset > end:
                    raise ValueError("a list goes past the end of the file")
            self.offset = offset
        elif kind == ARRAY:
            for _ in range(count):
                self.value(ARRAY)
        else:
            self.offset += count * struct.calcsize(SCALARS[kind])
            if self.offset > len(self.content):
                raise ValueError("a list goes past the end of the file")


def read(path: StrPath) -> GGUFHeader:
    """Read the header of a GGUF file; raises PackageError when it is damaged or of another format."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _header(_Reader(content))
    except (OSError, ValueError, KeyError, RecursionError, struct.error) as error:
        raise PackageError(
            f"this GGUF file is damaged ({error})",
            where=str(path),
            why="llama.cpp and Ollama would refuse it",
            fix=f"Delete {Path(path).name} and run snakemake again",
        ) from error


def _header(reader: _Reader) -> GGUFHeader:
    if reader.content[:4] != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    reader.offset = 4
    version = reader.scalar("I")
    if version not in (2, 3):
        raise ValueError(f"version {version}")
    tensors, keys = reader.scalar("Q"), reader.scalar("Q")
    header = GGUFHeader()
    for _ in range(keys):
        key = reader.text()
        header.metadata[key] = reader.value(reader.scalar("I"))
    for _ in range(tensors):
        name = reader.text()
        shape = tuple(reader.scalar("Q") for _ in range(reader.scalar("I")))
        number = reader.scalar("I")
        header.tensors.append(Tensor(name, shape, TYPE_NAMES.get(number, f"type {number}"), reader.scalar("Q")))
    alignment = header.metadata.get("general.alignment", ALIGNMENT)
    if reader.offset > len(reader.content) or not isinstance(alignment, int) or alignment < 1:
        raise ValueError("its header goes past its end, or says of no place where the weights begin")
    header.data_offset = -(-reader.offset // alignment) * alignment
    return header


def export_adapter(*, model: StrPath, adapter: StrPath, peft: StrPath, lora: StrPath, threads: int = 1) -> None:
    """Write the folder `peft` and the GGUF `lora` of an adapter (its adapters.safetensors) to the base `model`.

    Raises PackageError for DoRA, full fine-tunes and experts, which a LoRA file cannot hold.
    """
    base = read_manifest(model)
    exported = get_exporter().peft_adapter(Path(adapter).parent)
    config = exported.config | {"base_model_name_or_path": base.base}
    with files.atomic_folder(Path(peft)) as folder:
        save_file(exported.tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        files.write_json(folder / "adapter_config.json", config)
        _convert(folder, base.folder, lora, threads)


def _convert(folder: Path, base: StrPath, lora: StrPath, threads: int) -> None:
    with replacing(lora) as temporary, tempfile.TemporaryDirectory() as scratch:
        adapter, under = Path(scratch) / "adapter", Path(scratch) / "base"
        adapter.symlink_to(folder.resolve(), target_is_directory=True)
        under.symlink_to(Path(base).expanduser().resolve(), target_is_directory=True)
        options = [str(adapter), "--base", str(under), "--outfile", str(temporary.resolve()), "--outtype", "f32"]
        run_converter("convert_lora_to_gguf.py", options, source=folder, threads=threads)


LORA_BASE = "lora-base.gguf"
OF_THE_BASE = ("config.json", "*.safetensors", "model.safetensors.index.json")


def convert_lora_base(run: Path) -> Path:
    """Write the base as a GGUF into the folder of a packaged run, for llama.cpp to load the adapter over it.

    Its weights are the base's; tokenizer, chat template and generation settings are the fused model's: both read what
    was trained. Raises PackageError without a fused model, and for a quantized base, which no GGUF holds as it is.
    """
    manifest = run / "model" / "fused.json"
    if not manifest.is_file():
        raise PackageError(
            f"{manifest} is missing", where=str(run), fix="Run `snakemake package` with its configuration"
        )
    fused = files.read_json(manifest, FusedManifest)
    base = Path(read_manifest(run / "model" / "base.json").folder).expanduser()
    if any(key in files.read_json(base / "config.json") for key in QUANTIZED):
        raise PackageError(
            "the base of this run is quantized, and cannot be written as a GGUF as it is",
            where=str(base),
            fix="Serve the fused model's GGUF; mlx_lm loads the adapter over this base",
        )
    own = {path.name: path for pattern in OF_THE_BASE for path in base.glob(pattern)}
    weights = {path.name for pattern in OF_THE_BASE for path in Path(fused.folder).glob(pattern)}
    others = {path.name: path for path in Path(fused.folder).iterdir() if path.is_file() and path.name not in weights}
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in (own | others).items():
            Path(scratch, name).symlink_to(path.resolve())
        convert(scratch, run / LORA_BASE, name=base.name, outtype=OUTTYPES[fused.gguf_dtype])
    return run / LORA_BASE


RESOURCES = ("converter_process.py",)
PROCESS = Path(__file__).with_name(RESOURCES[0])
LAST_LINES = 15  # of the converter's output in a message


class MergeSource(Record, frozen=True, kw_only=True):
    """What the weights of a fused model are computed from without rounding: the folders of its base and its adapter.

    outtype: f16 or bf16; by_chance: whether matrices are rounded to it by chance (`sixteen_bit.dithered`); drop_prefix:
    see `Exporter.fuse`.
    """

    base: str
    adapter: str
    drop_prefix: str
    outtype: str
    by_chance: bool


def merge_source(manifest: StrPath, model: StrPath, adapter: StrPath) -> MergeSource:
    """What the unrounded weights of a fused model are computed from: its base's manifest and its adapter."""
    fused = files.read_json(manifest, FusedManifest)
    base = Path(read_manifest(model).folder).expanduser()
    return MergeSource(
        base=str(base),
        adapter=str(Path(adapter).parent),
        drop_prefix=fused.drop_prefix,
        outtype=OUTTYPES[fused.gguf_dtype],
        by_chance=_is_in_16_bits(files.read_json(base / "config.json")),
    )


def _is_in_16_bits(config: Mapping[str, object]) -> bool:
    """Whether the weights of a base lie on the grid of a 16-bit format; those of another fall anywhere between."""
    return stored_dtype(config) != "float32" and not any(key in config for key in QUANTIZED)


def convert(
    folder: StrPath,
    target: StrPath,
    *,
    name: str,
    outtype: str = "f16",
    merge: MergeSource | None = None,
    threads: int = 1,
) -> None:
    """Write the model in `folder` as the GGUF file `target`, in `outtype` (f32, f16 or bf16).

    `name` becomes general.name in it. merge: takes the weights unrounded from there, and its outtype; configuration and
    tokenizer are the folder's all the same. Raises PackageError with the converter's last lines when it fails.
    """
    total = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
    with (
        replacing(target) as temporary,
        tempfile.TemporaryDirectory() as scratch,
        watching(temporary, "converting", total or None),
    ):
        link = Path(scratch) / "model"
        link.symlink_to(Path(folder).resolve(), target_is_directory=True)
        outtype = merge.outtype if merge else outtype
        run_converter(
            "convert_hf_to_gguf.py",
            [str(link), "--outfile", str(temporary.resolve()), "--outtype", outtype, "--model-name", name],
            source=folder,
            threads=threads,
            instead=Instead(pretokenizer=pretokenizer(folder), merge=merge),
        )


class Instead(Record, frozen=True, kw_only=True):
    """What the converter is given in the place of what it would find.

    pretokenizer: the name to write for a tokenizer that it does not know; merge: where the weights come from.
    """

    pretokenizer: str | None = None
    merge: MergeSource | None = None


def run_converter(
    script: str, options: list[str], *, source: StrPath, threads: int, instead: Instead | None = None
) -> None:
    """Run one of llama.cpp's converters to its end; raises PackageError with its last lines if it fails.

    source: what is converted, for the message.
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
        [sys.executable, str(PROCESS), str(LLAMA_CPP), script, dumps(instead or Instead()), *options],
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


if __name__ == "__main__":
    try:
        print(f"snaketune: wrote {convert_lora_base(Path(sys.argv[1]))}")
    except UserError as error:
        raise SystemExit(f"snaketune: {error}") from None
