"""Writes run.json: what a run was made of, so that it can be made again. No times, so that it stays the same.

Versions, machine, code, inputs, seeds and model; neither the machine's name nor its owner.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from snaketune.config import schema as configuration
from snaketune.files import Record, StrPath, read_json, sha256, write_json
from snaketune.runtime.locks import JOURNAL, OutputJournal
from snaketune.version import RELEASED, VERSION

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = (
    "snakemake mlx mlx-lm numpy scipy-openblas32 llama-cpp-python transformers tokenizers safetensors torch jinja2 "
    "msgspec rensa pandas pyarrow sacrebleu matplotlib"
).split()
CONVERTER = ROOT / "vendor" / "llama.cpp"


class FileDigest(Record, frozen=True, kw_only=True):
    """A file: its path as given, its size and its SHA-256."""

    path: str
    bytes: int
    sha256: str


class CodeState(Record, frozen=True, kw_only=True):
    """The code that ran: its commit, whether tracked files differ from it, and a digest of scripts and rules."""

    commit: str | None
    changed: bool
    digest: str


class ModelOrigin(Record, frozen=True, kw_only=True):
    """The base model: what it is, its files by size and SHA-256, and the digest of the chat template in use."""

    base: str | None
    revision: str | None
    files: dict[str, dict[str, int | str]]
    template_sha256: str | None


class LlamaCppBuild(Record, frozen=True, kw_only=True):
    """The build behind llama-cpp-python, and the converter's commit or tag where its sources say it."""

    binding: str | None
    converter: str | None
    converter_sha256: str | None


class Platform(Record, frozen=True, kw_only=True):
    """The kind of machine; memory in bytes."""

    system: str
    release: str
    architecture: str
    processor: str
    cores: int | None
    memory_bytes: int


class RunRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """run.json. `products` are the files handed over; `fused` is the fused model's manifest, if there is one.

    test_split: what evaluation/opened.json says of a sealed one.
    """

    run: str
    seed: int
    config_sha256: str
    code: CodeState
    sources: list[FileDigest]
    model: ModelOrigin
    products: list[FileDigest]
    llama_cpp: LlamaCppBuild
    versions: dict[str, str]
    platform: Platform
    fused: Any = None
    test_split: Any = None


class RunInputs(Record, frozen=True, kw_only=True):
    """The files that run.json describes.

    config: the run's config.json; sources: its data files; model: the base model's manifest; template_sha256: of the
    chat template that the run renders with; fused: the fused model's manifest; opened: the
    use of a sealed test split; products: the files handed over.
    """

    config: str
    sources: list[str]
    model: str
    template_sha256: str | None = None
    fused: str | None = None
    opened: str | None = None
    products: tuple[str, ...] = ()


def write_run_record(inputs: RunInputs, record: StrPath) -> RunRecord:
    """Write run.json and return it. Paths are recorded as given.

    Products that the journal of the results knows are not read for their digests: they are as large as models.
    """
    journal = OutputJournal(Path(record).parents[1] / JOURNAL)
    config, manifest = read_json(inputs.config), read_json(inputs.model)
    found = RunRecord(
        run=config["run"],
        seed=config["seed"],
        config_sha256=hashlib.sha256(configuration.canonical(config).encode()).hexdigest(),
        code=code_state(),
        sources=[file_digest(path, journal) for path in inputs.sources],
        model=ModelOrigin(
            base=manifest.get("base"),
            revision=manifest.get("revision"),
            files=manifest.get("files", {}),
            template_sha256=inputs.template_sha256,
        ),
        products=[file_digest(path, journal) for path in inputs.products],
        llama_cpp=llama_cpp_build(),
        versions=versions(),
        platform=platform_info(),
        fused=read_json(inputs.fused) if inputs.fused and Path(inputs.fused).is_file() else None,
        test_split=read_json(inputs.opened) if inputs.opened else None,
    )
    write_json(record, found)
    return found


def file_digest(path: StrPath, journal: OutputJournal) -> FileDigest:
    return FileDigest(path=os.fspath(path), bytes=Path(path).stat().st_size, sha256=journal.digest(path))


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that shape a run's bytes."""
    found = {"snaketune": VERSION, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def platform_info() -> Platform:
    """The kind of this machine."""
    return Platform(
        system=platform.system(),
        release=platform.release(),
        architecture=platform.machine(),
        processor=_processor(),
        cores=os.cpu_count(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def _processor() -> str:
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


def code_state(root: StrPath = ROOT) -> CodeState:
    """The state of this workflow's code."""
    commit = _output("git", "-C", os.fspath(root), "rev-parse", "HEAD")
    changed = _output("git", "-C", os.fspath(root), "status", "--porcelain", "--untracked-files=no") if commit else ""
    return CodeState(commit=commit or None, changed=bool(changed), digest=source_tree_digest(root))


def source_tree_digest(root: StrPath = ROOT) -> str:
    """SHA-256 over the names and contents of the Snakefile, rules, scripts and schemas: what git cannot say."""
    digest = hashlib.sha256()
    folder = Path(root)
    patterns = (
        "Snakefile",
        "rules/**/*.smk",
        "rules/**/*.py",
        "scripts/**/*.py",
        "scripts/**/*.jinja",
        "schemas/*.yaml",
    )
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def llama_cpp_build(converter: Path = CONVERTER) -> LlamaCppBuild:
    """The build of llama.cpp that the run used."""
    try:
        binding: str | None = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        binding = None
    named = [converter / name for name in ("VERSION", "COMMIT", "REVISION")]
    version = next((path.read_text(encoding="utf-8").strip() for path in named if path.is_file()), None)
    script = converter / "convert_hf_to_gguf.py"
    return LlamaCppBuild(
        binding=binding,
        converter=version,
        converter_sha256=sha256(script) if script.is_file() else None,
    )


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def version_lines() -> list[str]:
    """What `make version` prints: the version of this project and its code, then what its results depend on."""
    code = code_state()
    at = f", commit {code.commit[:12]}{' with changes' if code.changed else ''}" if code.commit else ""
    own, *others = versions().items()
    return [f"{own[0]} {own[1]}, released {RELEASED}{at}", *(f"{name} {version}" for name, version in others)]


if __name__ == "__main__":
    print("\n".join(version_lines()))
