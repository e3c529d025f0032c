"""Build the environment of one trainer of the field, .trainers/<name>, from its pins in envs/trainers/<name>.txt.

With the standard library alone. What is already right is skipped; an interrupted build starts again, because an
environment counts as built only when its stamp, the SHA-256 of the pins, stands.

A trainer whose pins are the versions of the set-up, as far as the set-up has those packages, reads them from there: it
takes seconds and a few megabytes instead of a second torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from commands import ENVIRONMENT, ROOT, SetupError

PINS = ROOT / "envs" / "trainers"
TOOLS = ROOT / "envs" / "tools"
ENVIRONMENTS = ROOT / ".trainers"
STAMP = ".pins"
SHARED = "set_up.pth"  # names the folder of the packages that are the set-up's, seen from its own
PIN = re.compile(r"^([\w.-]+)(?:\[[\w,]+\])?==([\w.!+]+)", re.M)
PYTHON_OF = re.compile(r"^# .*Python (3\.\d+) only", re.M)
NEEDS_CUDA = ("torchvision", "torchaudio")
"""The builds of these on PyPI for Linux need CUDA; beside a torch without it they break every import of PEFT."""


def main(name: str) -> None:
    """Build the environment of a trainer, unless it stands, and say so."""
    known = sorted(path.stem for folder in (PINS, TOOLS) for path in folder.glob("*.txt"))
    if name not in known:
        raise SetupError(f'there is no trainer "{name}". Choose one: make trainer NAME={" | ".join(known)}')
    if is_built(name):
        print(f"snaketune: the trainer {name} is set up")
        return
    print(f"snaketune: building .trainers/{name} ...", flush=True)
    print(f"snaketune: the trainer {name} is set up ({build(name)})")


def is_built(name: str) -> bool:
    """Whether the environment stands, with these pins, and finds the packages that it shares in this project's set-up.

    An earlier version wrote their folder's whole path: after the project was moved it is not there, and after it was
    copied it is the original's.
    """
    folder = ENVIRONMENTS / name
    stamp, python = folder / STAMP, folder / "bin" / "python"
    links = folder.glob(f"lib/python3.*/site-packages/{SHARED}")
    shared = [Path(os.path.normpath(link.parent / link.read_text().strip())) for link in links]
    is_of_these_pins = stamp.is_file() and stamp.read_text() == digest(name)
    return is_of_these_pins and python.exists() and all(map(_is_of_set_up, shared))


def _is_of_set_up(packages: Path) -> bool:
    return packages.is_dir() and packages.resolve().is_relative_to(ENVIRONMENT.resolve())


def digest(name: str) -> str:
    """The SHA-256 of a trainer's pins."""
    return hashlib.sha256(pins_of(name).read_bytes()).hexdigest()


def pins_of(name: str) -> Path:
    """The file with the pins of a trainer, or of a tool that is none."""
    pins = PINS / f"{name}.txt"
    return pins if pins.is_file() else TOOLS / f"{name}.txt"


def build(name: str) -> str:
    """Build the environment of a trainer anew; returns what it took."""
    pins, folder = pins_of(name), ENVIRONMENTS / name
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    shared = shared_packages(pins.read_text())
    run([str(ENVIRONMENT / "bin" / "python") if shared else _python(pins), "-m", "venv", str(folder)])
    own = str(folder / "bin" / "python")
    if shared:
        share(shared, folder)
    run([own, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-r", str(pins)])
    if not shared and _is_without_cuda(own):
        run([own, "-m", "pip", "--disable-pip-version-check", "uninstall", "--quiet", "--yes", *NEEDS_CUDA])
    (folder / STAMP).write_text(digest(name))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    beside = ", the rest is that of .venv" if shared else ""
    return f"{time.monotonic() - began:.0f} s, {size / 1e9:.2f} GB{beside}"


def shared_packages(pins: str) -> Path | None:
    """The folder of the set-up's packages, where those that the pins name too are of the same versions."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        return None
    probe = (
        "import importlib.metadata, json, sysconfig\n"
        "found = {one.name: one.version for one in importlib.metadata.distributions()}\n"
        "print(json.dumps([sysconfig.get_path('purelib'), found]))"
    )
    done = subprocess.run([str(python), "-c", probe], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return None
    folder, found = json.loads(done.stdout)
    have = {_normal(name): version.partition("+")[0] for name, version in found.items()}
    wanted = {_normal(name): version for name, version in PIN.findall(pins)}
    common = wanted.keys() & have.keys()
    return Path(folder) if "transformers" in common and all(wanted[name] == have[name] for name in common) else None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def share(packages: Path, folder: Path) -> None:
    """Let an environment find these packages after its own, also where both are moved or copied together."""
    (own,) = folder.glob("lib/python3.*/site-packages")
    (own / SHARED).write_text(f"{os.path.relpath(packages, own)}\n")


def _python(pins: Path) -> str:
    """The interpreter to build with: this one, unless the pins are for one version only."""
    only = PYTHON_OF.search(pins.read_text())
    if only is None or only[1] == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    found = shutil.which(f"python{only[1]}")
    if found is None:
        raise SetupError(f"this trainer needs Python {only[1]}, which was not found. Install it and run make again.")
    return found


def _is_without_cuda(python: str) -> bool:
    """Whether the environment has a torch that was built without CUDA, on Linux."""
    probe = (
        "import importlib.util, sys\n"
        "sys.exit(importlib.util.find_spec('torch') is None or __import__('torch').version.cuda is not None)"
    )
    return sys.platform == "linux" and subprocess.run([python, "-c", probe], check=False).returncode == 0


def run(command: list[str]) -> None:
    """Run a command; a failure ends the build with its last words."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        last = next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "no words")
        raise SetupError(f"{Path(command[0]).name} {' '.join(command[1:4])} stopped: {last.strip()}")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "")
    except SetupError as error:
        print(f"snaketune: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("\nsnaketune: interrupted; run make again to start the build anew.", file=sys.stderr)
        raise SystemExit(130) from None
