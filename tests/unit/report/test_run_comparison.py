"""Runs side by side: compared on the rows that both were tested on, and on nothing else."""

from __future__ import annotations

import csv
import functools
import html as html_text
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_copies import RunCopies, edit, write_report
from snaketune import files
from snaketune.contracts.run_comparison import DataChange, RunsReport
from snaketune.report import run_comparison


def reported(run: Path) -> Path:
    write_report(run)
    return run


@pytest.fixture(scope="module")
def three(run_copies: RunCopies, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    results = tmp_path_factory.mktemp("results")
    named = {"compare_with": "jessy-v1"}
    return [
        reported(run_copies.make(results / "jessy-v1", gain=0.4)),
        reported(run_copies.make(results / "jessy-v2", gain=0.95, first_row=10, more={"train": {"rank": 32}})),
        reported(run_copies.make(results / "jessy-v10", gain=0.95, first_row=10, seed=3, more=named)),
    ]


def write(folders: list[Path], where: Path) -> tuple[RunsReport, str]:
    found = run_comparison.run(
        folders=folders, page_file=where / "runs.html", record=where / "runs.json", table=where / "runs.csv", seed=1
    )
    return found, html_text.unescape((where / "runs.html").read_text(encoding="utf-8")).replace("\u00a0", " ")


def test_versions_stand_in_the_order_a_person_gives_them(three: list[Path]) -> None:
    found = run_comparison.collect(reversed(three), seed=1)
    assert [summary.run for summary in found.runs] == ["jessy-v1", "jessy-v2", "jessy-v10"]


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=2))
def test_numbers_in_names_sort_by_value(numbers: list[int]) -> None:
    names = sorted((f"run-{n}b" for n in numbers), key=run_comparison.natural_key)
    assert names == [f"run-{n}b" for n in sorted(numbers)]


@given(st.lists(st.text("a²٣12-", max_size=8), min_size=2))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    by_name = sorted(set(names), key=run_comparison.natural_key)
    by_name.reverse()
    assert sorted(by_name, key=run_comparison.natural_key) == by_name[::-1]


def test_rows_whose_split_a_later_version_declares_are_common_rows(run_copies: RunCopies, tmp_path: Path) -> None:
    older, newer = reported(run_copies.make(tmp_path / "v1")), reported(run_copies.make(tmp_path / "v2", seed=2))
    for path in newer.glob("evaluation/*/predictions.jsonl"):
        lines = list(files.read_jsonl(path))
        files.write_jsonl(path, [line | {"id": f"{line['id']}-test"} for line in lines])
    pair = run_comparison.collect([older, newer], seed=1).comparisons[0]
    assert pair.rows == len(lines)


def test_planted_gain_is_found_on_the_common_rows_and_put_in_words(three: list[Path], tmp_path: Path) -> None:
    found, html = write(three, tmp_path)
    newer = found.comparisons[0]
    assert (newer.run, newer.baseline, newer.status, newer.rows) == ("jessy-v2", "jessy-v1", "better", 30)
    assert newer.sentence.startswith("jessy-v2 is better than jessy-v1 on 30 test rows")
    assert "p < 0.001" in html
    assert f"after correction for all {found.num_tests} tests on this page" in html


def test_added_and_removed_rows_are_counted_by_their_content(three: list[Path]) -> None:
    data = run_comparison.collect(three, seed=1).comparisons[0].data
    assert data == DataChange(added=10, removed=10, kept=30 + 55, moved=0)  # 55: the training and validation rows


def test_run_is_also_compared_with_the_one_it_names(three: list[Path]) -> None:
    pairs = [(pair.run, pair.baseline) for pair in run_comparison.collect(three, seed=1).comparisons]
    assert pairs == [("jessy-v2", "jessy-v1"), ("jessy-v10", "jessy-v2"), ("jessy-v10", "jessy-v1")]


def test_headline_names_more_forgetting_beside_what_got_better(three: list[Path], tmp_path: Path) -> None:
    for folder, ratio in zip(three, (1.25, 10.5, 1.2), strict=True):
        shutil.copytree(folder, tmp_path / folder.name)
        edit(tmp_path / folder.name / "report/report.json", functools.partial(forget, ratio=ratio))
    found = run_comparison.collect([tmp_path / folder.name for folder in three], seed=1)
    assert found.comparisons[0].status == "better"
    assert "forgotten more: perplexity on general rows is 10.5 instead of 1.25 times" in found.comparisons[0].sentence
    assert "forgotten more" not in found.comparisons[1].sentence


def forget(report: dict[str, Any], ratio: float) -> None:
    for pair in report["evaluation"]["comparison"]["forgetting"]["pairs"]:
        pair["ratio"] = ratio


def test_only_settings_that_differ_are_listed_and_names_of_runs_are_none(three: list[Path]) -> None:
    settings = {each.key: each.values for each in run_comparison.collect(three, seed=1).settings}
    assert settings["train.rank"] == {"jessy-v1": 4, "jessy-v2": 32, "jessy-v10": 4}
    assert "run" not in settings
    assert "compare_with" not in settings
    assert "train.learning_rate" not in settings


def test_scores_side_by_side_are_of_the_rows_that_all_runs_answered(three: list[Path]) -> None:
    common = run_comparison.collect(three, seed=1).common
    assert common is not None
    assert common.rows == 30
    assert set(common.runs) == {"jessy-v1", "jessy-v2", "jessy-v10"}


def test_runs_without_a_common_row_are_not_compared(run_copies: RunCopies, tmp_path: Path) -> None:
    folders = [
        reported(run_copies.make(tmp_path / "a", rows=12)),
        reported(run_copies.make(tmp_path / "b", rows=12, first_row=500)),
    ]
    found, html = write(folders, tmp_path)
    assert found.comparisons[0].status == "unknown"
    assert "no test row in common" in html
    assert found.common is None


def test_row_whose_reference_changed_is_no_common_row(run_copies: RunCopies, tmp_path: Path) -> None:
    folders = [reported(run_copies.make(tmp_path / name, rows=12)) for name in "ba"]
    path = folders[1] / "evaluation/gguf-q8_0/predictions.jsonl"
    lines = list(files.read_jsonl(path))
    lines[0]["reference"] = "another answer"
    files.write_jsonl(path, lines)
    assert run_comparison.collect(folders, seed=1).comparisons[0].rows == 11


def test_one_run_or_an_unreadable_one_still_makes_a_page(run_copies: RunCopies, tmp_path: Path) -> None:
    folder = reported(run_copies.make(tmp_path / "only", rows=12))
    broken = tmp_path / "broken"
    files.write_text(broken / "report/report.json", "{")
    found, html = write([folder, broken], tmp_path)
    assert found.unreadable == ["broken"]
    assert "There is one run so far" in html
    write([], tmp_path)


def test_the_same_runs_give_the_same_bytes(three: list[Path], tmp_path: Path) -> None:
    write(three, tmp_path / "one")
    write(list(reversed(three)), tmp_path / "two")
    for name in ("runs.html", "runs.json", "runs.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_table_holds_a_line_for_each_run_with_its_scores_and_what_differs(three: list[Path], tmp_path: Path) -> None:
    found, _ = write(three, tmp_path)
    with open(tmp_path / "runs.csv", encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["run"] for row in rows] == ["jessy-v1", "jessy-v2", "jessy-v10"]
    assert [row["train.rank"] for row in rows] == ["4", "32", "4"]
    assert float(rows[1]["exact_match"]) == found.runs[1].metrics["exact_match"].value
