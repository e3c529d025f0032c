"""Build the environment of one trainer of the field, .trainers/<name>, from its pins in envs/trainers/<name>.txt.

With the standard library alone. What is already right is skipped; an interrupted build starts again, because an
environment counts as built only when its stamp, the SHA-256 of the pins, stands.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / "envs" / "trainers"
ENVIRONMENTS = ROOT / ".trainers"
STAMP = ".pins"
PYTHON_OF = re.compile(r"^# .*Python (3\.\d+) only", re.M)
NEEDS_CUDA = ("torchvision", "torchaudio")
"""The builds of these on PyPI for Linux need CUDA; beside a torch without it they break every import of PEFT."""


class SetupError(Exception):
    """One sentence: what is missing, and what to do."""


def main(name: str) -> None:
    known = sorted(path.stem for path in PINS.glob("*.txt"))
    if name not in known:
        raise SetupError(f'there is no trainer "{name}". Choose one: make trainer NAME={" | ".join(known)}')
    pins, folder = PINS / f"{name}.txt", ENVIRONMENTS / name
    stamp = folder / STAMP
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest and (folder / "bin" / "python").exists():
        print(f"snaketune: the trainer {name} is set up")
        return
    began = time.monotonic()
    print(f"snaketune: building .trainers/{name} ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    run([_python(pins), "-m", "venv", str(folder)])
    own = str(folder / "bin" / "python")
    run([own, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-r", str(pins)])
    if _is_without_cuda(own):
        run([own, "-m", "pip", "--disable-pip-version-check", "uninstall", "--quiet", "--yes", *NEEDS_CUDA])
    stamp.write_text(digest)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"snaketune: the trainer {name} is set up ({time.monotonic() - began:.0f} s, {size / 1e9:.1f} GB)")


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
