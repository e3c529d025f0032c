"""Runs side by side: compared on the rows that both were tested on, and on nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import make_run
from snaketune import files
from snaketune.report import page, run_comparison


def _reported(folder: Path, **made: Any) -> Path:
    run = make_run(folder, **made)
    report = run / "report"
    page.run(folder=run, page=report / "index.html", record=report / "report.json", form=report / "human_eval.html")
    return run


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    results = tmp_path_factory.mktemp("results")
    return [
        _reported(results / "jessy-v1", gain=0.4),
        _reported(results / "jessy-v2", gain=0.95, first_row=10, more={"train": {"rank": 32}}),
        _reported(results / "jessy-v10", gain=0.95, first_row=10, seed=3, more={"compare_with": "jessy-v1"}),
    ]


def _written(folders: list[Path], where: Path) -> tuple[dict[str, Any], str]:
    found = run_comparison.run(folders=folders, page_file=where / "runs.html", record=where / "runs.json", seed=1)
    return found, (where / "runs.html").read_text(encoding="utf-8")


def test_versions_stand_in_the_order_a_person_gives_them(three: list[Path]) -> None:
    found = run_comparison.collect(reversed(three), seed=1)
    assert [it["run"] for it in found["runs"]] == ["jessy-v1", "jessy-v2", "jessy-v10"]


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=2))
def test_numbers_in_names_sort_by_value(numbers: list[int]) -> None:
    names = sorted((f"run-{n}b" for n in numbers), key=run_comparison.natural)
    assert names == [f"run-{n}b" for n in sorted(numbers)]


@given(st.lists(st.text("a²٣12-", max_size=8), min_size=2))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    by_name = sorted(set(names), key=run_comparison.natural)
    by_name.reverse()
    assert sorted(by_name, key=run_comparison.natural) == by_name[::-1]


def test_a_planted_gain_is_found_on_the_common_rows_and_said_in_words(three: list[Path], tmp_path: Path) -> None:
    found, html = _written(three, tmp_path)
    newer = found["comparisons"][0]
    assert (newer["run"], newer["against"], newer["status"], newer["rows"]) == ("jessy-v2", "jessy-v1", "better", 30)
    assert newer["sentence"].startswith("jessy-v2 is better than jessy-v1 on 30 test rows")
    assert "p &lt; 0.001" in html.replace("\u00a0", " ")


def test_added_and_removed_rows_are_counted_by_their_content(three: list[Path]) -> None:
    data = run_comparison.collect(three, seed=1)["comparisons"][0]["data"]
    assert data == {"added": 10, "removed": 10, "kept": 30, "moved": 0}


def test_a_run_is_also_compared_with_the_one_it_names(three: list[Path]) -> None:
    pairs = [(it["run"], it["against"]) for it in run_comparison.collect(three, seed=1)["comparisons"]]
    assert pairs == [("jessy-v2", "jessy-v1"), ("jessy-v10", "jessy-v2"), ("jessy-v10", "jessy-v1")]


def test_only_settings_that_differ_are_listed_and_names_of_runs_are_none(three: list[Path]) -> None:
    settings = {it["key"]: it["values"] for it in run_comparison.collect(three, seed=1)["settings"]}
    assert settings["train.rank"] == {"jessy-v1": 8, "jessy-v2": 32, "jessy-v10": 8}
    assert "run" not in settings
    assert "compare_with" not in settings
    assert "train.learning_rate" not in settings


def test_scores_side_by_side_are_of_the_rows_that_all_runs_answered(three: list[Path]) -> None:
    common = run_comparison.collect(three, seed=1)["common"]
    assert common["rows"] == 30
    assert set(common["runs"]) == {"jessy-v1", "jessy-v2", "jessy-v10"}


def test_runs_without_a_common_row_are_not_compared(tmp_path: Path) -> None:
    folders = [_reported(tmp_path / "a", rows=12), _reported(tmp_path / "b", rows=12, first_row=500)]
    found, html = _written(folders, tmp_path)
    assert found["comparisons"][0]["status"] == "unknown"
    assert "no test row in common" in html
    assert found["common"] is None


def test_a_row_whose_reference_changed_is_no_common_row(tmp_path: Path) -> None:
    folders = [_reported(tmp_path / "a", rows=12), _reported(tmp_path / "b", rows=12)]
    path = folders[1] / "evaluation/gguf-q8_0/predictions.jsonl"
    lines = list(files.read_jsonl(path))
    lines[0]["reference"] = "another answer"
    files.write_jsonl(path, lines)
    assert run_comparison.collect(folders, seed=1)["comparisons"][0]["rows"] == 11


def test_one_run_or_an_unreadable_one_still_makes_a_page(tmp_path: Path) -> None:
    folder = _reported(tmp_path / "only", rows=12)
    broken = tmp_path / "broken"
    files.write_text(broken / "report/report.json", "{")
    found, html = _written([folder, broken], tmp_path)
    assert found["unreadable"] == ["broken"]
    assert "There is one run so far" in html
    _written([], tmp_path)


def test_the_same_runs_give_the_same_bytes(three: list[Path], tmp_path: Path) -> None:
    _written(three, tmp_path / "one")
    _written(list(reversed(three)), tmp_path / "two")
    for name in ("runs.html", "runs.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
