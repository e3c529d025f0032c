"""One writer holds a place at a time, and who died while holding it is known to the next."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from snaketune.errors import BusyError, ResourceError
from snaketune.runtime import locks

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
HOLDER = """
import sys
from snaketune.runtime import locks
with locks.hold_lock(sys.argv[1], "training"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def other_holding(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock until its stdin is closed or it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        try:
            yield other
        finally:
            other.kill()


def test_a_second_writer_is_told_the_first_ones_process_id_and_work(tmp_path: Path) -> None:
    with other_holding(tmp_path / "lock") as other:
        with pytest.raises(BusyError, match=rf"\(pid {other.pid}\) is already training.*kill {other.pid}"):
            with locks.hold_lock(tmp_path / "lock", "training"):
                pass


def test_a_lock_dies_with_its_holder_and_the_next_one_learns_who_it_was(tmp_path: Path) -> None:
    with other_holding(tmp_path / "lock") as other:
        other.kill()
        other.wait(30)
    with locks.hold_lock(tmp_path / "lock", "training") as dead:
        assert dead is not None
        assert (dead.pid, dead.task) == (other.pid, "training")
    with locks.hold_lock(tmp_path / "lock", "training") as dead:
        assert dead is None


def test_a_holder_that_fails_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locks.hold_lock(tmp_path / "lock", "training"):
        raise ZeroDivisionError
    with locks.hold_lock(tmp_path / "lock", "training") as dead:
        assert dead is None


@pytest.mark.parametrize("torn", ["{", "4711", '{"pid": 4711}', "[]"])
def test_a_torn_record_is_no_holder(tmp_path: Path, torn: str) -> None:
    (tmp_path / "lock").write_text(torn)
    with locks.hold_lock(tmp_path / "lock", "training") as dead:
        assert dead is None


def test_the_holder_on_another_machine_is_named_with_it(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(json.dumps({"pid": 5, "host": "node-7", "task": "training"}))
    with locks.hold_lock(tmp_path / "lock", "training") as dead:
        assert str(dead) == "pid 5 on node-7"


def test_waiting_ends_when_the_holder_does_and_says_whom_it_waits_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with other_holding(tmp_path / "lock") as other:
        waiting = threading.Thread(target=locks.wait_until_free, args=([tmp_path / "lock", tmp_path / "gone"],))
        waiting.start()
        time.sleep(0.2)
        assert waiting.is_alive()
        assert other.stdin is not None
        other.stdin.close()
        waiting.join(30)
        assert not waiting.is_alive()
    assert f"a job of a killed run (pid {other.pid}) is still training" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="nothing can be written here"):
        with locks.hold_lock(tmp_path / "file" / "lock", "training"):
            pass
