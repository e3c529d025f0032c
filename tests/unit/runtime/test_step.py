"""A step's words reach the terminal and its log; a person's mistake ends it in sentences."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from snaketune.errors import DataError
from snaketune.runtime import step


def test_a_users_mistake_is_one_message_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        with step.running(tmp_path / "a.log"):
            raise DataError("the row is empty", where="a.jsonl:3", why="Nothing can be learned from it", fix="Fill it")
    said = "snaketune: a.jsonl:3: the row is empty. Nothing can be learned from it. Fill it.\n"
    assert ended.value.code == 1
    assert capsys.readouterr().err == said
    assert (tmp_path / "a.log").read_text() == said


def test_a_defect_of_ours_keeps_its_traceback_in_the_log_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        with step.running(tmp_path / "a.log"):
            raise ZeroDivisionError
    assert "Traceback" not in capsys.readouterr().err
    assert "ZeroDivisionError" in (tmp_path / "a.log").read_text()


def test_a_step_does_not_run_twice_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with step.running(tmp_path / "a.log"):
        print("first", file=sys.stderr)
        with pytest.raises(SystemExit), step.running(tmp_path / "a.log"):
            pytest.fail("both run")
    assert f"(pid {os.getpid()}) is already running a" in capsys.readouterr().err
    assert (tmp_path / "a.log").read_text().startswith("first\n")  # not emptied by the second


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "results/a.gguf"), "results/a.gguf: the disk is full"),
        (RuntimeError("[write] Unable to write 4096 bytes to file."), "the disk is full"),
        (
            OSError(errno.EROFS, "Read-only file system", "results/a"),
            "results/a: this file or folder cannot be read or written",
        ),
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("std::bad_alloc"), "there is not enough memory"),
        (RuntimeError("the allocator is out of memory"), "there is not enough memory. Close"),
        (
            RuntimeError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.65 GiB of which 1.06 "
                "GiB is free. Process 7 has 22.58 GiB memory in use."
            ),
            "there is not enough memory on the GPU",
        ),
        (
            RuntimeError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'"),
            "not enough memory on the GPU",
        ),
        (
            RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, max allowed: 9.07 GB)."),
            "there is not enough memory on the GPU",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "there is not enough memory on the GPU",
        ),
        (
            RuntimeError(
                "[METAL] Command buffer execution failed: Insufficient Memory "
                "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
            ),
            "there is not enough memory on the GPU",
        ),
    ],
)
def test_a_failure_of_the_machine_is_told_in_its_own_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, words: str
) -> None:
    with pytest.raises(SystemExit), step.running(tmp_path / "a.log"):
        raise error
    assert words in capsys.readouterr().err
    assert words in (tmp_path / "a.log").read_text()


def test_a_step_that_does_not_need_torch_cannot_import_it(tmp_path: Path) -> None:
    code = (
        "import sys; from snaketune.runtime import step\n"
        "import snaketune.tokens.chat_template, snaketune.engines.interface\n"
        "assert 'torch' not in sys.modules, 'an import forbids torch'\n"
        f"with step.running({str(tmp_path / 'a.log')!r}, needs_torch=True):\n"
        "    assert 'torch' not in sys.modules\n"
        f"with step.running({str(tmp_path / 'b.log')!r}):\n"
        "    assert sys.modules['torch'] is None\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(step.__file__).parents[2], check=True, timeout=120)
