"""The set-up's parts, its lock files and what it shows while it works."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import commands
import install
import llama_build
import psutil
import pytest
import torch_build
from progress_line import ProgressLine, duration, size

ROOT = Path(__file__).resolve().parents[3]
NOT_LOCKED = {"torch", "llama-cpp-python"}


def pins(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"^([\w.-]+)(?:\[\w+\])?==([^\s;]+)", text, re.MULTILINE)
    return {package.lower().replace("_", "-"): version for package, version in found}


class TerminalStream(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_the_lock_has_every_chosen_pin_and_a_hash_for_each_package(name: str) -> None:
    locked, chosen = pins(f"{name}.lock"), pins(f"{name}.txt")
    assert {package: locked.get(package) for package in chosen.keys() - NOT_LOCKED} == {
        package: version for package, version in chosen.items() if package not in NOT_LOCKED
    }, "run `make lock`"
    blocks = re.split(r"\n(?=[a-z])", (ROOT / f"{name}.lock").read_text(encoding="utf-8"))
    assert [block for block in blocks if "==" in block and "--hash=sha256:" not in block] == []


def test_both_lock_files_have_the_same_versions() -> None:
    base, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {name: (base[name], dev[name]) for name in base.keys() & dev.keys() if base[name] != dev[name]} == {}


def test_no_part_of_cuda_is_locked_and_what_torch_needs_on_any_machine_is() -> None:
    locked = pins("requirements.lock")
    assert not NOT_LOCKED & locked.keys()
    assert not [name for name in locked if torch_build.brings_cuda([f"Requires-Dist: {name}"])]
    assert {"sympy", "networkx", "fsspec", "filelock", "typing-extensions", "setuptools", "diskcache"} <= locked.keys()


def test_llama_cpp_is_built_in_the_version_that_is_pinned() -> None:
    assert pins("requirements.txt")["llama-cpp-python"] == llama_build.VERSION


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("[39/78] Building CXX object vendor/llama.cpp/src/llama.cpp.o\n", "50 %"),
        ("  [78/78] Linking CXX shared library bin/libllama.so\n", "100 %"),
        ("[  7%] Building C object ggml.c.o\n", "7 %"),
        ("  Building wheel for llama_cpp_python (pyproject.toml): started\n", ""),
        ("-- Found Threads: TRUE\n", ""),
    ],
)
def test_how_far_a_build_is_is_read_from_ninja_and_from_make(said: str, shown: str) -> None:
    assert llama_build.percent(said) == shown


def test_a_part_is_done_only_with_its_product_and_a_stamp_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "ENVIRONMENT", tmp_path)
    product = tmp_path / "product"
    part = install.Part("fast BLAS", product, ("new", "also right"), lambda _: ("made", "new"))
    assert not part.is_done()
    part.stamp_file.write_text("new")
    assert not part.is_done()
    product.touch()
    assert part.is_done()
    part.stamp_file.write_text("also right")
    assert part.is_done()
    part.stamp_file.write_text("old")
    assert not part.is_done()


def test_a_part_that_fails_is_not_done_although_it_was_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: ProgressLine) -> tuple[str, str]:
        raise commands.SetupError("no such build")

    old, new = (install.Part("torch", tmp_path, (stamp,), fail) for stamp in ("old", "new"))
    for name, value in (("ENVIRONMENT", tmp_path), ("VENDOR", tmp_path), ("LOG", tmp_path / "log")):
        monkeypatch.setattr(install, name, value)
    monkeypatch.setattr(install, "parts", lambda *_: [new])
    old.stamp_file.write_text("old")
    with pytest.raises(commands.SetupError):
        install.main(False, "")
    assert not old.is_done()


def test_the_cuda_build_counts_where_the_cpu_build_would_do_and_not_the_other_way() -> None:
    version = torch_build.pinned_version()
    stamps = {kind: install.torch_stamps(version, kind) for kind in ("cpu", "cuda", "plain")}
    assert stamps == {
        "cpu": (f"{version} cpu", f"{version} cuda"),
        "cuda": (f"{version} cuda",),
        "plain": (f"{version} plain",),
    }


def test_a_terminal_shows_one_line_that_fits_and_a_log_says_something_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    terminal, log = TerminalStream(), io.StringIO()
    for stream in (terminal, log):
        line = ProgressLine("packages", stream)
        for number in range(5):
            line.update(f"{number} of 118, a-package-with-a-name-that-is-far-too-long-for-this-terminal ({number} MB)")
        line.finish("118 packages")
    assert log.getvalue().count("\n") == 1
    assert terminal.getvalue().count("\n") == 1
    shown = re.split(r"\r\x1b\[K", terminal.getvalue())
    assert max(map(len, shown)) < 60
    assert re.search(r"packages +0 s  118 packages\n$", log.getvalue())


def test_times_and_sizes_are_words_a_person_uses() -> None:
    assert (duration(8.2), duration(200), duration(60)) == ("8 s", "3 min 20 s", "1 min 00 s")
    assert (size(190e6), size(2.64e9), size(10)) == ("190 MB", "2.6 GB", "1 MB")


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "the disk is full"),
        ("Failed to establish a new connection: [Errno -2] Name or service not known", "index cannot be reached"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "not the one that was pinned"),
        ("something\n\nfatal error: omp.h: No such file or directory\n", "omp.h: No such file or directory"),
    ],
)
def test_a_failure_is_told_in_a_sentence_that_says_what_to_do(output: str, sentence: str) -> None:
    explained = commands.explained(output)
    assert sentence in explained
    assert "again" in explained or "pip config" in explained


def test_ctrl_c_ends_what_the_set_up_had_started(tmp_path: Path) -> None:
    code = (
        # a shell's background jobs ignore Ctrl-C, and these tests may run in one
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"import sys; sys.path.insert(0, {str(ROOT / 'setup')!r})\n"
        "import commands, pathlib\n"
        f"commands.VENDOR = commands.ROOT = pathlib.Path({str(tmp_path)!r}); commands.LOG = commands.VENDOR / 'log'\n"
        "commands.run([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    log = tmp_path / "log"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") == 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = psutil.Process(int(log.read_text().splitlines()[1]))
    os.kill(process.pid, signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
