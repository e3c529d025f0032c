"""The test run itself: what is shared between its processes, what it starts with, and what it says it left out."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import started_first
import tools
from made_once import made_once

ROOT = Path(__file__).resolve().parents[2]
# file: how often it skips a test for another reason than a tool
OTHER_SKIPS = {
    "tests/tools.py": 2,
    "tests/e2e/test_crashes.py": 1,  # this code survived this round before
    "tests/e2e/test_machine_faults.py": 2,  # whether a disk may be mounted is known once it was tried; Linux alone
    "tests/unit/evaluate/test_null.py": 1,  # whether pip can download is known once it was tried
    "tests/cluster/conftest.py": 1,  # the reason is slurm.missing()
    "tests/trainers/published.py": 1,  # whether pip can download is known once it was tried
    "tests/trainers/test_moving_in.py": 1,  # `make trainer` is named in the reason
    "tests/trainers/test_trainers.py": 1,  # the same
    "tests/unit/engines/torch/test_nf4.py": 1,  # bitsandbytes is wanted on a card alone, and named in the reason
    "tests/unit/engines/torch/test_torch_device.py": 1,  # the system has no /proc
    "tests/unit/evaluate/test_lm_eval.py": 1,  # `make tool` is named in the reason
    "tests/unit/runtime/test_block_torch.py": 1,  # a torch for cards is imported to name its device
    "tests/unit/runtime/test_events.py": 1,  # the system has no /dev/full
    "tests/unit/runtime/test_machine.py": 1,  # only glibc gives memory back at once
    "tests/unit/setup/test_builds_for_this_machine.py": 1,  # only Linux has two builds of torch
}


def test_what_several_processes_need_is_made_by_the_first_while_the_others_wait(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tmp_path_factory.getbasetemp()  # one process has one
    made: list[str] = []

    def make(folder: Path) -> None:
        made.append(threading.current_thread().name)
        time.sleep(0.2)
        (folder / "content").write_text("whole")

    def need() -> None:
        found.append((made_once(tmp_path_factory, "needed-by-many", make) / "content").read_text())

    found: list[str] = []
    threads = [threading.Thread(target=need) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["whole"] * 4
    assert len(made) == 1


def test_what_could_not_be_made_fails_for_all_and_is_tried_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    tried = []

    def fail(folder: Path) -> None:
        tried.append(folder)
        raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="the disk is full"):
        made_once(tmp_path_factory, "never-made", fail)
    with pytest.raises(pytest.fail.Exception, match="the disk is full"):
        made_once(tmp_path_factory, "never-made", fail)
    assert len(tried) == 1


def test_every_file_that_is_started_first_exists() -> None:
    assert [name for name in started_first.LONGEST_FIRST if not (ROOT / "tests" / name).is_file()] == []


def test_a_run_without_a_tool_ends_with_its_name_and_the_command_that_installs_it(tmp_path: Path) -> None:
    """The real test file of the pages, where no browser is found."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/e2e/test_pages.py"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    [line] = [line for line in done.stdout.splitlines() if "Chromium and its driver" in line]
    assert "install" in line
    assert line.endswith("tests skipped")


def test_missing_tools_are_counted_and_other_skips_are_not_named() -> None:
    reasons = [tools.GO_LANGUAGE.reason, "Skipped: only on Linux", f"Skipped: {tools.GO_LANGUAGE.reason}"]
    assert tools.missing_tools(reasons) == [f"Go ({tools.GO_LANGUAGE.install}): 2 tests skipped"]
    assert tools.missing_tools(["Skipped: only on Linux"]) == []


def _skips(path: Path) -> Iterator[int]:
    """Lines of calls of pytest.skip, skipif and importorskip."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr in ("skip", "skipif", "importorskip"):
            yield node.lineno


def test_no_test_skips_for_a_tool_without_naming_it() -> None:
    found = {path.relative_to(ROOT).as_posix(): len(list(_skips(path))) for path in (ROOT / "tests").rglob("*.py")}
    assert {name: count for name, count in found.items() if count} == OTHER_SKIPS
