"""Blind judging: the form hides whose answer is whose, and votes come back as what was really preferred."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snaketune.contracts.human_eval import Form, HumanRatings
from snaketune.contracts.report import (
    Answer,
    AnsweredRow,
    AnsweredRows,
    DataFindings,
    EvaluationFindings,
    ExperimentFindings,
    ModelFindings,
    RunFindings,
    TrainingFindings,
)
from snaketune.files import write_json
from snaketune.report import human_eval, vote_statistics


def findings(rows: int = 40, run: str = "jessy-v1", asked_by: int = 1) -> RunFindings:
    """The findings that the form is made of; row 0 was answered alike by both. asked_by: rows with one question."""
    answered = [
        AnsweredRow(
            id=f"row-{i}",
            prompt=f"question {i // asked_by}",
            reference=f"reference {i}",
            category="even" if i % 2 == 0 else "odd",
            cluster=f"row-{i - i % asked_by}",
            answers={
                "base": answer(f"of base {i}" if i else "same"),
                "gguf-q8_0": answer(f"of tuned {i}" if i else "same"),
            },
            change=None,
        )
        for i in range(rows)
    ]
    rows_of_both = AnsweredRows(rows=answered, total=rows, base="base", tuned="gguf-q8_0")
    none = {"report": None, "split": None, "leaks": None}
    pilot = ExperimentFindings(name="pilot", summary=None, curves={})
    return RunFindings(
        run=run,
        folder=f"results/{run}",
        config={"seed": 1},
        data=DataFindings(**none, tokens={}, rejected=[]),
        plan=None,
        pilot=None,
        training=TrainingFindings(experiments=[], left_out=0, setting_effects=[], selection=None, pilot=pilot),
        model=ModelFindings(files=[], **dict.fromkeys(set(ModelFindings.__struct_fields__) - {"files"})),
        fidelity=None,
        evaluation=EvaluationFindings(
            variants=[],
            base="base",
            tuned="gguf-q8_0",
            answered=rows,
            exact=0,
            comparison=None,
            answers=rows_of_both,
            prompts=[],
        ),
        provenance=None,
        missing=[],
        damaged=[],
    )


def answer(text: str) -> Answer:
    return Answer(text=text, chrf=None, exact=None, bits_per_byte=None, stopped=True)


def _votes(form: Form, rater: str, prefers: dict[str, str], **changed: Any) -> dict[str, Any]:
    """A votes file of a rater who prefers, by item, `tuned`, `base` or `tie`."""
    preferences = []
    for item in form.items:
        wanted = prefers.get(item.id)
        if wanted is None:
            continue
        left = "tuned" if item.left.startswith("of tuned") else "base"
        choice = "tie" if wanted == "tie" else "left" if wanted == left else "right"
        preferences.append({"id": item.id, "choice": choice, "comment": ""})
    return {
        "kind": human_eval.FILE_KIND,
        "version": 1,
        "run": form.run,
        "fingerprint": form.fingerprint,
        "rater": rater,
        "preferences": preferences,
        "ratings": [],
    } | changed


def _tallied(folder: Path, form: Form, *files: dict[str, Any]) -> HumanRatings:
    for number, content in enumerate(files):
        write_json(folder / f"votes-{number}.json", content)
    return human_eval.aggregate_votes(sorted(folder.glob("*.json")), form, seed=1)


def test_the_form_says_nowhere_which_side_is_tuned() -> None:
    form = human_eval.form(findings())
    hidden = [msgspec.structs.replace(item, left="", right="") for item in form.items]
    told = msgspec.json.encode(hidden).decode()
    assert "tuned" not in told
    assert "base" not in told
    assert "gguf" not in told


def test_each_side_shows_the_tuned_model_about_equally_often_and_not_in_a_pattern() -> None:
    form = human_eval.form(findings(rows=101))
    left = [item.left.startswith("of tuned") for item in form.items]
    assert 30 <= sum(left) <= 70
    changes = sum(a != b for a, b in itertools.pairwise(left))
    assert 30 <= changes <= 70


def test_form_asks_each_question_once_however_many_rows_share_it() -> None:
    form = human_eval.form(findings(rows=49, asked_by=4))
    assert len({item.question for item in form.items}) == len(form.items) == 12
    assert form.identical == 1


def test_a_question_answered_alike_is_left_out_and_counted() -> None:
    form = human_eval.form(findings())
    assert form.identical == 1
    assert "row-0" not in {item.id for item in form.items}


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from([f"row-{i}" for i in range(1, 40)]), st.sampled_from(["tuned", "base", "tie"])))
def test_votes_come_back_as_what_was_preferred_whatever_the_hidden_order(tmp_path_factory: Any, prefers: dict) -> None:
    form = human_eval.form(findings())
    found = _tallied(tmp_path_factory.mktemp("votes"), form, _votes(form, "A", prefers))
    counted = found.preference
    said = list(prefers.values())
    assert ((counted.tuned, counted.base, counted.ties) if counted else (0, 0, 0)) == (
        said.count("tuned"),
        said.count("base"),
        said.count("tie"),
    )
    assert found.refused == []


def test_the_interval_and_the_sign_test_are_the_textbooks(tmp_path: Path) -> None:
    form = human_eval.form(findings())
    prefers = {f"row-{i}": "tuned" if i <= 9 else "base" for i in range(1, 11)}
    found = _tallied(tmp_path, form, _votes(form, "A", prefers)).preference
    assert found.p == pytest.approx(2 * 11 / 1024)  # 9 or more heads of 10, both sides
    assert (found.low, found.high) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))


def test_a_question_counts_once_however_many_judge_it(tmp_path: Path) -> None:
    form = human_eval.form(findings())
    everyone = [_votes(form, name, {"row-1": "tuned", "row-2": "base" if name == "C" else "tuned"}) for name in "ABC"]
    found = _tallied(tmp_path, form, *everyone)
    assert found.votes == 6
    assert found.preference.questions == 2
    assert found.preference.tuned == 2


def test_preferences_are_shown_for_each_category(tmp_path: Path) -> None:
    form = human_eval.form(findings())
    prefers = {item.id: "tuned" if item.category == "even" else "base" for item in form.items}
    found = _tallied(tmp_path, form, _votes(form, "A", prefers)).categories
    assert found["even"].share == 1
    assert found["odd"].share == 0


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"run": "other"}, 'for the run "other"'),
        ({"fingerprint": "0" * 32}, "other answers"),
        ({"kind": "something"}, "not a file of votes"),
        ({"preferences": [{"id": "row-999", "choice": "left"}]}, "not asked"),
        ({"preferences": [{"id": "row-1", "choice": "<script>"}]}, "none of left, right, tie"),
        ({"preferences": "all of them"}, "not asked"),
        ({"ratings": [{"id": "row-1", "side": "left", "overall": 9}]}, "not from 1 to 5"),
    ],
)
def test_a_file_that_is_not_this_runs_is_refused_whole_and_named(tmp_path: Path, changed: dict, why: str) -> None:
    form = human_eval.form(findings())
    good = _votes(form, "good", {"row-1": "tuned"})
    bad = _votes(form, "bad", {"row-1": "base"}, **changed)
    found = _tallied(tmp_path, form, good, bad)
    assert found.raters == ["good"]
    assert [refused.file for refused in found.refused] == ["votes-1.json"]
    assert why in found.refused[0].problem


def test_arbitrary_bytes_are_refused_and_do_not_stop_the_report(tmp_path: Path) -> None:
    form = human_eval.form(findings())
    for number, content in enumerate((b"", b"\xff\xfe", b"[1, 2]", b"[" * 100_000, b"null")):
        (tmp_path / f"odd-{number}.json").write_bytes(content)
    found = human_eval.aggregate_votes(tmp_path.glob("*.json"), form, seed=1)
    assert len(found.refused) == 5
    assert found.preference is None


def test_two_files_of_one_rater_are_not_counted_twice(tmp_path: Path) -> None:
    form = human_eval.form(findings())
    same = _votes(form, "A", {"row-1": "tuned"})
    found = _tallied(tmp_path, form, same, same)
    assert found.votes == 1
    assert "two files" in found.refused[0].problem


def test_votes_on_other_answers_of_the_same_run_are_refused(tmp_path: Path) -> None:
    before = human_eval.form(findings())
    anew = findings()
    anew.evaluation.answers.rows[3].answers["gguf-q8_0"] = answer("of tuned, evaluated anew")
    found = _tallied(tmp_path, human_eval.form(anew), _votes(before, "A", {"row-1": "tuned"}))
    assert "evaluated anew" in found.refused[0].problem


def test_marks_are_given_to_the_model_behind_the_side(tmp_path: Path) -> None:
    form = human_eval.form(findings())
    ratings = []
    for item in form.items[:12]:
        for side in ("left", "right"):
            mark = 4 if getattr(item, side).startswith("of tuned") else 2
            ratings.append({"id": item.id, "side": side, "comment": ""} | dict.fromkeys(human_eval.CRITERIA, mark))
    found = _tallied(tmp_path, form, _votes(form, "A", {}, ratings=ratings)).ratings["accuracy"]
    assert (found.base, found.tuned, found.difference, found.questions) == (2, 4, 2, 12)
    assert 0.5 < found.low < 2 < found.high  # twelve equal differences do not show that all are equal


def test_alpha_is_one_for_agreement_and_about_zero_for_chance() -> None:
    def differs(a: str, b: str) -> float:
        return float(a != b)

    assert vote_statistics.krippendorff_alpha([["x", "x"], ["y", "y", "y"]], differs) == 1
    rng = random.Random(1)
    chance = [[rng.choice("xyz") for _ in range(3)] for _ in range(400)]
    assert vote_statistics.krippendorff_alpha(chance, differs) == pytest.approx(0, abs=0.06)


def test_alpha_equals_krippendorffs_own_example() -> None:
    """Computing Krippendorff's Alpha-Reliability (2011), section C: nominal data, four observers, missing values."""
    observers = [
        "1 2 3 3 2 1 4 1 2 * * *".split(),
        "1 2 3 3 2 2 4 1 2 5 * 3".split(),
        "* 3 3 3 2 3 4 2 2 5 1 *".split(),
        "1 2 3 3 2 4 4 1 2 5 1 *".split(),
    ]
    units = [[one for one in unit if one != "*"] for unit in zip(*observers, strict=True)]
    assert vote_statistics.krippendorff_alpha(units, lambda a, b: float(a != b)) == pytest.approx(0.743, abs=5e-4)
