"""A file is whole or absent."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune import files
from snaketune.errors import DataError


class Interval(files.Record, kw_only=True):
    low: float
    high: float | None = None


class Score(files.Record, kw_only=True):
    rows: int
    metrics: dict[str, Interval]
    label: str = "chrF++"


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


@pytest.mark.parametrize("value", [{"z": 1, "a": [1.5, None, "Zürich"]}, [{"é": (1, 2)}], "text", 3])
def test_plain_values_are_written_as_the_json_module_writes_them(tmp_path: Path, value: object) -> None:
    files.write_json(tmp_path / "a.json", value)
    assert (tmp_path / "a.json").read_text() == json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    files.write_jsonl(tmp_path / "a.jsonl", [value])
    assert (tmp_path / "a.jsonl").read_text() == json.dumps(value, ensure_ascii=False) + "\n"


def test_a_record_is_written_in_the_order_of_its_fields_and_read_back_equal(tmp_path: Path) -> None:
    record = Score(rows=49, metrics={"z": Interval(low=0.5), "a": Interval(low=1, high=2.25)})
    files.write_json(tmp_path / "scores.json", record)
    assert list(files.read_json(tmp_path / "scores.json")) == ["rows", "metrics", "label"]
    assert files.read_json(tmp_path / "scores.json", type=Score) == record
    assert files.read_json(tmp_path / "scores.json")["metrics"]["z"] == {"low": 0.5, "high": None}


def test_records_inside_plain_values_and_lines_are_written_alike(tmp_path: Path) -> None:
    record = Interval(low=-1.0, high=1e-9)
    files.write_json(tmp_path / "a.json", {"of": [record]})
    assert files.read_json(tmp_path / "a.json") == {"of": [{"low": -1.0, "high": 1e-9}]}
    files.write_jsonl(tmp_path / "a.jsonl", [record, record])
    assert list(files.read_jsonl(tmp_path / "a.jsonl", type=Interval)) == [record, record]
    assert files.dumps(record) == '{"high": 1e-09, "low": -1.0}'


def test_numpy_scalars_in_a_record_are_written_as_numbers(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", Interval(low=numpy.float64(0.1), high=numpy.float32(0.5)))
    assert files.read_json(tmp_path / "a.json") == {"low": 0.1, "high": 0.5}


def test_nan_in_a_record_is_never_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", Interval(low=float("nan")))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"low": 1, "upper": 2}', "unknown field `upper`"),
        ('{"high": 2}', "missing required field `low`"),
        ('{"low": "1"}', "Expected `float`, got `str`"),
        ('{"low": ', "Input data was truncated"),
    ],
)
def test_a_file_that_is_not_the_expected_record_is_refused_by_name(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "interval.json"
    path.write_text(content)
    with pytest.raises(DataError, match=problem) as raised:
        files.read_json(path, type=Interval)
    assert raised.value.where == str(path)
    lines = tmp_path / "intervals.jsonl"
    lines.write_text(f'{{"low": 0}}\n{content}\n')
    with pytest.raises(DataError, match="Interval") as raised:
        list(files.read_jsonl(lines, type=Interval))
    assert raised.value.where == f"{lines}:2"


def test_any_struct_can_be_read_and_written(tmp_path: Path) -> None:
    class Point(msgspec.Struct):
        x: int

    files.write_json(tmp_path / "a.json", Point(3))
    assert files.read_json(tmp_path / "a.json", type=Point) == Point(3)
    assert files.read_json(tmp_path / "a.json", type=dict[str, int]) == {"x": 3}
