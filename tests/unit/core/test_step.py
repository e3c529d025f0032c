"""A step's words reach the terminal and its log; a person's mistake ends it in sentences."""

from pathlib import Path

import pytest
from snaketune import step
from snaketune.errors import DataError


def test_a_users_mistake_is_one_message_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        with step.running(tmp_path / "a.log"):
            raise DataError("the row is empty", where="a.jsonl:3", why="Nothing can be learned from it", mend="Fill it")
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
