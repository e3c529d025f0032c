"""Chooses and installs the build of torch that this machine can use.

Since 2.11 the package index gives Linux the CUDA build of `torch==X`: 2.6 GB to download, 6 GB on disk. A machine
without an NVIDIA card has no use for it, so it gets `torch==X+cpu`, a version that no other build can satisfy: from
where PyTorch publishes it, else from what pip is configured with. Only where neither has it the CUDA build is taken,
and its size said.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from commands import ENVIRONMENT, LOG, ROOT, CommandFailed, SetupError, pip
from progress_line import ProgressLine, size

PYTORCH_INDEX = "https://download.pytorch.org/whl/cpu"
PATIENCE = ("--retries", "2", "--timeout", "15")  # where PyTorch's index is out of reach, pip's own index is next
CUDA_PACKAGES = re.compile(r"^(nvidia|cuda|triton)\b", re.IGNORECASE)
WSL_NVIDIA_SMI = "/usr/lib/wsl/lib/nvidia-smi"
CUDA_DOWNLOAD = 2.6e9  # of torch 2.13.0, where the index does not tell
CUDA_DISK_RATIO = 2.3  # unpacked to downloaded, as measured for 2.13.0


@dataclass(frozen=True)
class Build:
    """Names what pip is asked for, and where it shall look besides its own configuration."""

    kind: str  # cpu, cuda, or plain where a platform has one build only
    requirement: str
    options: tuple[str, ...] = ()
    remark: str = ""


def pinned_version() -> str:
    """Return the version of torch in requirements.txt."""
    match = re.search(r"^torch==([\w.]+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert match is not None
    return match[1]


def nvidia_smi() -> str:
    """Return the path of the driver's program, as WSL has it where it is on no path."""
    return shutil.which("nvidia-smi") or WSL_NVIDIA_SMI


def nvidia_card() -> bool:
    """Tell whether a working NVIDIA driver is here."""
    try:
        listed = subprocess.run([nvidia_smi(), "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def wanted_kind(platform: str, engine: str) -> str:
    """Return which build a machine is to have: `cuda` for the torch engine on an NVIDIA card, else `cpu` on Linux."""
    if platform != "linux":
        return "plain"
    return "cuda" if engine == "torch" and nvidia_card() else "cpu"


def installed_kind(version: str) -> str | None:
    """Return the kind of the installed build, None where there is none of this version."""
    found = next(iter(ENVIRONMENT.glob("lib/python3.*/site-packages/torch-*.dist-info")), None)
    if found is None or found.stem.removeprefix("torch-").partition("+")[0] != version:
        return None
    if sys.platform != "linux":
        return "plain"
    return "cuda" if brings_cuda((found / "METADATA").read_text(encoding="utf-8").splitlines()) else "cpu"


def brings_cuda(metadata: Sequence[str]) -> bool:
    """Tell from the lines of a package's metadata (or its list of requirements) whether CUDA comes with it."""
    required = (line.removeprefix("Requires-Dist:").strip() for line in metadata)
    return any(CUDA_PACKAGES.match(line) and "extra ==" not in line for line in required)


def is_right(version: str, wanted: str) -> bool:
    """Tell whether what is installed serves: a CUDA build runs on the CPU as well, so it is never taken away."""
    installed = installed_kind(version)
    return installed is not None and (installed == wanted or (wanted == "cpu" and installed == "cuda"))


def install(version: str, wanted: str, line: ProgressLine) -> str:
    """Install the build that the machine is to have, or the next best, and return its kind."""
    if is_right(version, wanted):
        return installed_kind(version) or wanted
    line.update("looking for the build for this machine")
    index = os.environ.get("SNAKETUNE_PYTORCH_INDEX", PYTORCH_INDEX)
    if wanted == "cpu":
        for options in (("--index-url", index, *PATIENCE), ()):
            if _take(Build("cpu", f"torch=={version}+cpu", options), line):
                return "cpu"
    build = last_resort(version, wanted, index)
    if build.remark:
        line.say(build.remark)
    if not _take(build, line):
        raise SetupError(f"{build.requirement} was not found. `pip config list` says where pip looks (details: {LOG}).")
    return build.kind


def last_resort(version: str, wanted: str, index: str) -> Build:
    """Return the build that pip takes by itself, or the CUDA build for a card; a large one with its size."""
    if wanted == "plain":
        return Build("plain", f"torch=={version}")
    if wanted == "cuda":
        # a local version counts as newer than the plain one, so that the CPU build has to be ruled out
        cuda = Build("cuda", f"torch=={version},!={version}+cpu")
        return replace(cuda, remark=f"NVIDIA card found: the CUDA build, {_size_in_words(cuda)}")
    plain = Build("cpu", f"torch=={version}")
    found = _dry_run(plain, "--no-deps", "--ignore-installed")
    if not found:
        raise SetupError(
            f"no torch {version} was found, neither at {index} nor where pip is configured to look. Connect to the "
            f"network, or see `pip config list`, and run make again (details: {LOG})."
        )
    if not brings_cuda(found[0]["metadata"].get("requires_dist", [])):
        return plain
    remark = (
        f"no CPU build of torch {version} was found, at {index} or where pip is configured to look. "
        f"The CUDA build works too: {_size_in_words(plain)}; it takes its time, and nothing else is needed"
    )
    return replace(plain, kind="cuda", remark=remark)


def _take(build: Build, line: ProgressLine) -> bool:
    """Install a build, in place of one of another kind; False where pip finds none or reaches no index."""
    # what torch itself needs is in requirements.lock; only the CUDA build brings more
    alone = ["--no-deps"] if build.kind != "cuda" else []
    if any(ENVIRONMENT.glob("lib/python3.*/site-packages/torch-*.dist-info")):
        pip("uninstall", "--yes", "torch", line=line)
    try:
        pip("install", *build.options, *alone, build.requirement, line=line, watch=_what_pip_does)
    except CommandFailed as failure:
        if failure.is_network or failure.is_not_found:
            return False
        raise
    return True


def _what_pip_does(said: str) -> str:
    found = re.match(r"\s*(?:Downloading|Processing|Using cached) \S*?([\w.+-]+?-[\d.]+(?:\+\w+)?)-\S* ?(.*)", said)
    return f"{found[1]} {found[2]}".strip() if found else "unpacking" if said.startswith("Installing") else ""


def _dry_run(build: Build, *options: str) -> list[dict[str, Any]]:
    """Return what pip would install; nothing where it finds nothing or reaches no index."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        try:
            pip("install", "--dry-run", "--report", report, *build.options, *options, build.requirement)
        except CommandFailed as failure:
            if failure.is_network or failure.is_not_found:
                return []
            raise
        found: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return found


def _size_in_words(build: Build) -> str:
    """Say how much the build and all that it brings weigh, on the way and on the disk."""
    weights = [_content_length(part["download_info"]["url"]) for part in _dry_run(build)]
    known = [weight for weight in weights if weight is not None]
    exact = bool(weights) and len(known) == len(weights)
    download = sum(known) if exact else CUDA_DOWNLOAD
    return f"{'' if exact else 'about '}{size(download)} to download, about {size(download * CUDA_DISK_RATIO)} on disk"


def _content_length(url: str) -> int | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=15) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError):
        return None
