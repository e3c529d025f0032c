"""A file is whole or absent, and one writer holds a place at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune import files
from snaketune.errors import BusyError

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


def test_a_failure_while_writing_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"kept": 1})
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:  # noqa: PT012 - the file is half written
        temporary.write_text("half")
        raise ZeroDivisionError
    assert files.read_json(path) == {"kept": 1}
    assert [left.name for left in tmp_path.iterdir()] == ["a.json"]


def test_nan_is_never_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none())))
def test_json_lines_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    assert files.write_jsonl(path, rows) == len(rows)
    assert list(files.read_jsonl(path)) == rows


HOLDER = """
import sys
from snaketune import files
with files.holding(sys.argv[1], "training"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_told_the_first_ones_process_id(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BusyError, match=f"pid {other.pid}"):
            with files.holding(path, "training"):
                pass
        other.kill()  # however a holder dies, its lock dies with it
        other.wait(30)
        with files.holding(path, "training"):
            pass
