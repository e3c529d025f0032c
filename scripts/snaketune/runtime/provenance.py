"""What a run was made of, so that it can be made again: versions, machine, code, inputs, seeds, model. No clock."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snaketune.config import schema as configuration
from snaketune.files import StrPath, read_json, sha256, write_json

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = (
    "snakemake mlx mlx-lm numpy scipy-openblas32 llama-cpp-python transformers tokenizers safetensors torch jinja2 "
    "msgspec rensa pandas pyarrow sacrebleu matplotlib"
).split()
CONVERTER = ROOT / "vendor" / "llama.cpp"


def run(
    *,
    config: StrPath,
    sources: Iterable[StrPath],
    model: StrPath,
    record: StrPath,
    template_sha256: str | None = None,
    fused: StrPath | None = None,
    products: Iterable[StrPath] = (),
) -> dict[str, Any]:
    """Write run.json.

    config: the run's config.json; sources: its data files; model: the base model's manifest; template_sha256: of the
    chat template that the run renders with; fused: the fused model's manifest, if there is one; products: files
    handed over, recorded by size and SHA-256. Paths are recorded as given.
    """
    settings = read_json(config)
    manifest = read_json(model)
    found = {
        "run": settings["run"],
        "seed": settings["seed"],
        "config_sha256": hashlib.sha256(configuration.canonical(settings).encode()).hexdigest(),
        "code": code(),
        "sources": [fingerprint(path) for path in sources],
        "model": {
            "base": manifest.get("base"),
            "revision": manifest.get("revision"),
            "files": manifest.get("files", {}),
            "template_sha256": template_sha256,
        },
        "products": [fingerprint(path) for path in products],
        "llama_cpp": llama_cpp(),
        "versions": versions(),
        "platform": machine(),
    }
    if fused is not None and Path(fused).is_file():
        found["fused"] = read_json(fused)
    write_json(record, found)
    return found


def fingerprint(path: StrPath) -> dict[str, Any]:
    """A file's path as given, size and SHA-256."""
    return {"path": os.fspath(path), "bytes": Path(path).stat().st_size, "sha256": sha256(path)}


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that shape a run's bytes."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What kind of machine this is: system, processor, cores, memory in bytes; neither its name nor its owner."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _processor() -> str:
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


def code(root: StrPath = ROOT) -> dict[str, Any]:
    """The commit of this workflow, whether tracked files differ from it, and a digest of scripts and rules."""
    commit = _output("git", "-C", os.fspath(root), "rev-parse", "HEAD")
    changed = _output("git", "-C", os.fspath(root), "status", "--porcelain", "--untracked-files=no") if commit else ""
    return {"commit": commit or None, "changed": bool(changed), "digest": code_digest(root)}


def code_digest(root: StrPath = ROOT) -> str:
    """SHA-256 over the names and contents of the Snakefile, rules, scripts and schemas: what git cannot say."""
    digest = hashlib.sha256()
    folder = Path(root)
    patterns = ("Snakefile", "rules/*.smk", "scripts/**/*.py", "scripts/**/*.jinja", "schemas/*.yaml")
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def llama_cpp(converter: Path = CONVERTER) -> dict[str, str | None]:
    """The build behind llama-cpp-python, and the commit or tag of the converter's sources where they say it."""
    try:
        binding: str | None = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        binding = None
    named = [converter / name for name in ("VERSION", "COMMIT", "REVISION")]
    said = next((path.read_text(encoding="utf-8").strip() for path in named if path.is_file()), None)
    script = converter / "convert_hf_to_gguf.py"
    return {
        "binding": binding,
        "converter": said,
        "converter_sha256": sha256(script) if script.is_file() else None,
    }


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
