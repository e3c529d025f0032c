"""Where a trainer's environment is, and what its process finds in its surroundings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from snaketune.errors import ResourceError
from snaketune.runtime.code_digest import code_digest
from snaketune.trainers import BUILTIN, module_name
from snaketune.trainers.description import TrainerDescription

ROOM = Path(__file__).resolve().parent
DRIVERS = ROOM / "drivers"
PROJECT = ROOM.parents[2]
FOLDER = PROJECT / ".trainers"
PINS = PROJECT / "envs" / "trainers"
SHIM = PROJECT / "vendor" / "libblas_shim.so"
STAMP = ".pins"
"""In an environment, the SHA-256 of the pins that it was built from."""
SHARED = "set_up.pth"
"""Among an environment's packages, the file that names the folder of those that it reads from the set-up."""
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "AXOLOTL_DO_NOT_TRACK": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "WANDB_DISABLED": "true",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    "NO_COLOR": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Nothing of a training leaves the machine; the base is a folder already. Threads sleep while they wait for each other:
on a machine that other work keeps busy, waiting in a loop was measured to make a step 70 times longer."""


def pins(name: str) -> Path:
    """The file with a trainer's pins."""
    return PINS / f"{name}.txt"


def digest(name: str) -> str:
    """The SHA-256 of a trainer's pins."""
    return hashlib.sha256(pins(name).read_bytes()).hexdigest()


def python_of(name: str) -> Path:
    """The interpreter of a trainer's environment; raises ResourceError where it is not there, of other pins or reads
    another project's packages.

    An environment without a stamp is one that conda made.
    """
    folder = FOLDER / name
    python = folder / "bin" / "python"
    if not python.exists():
        raise ResourceError(
            f"the trainer {name} is not installed",
            where="train.trainer",
            why="Each trainer of the field has an environment of its own, which set-up leaves out",
            fix=f"Run `make trainer NAME={name}`, which builds .trainers/{name}, or set train.trainer: builtin",
        )
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text().strip() != digest(name):
        raise ResourceError(
            f"the environment of the trainer {name} was built from other pins than envs/trainers/{name}.txt",
            where=str(folder),
            why="Its results would be of other versions than the run says",
            fix=f"Run `make trainer NAME={name}` again",
        )
    check_packages(name, f"make trainer NAME={name}")
    return python


def check_packages(name: str, command: str) -> None:
    """Raise ResourceError where an environment reads packages that are not the set-up's of this project.

    That is so where the project was copied or moved after the environment was built; command: what builds it anew.
    """
    set_up = PROJECT / ".venv"
    for link in (FOLDER / name).glob(f"lib/python3.*/site-packages/{SHARED}"):
        packages = Path(os.path.normpath(link.parent / link.read_text().strip()))
        if not packages.is_dir() or not packages.resolve().is_relative_to(set_up.resolve()):
            raise ResourceError(
                f"the environment {name} reads the packages in {packages}, not those of this project",
                where=str(FOLDER / name),
                why="The project was copied or moved: what is changed or removed there would change or end runs here",
                fix=f"Run `{command}`, which builds it anew",
            )


def check_installed(names: Iterable[str]) -> None:
    """Raise ResourceError for the first of these trainers that is not installed."""
    for name in names:
        if name != BUILTIN:
            python_of(name)


def driver_of(name: str) -> Path:
    """The script that runs inside a trainer's environment."""
    return DRIVERS / f"run_{module_name(name)}.py"


def code_of(name: str) -> str:
    """The digest of what trains with a trainer: its module, its driver with what that imports, and its pins."""
    shared = sorted(path for path in DRIVERS.glob("*.py") if not path.name.startswith("run_"))
    return code_digest(ROOM / "train.py", ROOM / f"{module_name(name)}.py", driver_of(name), *shared, pins(name))


def variables(description: TrainerDescription, folder: Path) -> dict[str, str]:
    """The environment variables of a trainer's process, which works in `folder` and keeps its caches there."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    own = {"HF_DATASETS_CACHE": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    shim = {"SNAKETUNE_BLAS_SHIM": str(SHIM)} if SHIM.is_file() else {}
    binaries = str(FOLDER / description.name / "bin")
    return {
        **inherited,
        **QUIET,
        **own,
        **shim,
        **description.environment,
        "PATH": f"{binaries}{os.pathsep}{inherited.get('PATH', '')}",
    }
