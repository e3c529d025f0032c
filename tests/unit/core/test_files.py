"""A file is whole or absent."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune import files


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


def test_only_what_dead_processes_left_half_made_is_removed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    kept = {tmp_path / "a.tmp", tmp_path / ".a.tmp", files.temporary_name(tmp_path / "below" / "mine.gguf")}
    for path in kept:
        files.write_text(path, "kept")
    folder = tmp_path / "below" / f".fused.{dead.pid}.tmp"
    files.write_text(folder / "model.safetensors", "half")
    files.write_text(tmp_path / f".model.gguf.{dead.pid}.tmp", "half")
    files.remove_abandoned(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == kept
    assert not folder.exists()
