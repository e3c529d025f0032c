"""Set up what the workflow runs on, with the standard library alone. Each part is skipped when it is already right.

The parts: a virtual environment (.venv), the pinned packages (llama-cpp-python is built from its source once), and in
vendor/ llama.cpp's converter, from the same source, and the fast BLAS for MLX on a Linux CPU. An interrupted set-up
goes on where it stopped, because a part counts as done only when its stamp stands.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
import venv
from pathlib import Path

import command_script

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
VENDOR = ROOT / "vendor"
LOG = VENDOR / "setup.log"
LLAMA = "llama-cpp-python==0.3.36"
SDIST = "llama_cpp_python-0.3.36.tar.gz"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
CONVERTER = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion/", "gguf-py/gguf/", "LICENSE")
PLUGIN_PATH = "../../../../scripts"  # from site-packages
BUILD = {"CMAKE_ARGS": "-DLLAVA_BUILD=OFF"}


class SetupError(Exception):
    """One sentence: what is missing, and what to install."""


def main(dev: bool) -> None:
    parts = [
        ("virtual environment", _environment_stamp(), _make_environment),
        ("packages", _digest("requirements.txt", "constraints.txt"), lambda: _install("requirements.txt")),
        ("logger plugin", PLUGIN_PATH, _link_plugin),
        ("converter", SDIST_SHA256, _unpack_converter),
    ]
    if sys.platform == "linux":
        parts.append(("fast BLAS", _digest("setup/blas_shim.c", "requirements.txt"), _build_blas))
    if dev:
        parts.append(
            (
                "test packages",
                _digest("requirements-dev.txt", "constraints.txt"),
                lambda: _install("requirements-dev.txt"),
            )
        )
    missing = [part for part in parts if not _done(part[0], part[1])]
    if not missing:
        command_script.write(ENVIRONMENT)  # each time: pip may have put its own script there since
        return
    VENDOR.mkdir(exist_ok=True)
    if any(name == "packages" for name, _, _ in missing):
        _check_compiler()
        print(
            "snaketune: setting up. On two cores this takes about 8 to 15 minutes (most of it builds llama.cpp) and "
            "3 gigabytes of disk; it is needed once.",
            flush=True,
        )
    for name, stamp, make in missing:
        began = time.monotonic()
        print(f"snaketune: {name} ...", flush=True)
        make()
        _stamp_file(name).write_text(stamp)
        print(f"snaketune: {name} done ({time.monotonic() - began:.0f} s)", flush=True)
    command_script.write(ENVIRONMENT)


def _stamp_file(name: str) -> Path:
    # inside the environment, so that deleting it sets everything up again
    return ENVIRONMENT / f".done-{name.replace(' ', '-')}"


def _done(name: str, stamp: str) -> bool:
    product = {"converter": VENDOR / "llama.cpp", "fast BLAS": VENDOR / "libblas_shim.so"}.get(name, PYTHON)
    return product.exists() and _stamp_file(name).is_file() and _stamp_file(name).read_text() == stamp


def _digest(*names: str) -> str:
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in names)).hexdigest()


def _environment_stamp() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]} {ROOT}"


def _check_compiler() -> None:
    if not (shutil.which("cc") or shutil.which("gcc")) or not (shutil.which("c++") or shutil.which("g++")):
        raise SetupError(
            "no C and C++ compiler was found; llama.cpp is built from source. Install one (macOS: xcode-select "
            "--install; Debian or Ubuntu: apt install build-essential) and run make again."
        )


def _make_environment() -> None:
    if ENVIRONMENT.exists() and Path(sys.prefix).resolve() != ENVIRONMENT.resolve():
        shutil.rmtree(ENVIRONMENT)  # of another Python, moved from elsewhere, or half made
    venv.EnvBuilder(with_pip=True, symlinks=True).create(ENVIRONMENT)


def _install(requirements: str) -> None:
    _pip("install", "-r", requirements, "-c", "constraints.txt", env=BUILD)


def _link_plugin() -> None:
    """Let Python find scripts/, and in it Snakemake its logger plugin; relative, so that the folder can be moved."""
    (site_packages,) = ENVIRONMENT.glob("lib/python3*/site-packages")
    (site_packages / "snaketune.pth").write_text(f"{PLUGIN_PATH}\n")


def _unpack_converter() -> None:
    """Take llama.cpp's converter out of the source archive that llama-cpp-python is built from."""
    archive = VENDOR / SDIST
    if not archive.is_file() or _sha256(archive) != SDIST_SHA256:
        _pip("download", "--no-deps", "--no-binary", "llama-cpp-python", "-d", str(VENDOR), LLAMA)
    if _sha256(archive) != SDIST_SHA256:
        archive.unlink()
        raise SetupError(f"{SDIST} is not the archive that was pinned (its SHA-256 differs). Check where pip gets it.")
    target, staged = VENDOR / "llama.cpp", VENDOR / ".llama.cpp.part"
    shutil.rmtree(staged, ignore_errors=True)
    with tarfile.open(archive) as source:
        for member in source:
            _, _, inner = member.name.partition("/vendor/llama.cpp/")
            if member.isfile() and inner.startswith(CONVERTER):
                path = staged / inner
                path.parent.mkdir(parents=True, exist_ok=True)
                with source.extractfile(member) as content, open(path, "wb") as out:  # type: ignore[union-attr]
                    shutil.copyfileobj(content, out)
    (staged / "VERSION").write_text(f"{LLAMA}\n")
    shutil.rmtree(target, ignore_errors=True)
    staged.rename(target)
    archive.unlink()


def _build_blas() -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SetupError("no C compiler was found for the fast BLAS. Install one (apt install build-essential).")
    part = VENDOR / ".libblas_shim.part"
    _run([compiler, "-O2", "-shared", "-fPIC", "-o", str(part), str(ROOT / "setup" / "blas_shim.c")])
    part.rename(VENDOR / "libblas_shim.so")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pip(*arguments: str, env: dict[str, str] | None = None) -> None:
    _run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments], env)


def _run(command: list[str], env: dict[str, str] | None = None) -> None:
    """Run a command with its words in the log and a dot on the terminal now and then; explain a failure."""
    with open(LOG, "ab") as log:
        start = log.tell()
        running = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **(env or {})})
        try:
            while True:
                try:
                    code = running.wait(timeout=20)
                    break
                except subprocess.TimeoutExpired:
                    print(".", end="", flush=True)
        except BaseException:
            running.terminate()
            raise
    if code:
        said = LOG.read_bytes()[start:].decode(errors="replace")
        raise SetupError(_explained(said))


def _explained(said: str) -> str:
    low = said.lower()
    if any(words in low for words in ("name resolution", "newconnectionerror", "connection refused", "unreachable")):
        return f"the package index cannot be reached. Connect to the network and run make again (details: {LOG})."
    if "no space left" in low:
        return "the disk is full. Free 3 gigabytes and run make again."
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "no words")
    return f"set-up stopped: {last.strip()} (details: {LOG}). Run make again to go on."


if __name__ == "__main__":
    try:
        main(dev="--dev" in sys.argv[1:])
    except SetupError as error:
        print(f"\nsnaketune: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("\nsnaketune: set-up was interrupted; make goes on where it stopped.", file=sys.stderr)
        raise SystemExit(130) from None
