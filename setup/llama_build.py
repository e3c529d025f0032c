"""Gets llama-cpp-python and llama.cpp's converter, both from the same pinned source archive.

The package comes as source only. It is taken ready-made where one is to be had: from where pip is configured to look,
or from the cache that an earlier set-up on this machine filled. Otherwise it is built, in a folder that stays until it
is done, so that an interrupted build goes on; with ccache where that is installed. Where there is an NVIDIA card and
CUDA's compiler, it is built for the card.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
import tarfile
from pathlib import Path

from commands import ENVIRONMENT, VENDOR, CommandFailed, SetupError, pip, run
from progress_line import ProgressLine
from torch_build import nvidia_card, nvidia_smi

VERSION = "0.3.36"
PACKAGE = f"llama-cpp-python=={VERSION}"
ARCHIVE = f"llama_cpp_python-{VERSION}.tar.gz"
ARCHIVE_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
CONVERTER = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion/", "gguf-py/gguf/", "LICENSE")
CMAKE_OPTIONS = "-DLLAVA_BUILD=OFF"
CUDA_HOME = "/usr/local/cuda"  # where NVIDIA's packages put the toolkit, whose programs are on few paths
CUDA_LIBRARY = "lib/python3.*/site-packages/llama_cpp/lib/libggml-cuda.so*"
# llama.cpp's helpers for its own programs: two fifths of the build, and the Python package does not use them
HELPERS_ON = 'set(LLAMA_BUILD_COMMON ON CACHE BOOL "Build llama.cpp common library" FORCE)'
BUILD = VENDOR / "llama-build"  # the source and what is built of it so far


def cuda_compiler() -> str | None:
    """Return the path of CUDA's compiler, None where its toolkit is not installed."""
    return shutil.which("nvcc") or shutil.which(f"{os.environ.get('CUDA_HOME', CUDA_HOME)}/bin/nvcc")


def wanted_kind(line: ProgressLine | None = None) -> str:
    """Return which build a machine is to have: `cuda` with an NVIDIA card and CUDA's toolkit, else `plain`."""
    if sys.platform != "linux" or not nvidia_card():
        return "plain"
    if cuda_compiler():
        return "cuda"
    if line:
        line.say(
            "there is an NVIDIA card, but not CUDA's toolkit (nvcc), so GGUF files are answered on the CPU. To answer "
            "them on the card, install the toolkit and run make setup again"
        )
    return "plain"


def stamp(kind: str) -> str:
    """Return what stands for a finished set-up of this kind."""
    return ARCHIVE_SHA256 if kind == "plain" else f"{ARCHIVE_SHA256} {kind}"


def package_is_here(kind: str) -> bool:
    """Tell whether the environment has the pinned version, in this build."""
    found = any(ENVIRONMENT.glob(f"lib/python3.*/site-packages/llama_cpp_python-{VERSION}*.dist-info/RECORD"))
    return found and any(ENVIRONMENT.glob(CUDA_LIBRARY)) == (kind == "cuda")


def install_package(line: ProgressLine, kind: str = "plain") -> str:
    """Install llama-cpp-python and return where it came from."""
    if package_is_here(kind):
        return "already installed"
    for_card = " for the NVIDIA card" if kind == "cuda" else ""
    origin = "a ready-made package"
    wheel = None if for_card else _ready_made(line)  # a ready-made one computes on the CPU
    if wheel is None:
        cached = next(cache_folder(kind).glob("*.whl"), None)
        origin = "built by an earlier set-up" if cached else f"built{for_card}"
        wheel = cached or _build(line, kind)
    line.update("installing")
    pip("install", "--no-deps", "--force-reinstall", wheel, line=line)
    shutil.rmtree(BUILD / "wheel", ignore_errors=True)
    shutil.rmtree(BUILD / "objects", ignore_errors=True)
    return origin


def unpack_converter(line: ProgressLine) -> str:
    """Take llama.cpp's converter out of the source archive; the archive is not kept."""
    source = _source(line) / "vendor" / "llama.cpp"
    target, staged = VENDOR / "llama.cpp", VENDOR / ".llama.cpp.part"
    shutil.rmtree(staged, ignore_errors=True)
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source).as_posix()
        if path.is_file() and inner.startswith(CONVERTER):
            (staged / inner).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, staged / inner)
    (staged / "VERSION").write_text(f"{PACKAGE}\n")
    shutil.rmtree(target, ignore_errors=True)
    staged.rename(target)
    shutil.rmtree(BUILD, ignore_errors=True)
    return "done"


def compilers_are_here() -> bool:
    """Tell whether a C and a C++ compiler are installed."""
    named = ((os.environ.get("CC"), "cc", "gcc"), (os.environ.get("CXX"), "c++", "g++"))
    return all(any(name and shutil.which(name) for name in names) for names in named)


def _ready_made(line: ProgressLine) -> Path | None:
    """Fetch the package as a wheel, if where pip is configured to look has one."""
    line.update("looking for a ready-made package")
    folder = BUILD / "wheel"
    try:
        pip("download", "--no-deps", "--only-binary", ":all:", "--dest", folder, PACKAGE, line=line)
    except CommandFailed as failure:
        if failure.is_not_found and not failure.is_network:
            return None
        raise
    return next(folder.glob("*.whl"))


def cmake_options(kind: str) -> str:
    """Return what CMake is told; for a card it compiles for the one that is here."""
    return f"{CMAKE_OPTIONS} -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native" if kind == "cuda" else CMAKE_OPTIONS


def _build(line: ProgressLine, kind: str) -> Path:
    """Build the wheel from its source and put it into the cache; a build that was interrupted goes on."""
    if not compilers_are_here():
        raise SetupError(
            "no C and C++ compiler was found; llama.cpp is built from source. Install one (macOS: xcode-select "
            "--install; Debian or Ubuntu: apt install build-essential) and run make again."
        )
    source = _source(line)
    with_ccache = " with ccache" if shutil.which("ccache") else ""
    env = {
        "CMAKE_ARGS": f"{os.environ.get('CMAKE_ARGS', '')} {cmake_options(kind)}".strip(),
        "CCACHE_BASEDIR": str(BUILD),  # so that another clone finds the same files in it
        "CCACHE_NOHASHDIR": "true",
    }
    if kind == "cuda":
        env["CUDACXX"] = cuda_compiler() or "nvcc"
    pip(
        *("wheel", "-v", "--no-deps", "--wheel-dir", BUILD / "wheel"),
        *("--config-settings", f"build-dir={BUILD / 'objects'}", source),
        line=line,
        watch=lambda said: f"building llama.cpp{with_ccache}, {done}" if (done := percent(said)) else "",
        env=env,
    )
    built = next((BUILD / "wheel").glob("*.whl"))
    cache = cache_folder(kind)
    cache.mkdir(parents=True, exist_ok=True)
    part = cache / f".{os.getpid()}.part"
    shutil.copyfile(built, part)
    part.rename(cache / built.name)
    return built


def percent(said: str) -> str:
    """Return how far a build is from a line of Ninja (`[12/80] ...`) or Make (`[ 15%] ...`), else nothing."""
    if ninja := re.match(r"\s*\[(\d+)/(\d+)\]", said):
        return f"{100 * int(ninja[1]) // int(ninja[2])} %"
    make = re.match(r"\s*\[ *(\d+)%\]", said)
    return f"{make[1]} %" if make else ""


def _source(line: ProgressLine) -> Path:
    """Fetch, check and unpack the source archive, unless that is done."""
    folder = BUILD / ARCHIVE.removesuffix(".tar.gz")
    if folder.is_dir():
        return folder
    BUILD.mkdir(parents=True, exist_ok=True)
    archive = BUILD / ARCHIVE
    line.update("fetching the source of llama.cpp (78 MB)")
    if not archive.is_file() or _sha256(archive) != ARCHIVE_SHA256:
        pip("download", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", BUILD, PACKAGE, line=line)
    if _sha256(archive) != ARCHIVE_SHA256:
        archive.unlink()
        raise SetupError(f"{ARCHIVE} is not the one that was pinned (its SHA-256 differs). Check where pip gets it.")
    staged = BUILD / ".source.part"
    shutil.rmtree(staged, ignore_errors=True)
    line.update("unpacking the source of llama.cpp")
    with tarfile.open(archive) as content:
        content.extractall(staged)  # its SHA-256 is the pinned one
    (unpacked,) = staged.iterdir()
    recipe = unpacked / "CMakeLists.txt"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(HELPERS_ON, HELPERS_ON.replace(" ON ", " OFF ")))
    unpacked.rename(folder)
    archive.unlink()
    return folder


def cache_folder(kind: str = "plain") -> Path:
    """Return where wheels are kept that were built from this source, in this way, for this processor and card."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    named = ("CMAKE_ARGS", "CC", "CXX", "CFLAGS", "CXXFLAGS")
    parts = [ARCHIVE_SHA256, cmake_options(kind), HELPERS_ON, platform.platform(), _processor()]
    parts += [_cards()] if kind == "cuda" else []
    key = hashlib.sha256("\n".join([*parts, *(os.environ.get(name, "") for name in named)]).encode()).hexdigest()
    return home / "snaketune" / "llama-cpp-python" / key[:16]


def _cards() -> str:
    """Return the names of the cards and the version of CUDA's compiler, for which a build is made."""
    cards = run([nvidia_smi(), "--query-gpu=name", "--format=csv,noheader"])
    return f"{cards} {run([cuda_compiler() or 'nvcc', '--version'])}"


def _processor() -> str:
    """Return what the compiler's -march=native goes by, since machines that share a home folder may differ in it."""
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(
        sorted(set(re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", described, re.MULTILINE)))
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
