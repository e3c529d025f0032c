"""Which builds a machine gets: real pip against package indexes on loopback that have each of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import llama_build
import pytest
from loopback import serving
from package_index import Index, wheel

ROOT = Path(__file__).resolve().parents[3]
VERSION = re.search(r"^torch==(.+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[1]  # type: ignore[index]
INSTALL = """
import sys; sys.path.insert(0, "setup")
import torch_build; from progress_line import ProgressLine
wanted = torch_build.wanted_kind("linux", sys.argv[2])
print("kind:", torch_build.install(sys.argv[1], wanted, ProgressLine("torch")))
"""
LLAMA = """
import sys; sys.path.insert(0, "setup")
import llama_build; from progress_line import ProgressLine
line = ProgressLine("llama.cpp")
kind = llama_build.wanted_kind(line)
print("kind:", kind)
print("cache:", llama_build.cache_folder(kind))
print("options:", llama_build.cmake_options(kind))
print("origin:", llama_build.install_package(line, kind))
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has two builds of torch")


class Machine:
    """A machine with an environment of its own, whose pip knows an index on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.indexes = folder / "indexes"
        self.path = "/usr/bin:/bin"  # without a toolkit that this machine has
        self.constraints = ""
        shutil.copytree(ROOT / "setup", folder / "setup")
        venv.EnvBuilder(with_pip=True, symlinks=True).create(folder / ".venv")

    def clear(self) -> None:
        shutil.rmtree(self.indexes, ignore_errors=True)
        self.constraints = ""
        for found in self.folder.glob(".venv/lib/python3.*/site-packages/*"):
            if found.name.startswith(("torch", "nvidia", "llama_cpp_python")):
                shutil.rmtree(found)
        self.path = "/usr/bin:/bin"
        shutil.rmtree(self.folder / "bin", ignore_errors=True)
        shutil.rmtree(self.folder / "cache", ignore_errors=True)

    def offer(self, index: str, *builds: str) -> None:
        """Put builds of torch into an index; the CUDA build requires a package that weighs 3 MB."""
        for build in builds:
            cuda = "cpu" not in build
            wheel(self.indexes / index / "torch", "torch", build, ["nvidia-cudnn-cu13==9.1"] if cuda else [], 1000)
            if cuda:
                wheel(self.indexes / index / "nvidia-cudnn-cu13", "nvidia-cudnn-cu13", "9.1", kilobytes=3000)

    def plug_in_a_card(self) -> None:
        """Put an `nvidia-smi` on the path that lists a card."""
        program = self.folder / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text('#!/bin/sh\necho "GPU 0: NVIDIA RTX 4090 (UUID: GPU-1)"\n')
        program.chmod(0o755)
        self.path = f"{program.parent}{os.pathsep}{self.path}"

    def install_cuda_toolkit(self) -> None:
        """Put an `nvcc` on the path that says its version."""
        program = self.folder / "bin" / "nvcc"
        program.write_text('#!/bin/sh\necho "Cuda compilation tools, release 13.0"\n')
        program.chmod(0o755)

    def set_up(self, engine: str = "", pytorch: bool = True) -> str:
        """Install torch as the set-up does, and return what was said."""
        return self.run(INSTALL, VERSION, engine, pytorch=pytorch)

    def run(self, code: str, *arguments: str, pytorch: bool = True) -> str:
        """Run code of the set-up against the indexes, and return what was said."""
        with serving(Index) as server:
            server.told = [str(self.indexes)]
            env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
            env |= {
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_INDEX_URL": f"{server.address}/configured",
                "PIP_NO_CACHE_DIR": "1",
            }
            env |= {"SNAKETUNE_PYTORCH_INDEX": f"{server.address}/pytorch" if pytorch else "http://127.0.0.1:9/"}
            env |= {"PATH": self.path, "no_proxy": "127.0.0.1"}
            env |= {"XDG_CACHE_HOME": str(self.folder / "cache"), "CUDA_HOME": str(self.folder / "no-cuda")}
            if self.constraints:
                env["PIP_CONSTRAINT"] = str(self.folder / "constraints.txt")
                (self.folder / "constraints.txt").write_text(self.constraints)
            command = [sys.executable, "-c", code, *arguments]
            done = subprocess.run(command, cwd=self.folder, env=env, text=True, capture_output=True, timeout=300)
            self.asked = server.told[1:]
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def installed(self) -> list[str]:
        """The packages that came with torch, by file name."""
        found = self.folder.glob(".venv/lib/python3.*/site-packages/*.dist-info")
        return sorted(path.name.removesuffix(".dist-info") for path in found if path.name.startswith(("torch", "nvid")))


CPU, CUDA = f"{VERSION}+cpu", VERSION
BOTH = (CPU, CUDA, f"{VERSION}+cu130")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture
def machine(made: Machine) -> Machine:
    made.clear()
    return made


def test_a_machine_without_a_card_gets_the_cpu_build_from_where_pytorch_publishes_it(machine: Machine) -> None:
    machine.offer("pytorch", *BOTH)
    machine.offer("configured", CUDA)
    assert "kind: cpu" in machine.set_up()
    assert machine.installed() == [f"torch-{CPU}"]
    assert not any(path.startswith("/configured") for path in machine.asked)


def test_where_pytorch_cannot_be_reached_the_cpu_build_comes_from_what_pip_is_configured_with(machine: Machine) -> None:
    machine.offer("configured", *BOTH)
    assert "kind: cpu" in machine.set_up(pytorch=False)
    assert machine.installed() == [f"torch-{CPU}"]


def test_where_there_is_no_other_the_cuda_build_is_installed_whole_and_its_size_said(machine: Machine) -> None:
    machine.offer("configured", CUDA)
    said = machine.set_up(pytorch=False)
    assert "kind: cuda" in said
    assert machine.installed() == ["nvidia_cudnn_cu13-9.1", f"torch-{CUDA}"]
    assert re.search(r"no CPU build of torch .+ was found.+ 4 MB to download, about 9 MB on disk", said)


def test_constraints_that_name_torch_change_nothing_about_which_build_is_looked_for(machine: Machine) -> None:
    machine.offer("configured", CUDA)
    machine.constraints = f"torch<={VERSION}\n"  # pip then says in other words that it finds none
    assert "kind: cuda" in machine.set_up(pytorch=False)


def test_a_build_without_cuda_that_does_not_call_itself_so_is_taken_in_silence(machine: Machine) -> None:
    wheel(machine.indexes / "configured" / "torch", "torch", VERSION)
    said = machine.set_up(pytorch=False)
    assert "kind: cpu" in said
    assert "download" not in said


def test_a_card_alone_brings_no_cuda_build(machine: Machine) -> None:
    machine.offer("configured", *BOTH)
    machine.plug_in_a_card()
    assert "kind: cpu" in machine.set_up("mlx", pytorch=False)


def test_the_torch_engine_on_a_card_gets_the_cuda_build_in_place_of_the_cpu_build_and_keeps_it(
    machine: Machine,
) -> None:
    machine.offer("configured", CPU, CUDA)
    machine.set_up(pytorch=False)
    machine.plug_in_a_card()
    assert "NVIDIA card found: the CUDA build, 4 MB" in machine.set_up("torch")
    assert machine.installed() == ["nvidia_cudnn_cu13-9.1", f"torch-{CUDA}"]
    assert "kind: cuda" in machine.set_up()
    assert machine.asked == []


def test_the_torch_engine_without_a_card_gets_the_cpu_build(machine: Machine) -> None:
    machine.offer("pytorch", *BOTH)
    assert "kind: cpu" in machine.set_up("torch")


def test_llama_cpp_is_taken_ready_made_where_pip_is_configured_to_look(machine: Machine) -> None:
    wheel(machine.indexes / "configured" / "llama-cpp-python", "llama-cpp-python", llama_build.VERSION)
    assert "origin: a ready-made package" in machine.run(LLAMA)
    assert "origin: already installed" in machine.run(LLAMA)


def test_llama_cpp_is_not_built_again_for_the_same_processor(machine: Machine) -> None:
    cache = re.search(r"cache: (.+)", machine.run(LLAMA.replace("llama_build.install_package(line, kind)", "None")))
    assert cache
    assert Path(cache[1]).is_relative_to(machine.folder / "cache")
    wheel(Path(cache[1]), "llama-cpp-python", llama_build.VERSION)
    assert "origin: built by an earlier set-up" in machine.run(LLAMA)


def without_installing(machine: Machine, before: str = "") -> str:
    return machine.run(before + LLAMA.replace("llama_build.install_package(line, kind)", "None"))


def test_llama_cpp_is_built_for_a_card_where_cudas_toolkit_is_installed(machine: Machine) -> None:
    wheel(machine.indexes / "configured" / "llama-cpp-python", "llama-cpp-python", llama_build.VERSION)
    plain = without_installing(machine)
    assert "kind: plain" in plain
    assert "GGML_CUDA" not in plain
    machine.plug_in_a_card()
    machine.install_cuda_toolkit()
    said = without_installing(machine)
    assert "kind: cuda" in said
    assert "-DGGML_CUDA=ON" in said
    caches = [re.search(r"cache: (.+)", one)[1] for one in (plain, said)]  # type: ignore[index]
    assert caches[0] != caches[1]
    wheel(Path(caches[1]), "llama-cpp-python", llama_build.VERSION)  # as an earlier set-up on this machine built it
    assert "origin: built by an earlier set-up" in machine.run(LLAMA)


def test_llama_cpp_is_built_for_a_card_under_wsl_whose_driver_is_on_no_path(machine: Machine) -> None:
    machine.plug_in_a_card()
    machine.install_cuda_toolkit()
    on_the_path = without_installing(machine)
    driver = machine.folder / "bin" / "nvidia-smi"
    moved = driver.rename(machine.folder / "nvidia-smi")
    assert "kind: plain" in without_installing(machine)
    under_wsl = (
        f"import sys; sys.path.insert(0, 'setup'); import torch_build; torch_build.WSL_NVIDIA_SMI = {str(moved)!r}\n"
    )
    assert without_installing(machine, under_wsl) == on_the_path


def test_card_without_cudas_toolkit_is_said_to_be_left_out_for_gguf_files(machine: Machine) -> None:
    wheel(machine.indexes / "configured" / "llama-cpp-python", "llama-cpp-python", llama_build.VERSION)
    machine.plug_in_a_card()
    said = machine.run(LLAMA)
    assert "not CUDA's toolkit (nvcc), so GGUF files are answered on the CPU" in said
    assert "origin: a ready-made package" in said
