"""Set up what the workflow runs on, with the standard library alone. Each part is skipped when it is already right.

The parts: a virtual environment (.venv), llama.cpp (its Python package and, in vendor/, its converter), the locked
packages, the build of torch for this machine, and the fast BLAS for MLX on a Linux CPU. An interrupted set-up goes on
where it stopped, because a part counts as done only when its stamp stands.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import command_script
import llama_build
import torch_build
import trainer
from commands import ENVIRONMENT, LOG, ROOT, VENDOR, SetupError, pip, run
from progress_line import ProgressLine

PLUGIN_PATH = "../../../../scripts"  # from site-packages
# how pip names a package that it has come to: from an index, from a file, or as it was installed before
COLLECTED = re.compile(r"(?:Collecting|Requirement already satisfied:) ([\w.-]+)|Processing \S*/([\w.]+)-\d")


@dataclass(frozen=True)
class Part:
    """Holds one part: the file without which it is not there, the stamps that count, and how it is made."""

    name: str
    product: Path
    stamps: tuple[str, ...]  # the first one is written, unless `make` returns a stamp of its own
    make: Callable[[ProgressLine], tuple[str, str]]  # what to show, and the stamp

    @property
    def stamp_file(self) -> Path:
        # inside the environment, so that deleting it sets everything up again
        return ENVIRONMENT / f".done-{self.name.replace(' ', '-')}"

    def is_done(self) -> bool:
        """Tell whether the part was made whole, from what it is made from today."""
        return self.product.exists() and self.stamp_file.is_file() and self.stamp_file.read_text() in self.stamps


def parts(dev: bool, engine: str) -> list[Part]:
    """Return the parts of the set-up in their order."""
    python = ENVIRONMENT / "bin" / "python"
    here = f"{sys.version_info[0]}.{sys.version_info[1]} {ROOT}"
    version = torch_build.pinned_version()
    kind = torch_build.wanted_kind(sys.platform, engine)

    def torch(line: ProgressLine) -> tuple[str, str]:
        got = torch_build.install(version, kind, line)
        return f"{version}, {got} build" if got != "plain" else version, f"{version} {got}"

    def llama(line: ProgressLine) -> tuple[str, str]:
        kind = llama_build.wanted_kind(line)
        origin = llama_build.install_package(line, kind)
        llama_build.unpack_converter(line)
        return f"{llama_build.VERSION}, {origin}", llama_build.stamp(kind)

    found = [
        Part("virtual environment", python, (here,), lambda line: (_make_environment(line), here)),
        Part("llama.cpp", VENDOR / "llama.cpp" / "VERSION", (llama_build.stamp(llama_build.wanted_kind()),), llama),
        _locked("packages", "requirements.lock"),
        Part("logger plugin", python, (PLUGIN_PATH,), lambda _: (_link_plugin(), PLUGIN_PATH)),
        Part("torch", python, torch_stamps(version, kind), torch),
    ]
    if sys.platform == "linux":
        shim = _digest("setup/blas_shim.c", "requirements.lock")
        found.append(Part("fast BLAS", VENDOR / "libblas_shim.so", (shim,), lambda line: (_build_blas(line), shim)))
    return [*found, *([_locked("test packages", "requirements-dev.lock"), _trainer("trl")] if dev else [])]


def torch_stamps(version: str, kind: str) -> tuple[str, ...]:
    """Return the stamps that count: a CUDA build that a person asked for once is kept."""
    return (f"{version} {kind}", *([f"{version} cuda"] if kind == "cpu" else []))


def main(dev: bool, engine: str) -> None:
    """Make the parts that are missing."""
    missing = [part for part in parts(dev, engine) if not part.is_done()]
    if not missing:
        command_script.write(ENVIRONMENT)  # each time: pip may have put its own script there since
        return
    VENDOR.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)
    if any(part.name == "packages" for part in missing):
        print(
            f"snaketune: setting up in .venv and vendor ({platform.system()} {platform.machine()}, Python "
            f"{platform.python_version()}, {os.cpu_count()} cores). Once, 5 to 10 minutes and 2 gigabytes; a set-up "
            f"that is interrupted goes on. Details: {LOG.relative_to(ROOT)}",
            flush=True,
        )
    for part in missing:
        line = ProgressLine(part.name)
        line.update("starting")
        part.stamp_file.unlink(missing_ok=True)  # from now on it may be half made
        try:
            outcome, stamp = part.make(line)
        except BaseException:
            line.clear()
            raise
        part.stamp_file.write_text(stamp)
        line.finish(outcome)
    command_script.write(ENVIRONMENT)


def _locked(name: str, lock: str) -> Part:
    """Return the part that installs all packages of a lock file, each checked against its hashes."""
    stamp = _digest(lock)

    def make(line: ProgressLine) -> tuple[str, str]:
        wanted = sum(_applies(text) for text in (ROOT / lock).read_text(encoding="utf-8").splitlines())
        seen: set[str] = set()
        unpacking = False

        def watch(said: str) -> str:
            nonlocal unpacking
            if found := COLLECTED.match(said):
                seen.add((found[1] or found[2]).lower().replace("_", "-"))
                return f"{len(seen)} of {wanted}, {found[1] or found[2]}"
            if found := re.match(r"\s*(?:Downloading|Using cached) .*?([\w.]+)-\d\S* \((.+)\)", said):
                return f"{len(seen)} of {wanted}, {found[1]} ({found[2]})"
            unpacking = unpacking or said.startswith("Installing collected")
            return f"unpacking, {_installed_packages()} packages are in place" if unpacking else ""

        pip("install", "--require-hashes", "--no-deps", "-r", lock, line=line, watch=watch)
        return f"{len(seen)} packages", stamp

    return Part(name, ENVIRONMENT / "bin" / "python", (stamp,), make)


def _trainer(name: str) -> Part:
    """Return the part that builds the environment of a trainer, which finds most of its packages in .venv."""
    stamp = f"{trainer.digest(name)} {ROOT}"
    return Part(
        f"trainer {name}",
        trainer.ENVIRONMENTS / name / "bin" / "python",
        (stamp,),
        lambda line: (_build(name, line), stamp),
    )


def _build(name: str, line: ProgressLine) -> str:
    line.update("building it")
    return trainer.build(name)


def _installed_packages() -> int:
    return sum(1 for _ in ENVIRONMENT.glob("lib/python3.*/site-packages/*.dist-info"))


def _applies(line: str) -> bool:
    """Tell roughly whether a line of a lock file is a package for this platform; it is for the progress line only."""
    platforms = re.findall(r"sys_platform == '(\w+)'", line)
    return "==" in line[:80] and line[:1].isalnum() and (not platforms or sys.platform in platforms)


def _digest(*names: str) -> str:
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in names)).hexdigest()


def _make_environment(line: ProgressLine) -> str:
    line.update("making it")
    if ENVIRONMENT.exists() and Path(sys.prefix).resolve() != ENVIRONMENT.resolve():
        shutil.rmtree(ENVIRONMENT)  # of another Python, moved from elsewhere, or half made
    venv.EnvBuilder(with_pip=True, symlinks=True).create(ENVIRONMENT)
    return f"Python {platform.python_version()}"


def _link_plugin() -> str:
    """Let Python find scripts/, and in it Snakemake its logger plugin; relative, so that the folder can be moved."""
    (site_packages,) = ENVIRONMENT.glob("lib/python3*/site-packages")
    (site_packages / "snaketune.pth").write_text(f"{PLUGIN_PATH}\n")
    return "linked"


def _build_blas(line: ProgressLine) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SetupError("no C compiler was found for the fast BLAS. Install one (apt install build-essential).")
    part = VENDOR / ".libblas_shim.part"
    run([compiler, "-O2", "-shared", "-fPIC", "-o", part, ROOT / "setup" / "blas_shim.c"], line)
    part.rename(VENDOR / "libblas_shim.so")
    return "built"


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description="Set up .venv and vendor.")
    reader.add_argument("--dev", action="store_true", help="what the tests need too")
    reader.add_argument("--engine", default="", choices=["", "auto", "mlx", "torch"], help="torch: with CUDA")
    asked = reader.parse_args()
    try:
        main(asked.dev, asked.engine)
    except SetupError as error:
        print(f"\nsnaketune: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("\nsnaketune: set-up was interrupted; make goes on where it stopped.", file=sys.stderr)
        raise SystemExit(130) from None
