"""Sentences of a result say what the numbers allow: how good, what got worse too, and no contradiction."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from run_copies import RunCopies, edit, rescore
from snaketune import files
from snaketune.contracts.evaluate import MetricComparison, Outcome, PairComparison
from snaketune.contracts.lm_eval import HarnessComparison, HarnessResults, Judged
from snaketune.contracts.package import ServedPrompts, ServerPrompts
from snaketune.evaluate.metrics import METRICS
from snaketune.report import collect, formatting, page, scores_in_words


def entry(
    value: float,
    baseline: float,
    *,
    half: float = 0.0,
    p: float = 0.5,
    outcome: Outcome = "no difference shown",
    least: float | None = None,
) -> MetricComparison:
    """A comparison whose interval reaches `half` to both sides of the difference."""
    return MetricComparison(
        value=value,
        baseline=baseline,
        difference=value - baseline,
        low=value - baseline - half,
        high=value - baseline + half,
        test="paired approximate randomization",
        p=p,
        p_corrected=min(1.0, 40 * p),
        outcome=outcome,
        minimum_detectable_effect=least,
    )


def pair(rows: int = 49, clusters: int = 37, **metrics: MetricComparison) -> PairComparison:
    return PairComparison(variant="gguf-q8_0", baseline="previous", rows=rows, clusters=clusters, metrics=metrics)


def test_headline_that_says_better_names_what_points_the_other_way_and_that_it_is_not_significant() -> None:
    found = pair(
        perplexity=entry(1.81, 2.07, half=0.1, p=0.0001, outcome="better"),
        chrf=entry(19.4, 24.8, half=9, p=0.2),
        token_f1=entry(0.31, 0.30, half=0.2, p=0.8),
    )
    status, sentence = scores_in_words.compare_in_words("kochen-v2", "kochen", found, METRICS)
    assert status == "better"
    assert sentence == (
        "kochen-v2 is better than kochen on 49 test rows (37 questions): answer perplexity 1.81 instead of 2.07 "
        "(p < 0.001). Worse, though not significantly: chrF++ 19.4 instead of 24.8."
    )


def test_headline_names_style_that_got_worse() -> None:
    found = pair(
        exact_match=entry(0.9, 0.2, half=0.1, p=0.0001, outcome="better"),
        stopped=entry(0.5, 1.0, half=0.1, p=0.0001, outcome="worse"),
    )
    _, sentence = scores_in_words.compare_in_words("v2", "v1", found, METRICS)
    assert sentence.endswith("Also worse: stopped by itself 50.0 % instead of 100.0 %.")


def test_rows_are_counted_with_their_questions_only_where_those_are_fewer() -> None:
    assert scores_in_words.rows_in_words(pair(rows=49, clusters=37)) == "49 test rows (37 questions)"
    assert scores_in_words.rows_in_words(pair(rows=49, clusters=49)) == "49 test rows"


@pytest.mark.parametrize(
    ("compared", "said"),
    [
        (entry(2.0, 2.73, half=0.67, p=0.03), "p = 0.030: not significant after correction for 40 tests"),
        (entry(2.0, 2.73, half=0.9, p=0.004), "p = 0.004: no difference shown, since interval and test disagree"),
        (entry(2.0, 2.73, half=0.9, p=0.4, least=1.5), "p = 0.40: no difference shown (1.50 would have shown)"),
        (entry(2.0, 2.73, half=0.2, p=1 / 10_001, outcome="better"), "p < 0.001: better"),
    ],
)
def test_interval_and_p_value_are_of_one_test_and_the_corrected_outcome_is_put_in_words(
    compared: MetricComparison, said: str
) -> None:
    words = scores_in_words.difference_in_words(METRICS["perplexity"], compared, num_tests=40)
    assert words.endswith(said)


def test_smallest_p_value_that_permutations_can_give_is_shown_as_a_bound() -> None:
    from snaketune.evaluate.compare import PERMUTATIONS

    assert formatting.format_p(1 / (PERMUTATIONS + 1)) == "p < 0.001"


def test_difference_that_no_test_set_of_this_size_could_show_is_not_given_as_a_number() -> None:
    words = scores_in_words.difference_in_words(METRICS["exact_match"], entry(0, 0, half=0.4, p=1.0, least=2.4), 40)
    assert words.endswith("no difference shown (so few rows could not have shown any)")


def test_better_over_no_right_answer_says_that_none_is_right(run_copies: RunCopies, tmp_path: Path) -> None:
    run = run_copies.make(tmp_path / "kochen", rows=49, gain=0.9)
    path = run / "evaluation/gguf-q8_0/predictions.jsonl"
    wrong = [line | {"answer": line["reference"][:2] + " zzz"} for line in files.read_jsonl(path)]
    files.write_jsonl(path, wrong)
    base = run / "evaluation/base/predictions.jsonl"
    files.write_jsonl(base, [line | {"answer": "zzzzzzzz"} for line in files.read_jsonl(base)])
    rescore(run)
    found = collect.collect(run).conclusion
    assert found.status == "better"
    assert found.quality is not None
    assert found.quality.startswith("None of 49 answers equals its reference; chrF++ is ")
    assert found.quality.endswith("of 100: better than its base is not yet good. Read the answers.")
    assert found.quality_is_low


def test_quality_of_mostly_right_answers_is_stated_without_a_warning(run_copies: RunCopies, tmp_path: Path) -> None:
    found = collect.collect(run_copies.make(tmp_path / "good", gain=1.0)).conclusion
    assert found.quality is not None
    assert found.quality.startswith("All 40 answers equal their references")
    assert not found.quality_is_low


def test_quality_leads_with_the_metrics_that_the_configuration_names(run_copies: RunCopies, tmp_path: Path) -> None:
    thresholds = {"evaluate": {"thresholds": {"token_f1": 0.5}}}
    found = collect.collect(run_copies.make(tmp_path / "named", more=thresholds)).conclusion
    assert found.quality is not None
    assert found.quality.startswith("Token F1 is ")


def test_rows_with_one_question_are_said_in_the_conclusion(run_copies: RunCopies, tmp_path: Path) -> None:
    found = collect.collect(run_copies.make(tmp_path / "shared", rows=40, asked_by=4)).conclusion
    assert "40 test rows (10 questions)" in found.sentence


def test_rows_that_the_time_did_not_allow_are_a_warning(run_copies: RunCopies, tmp_path: Path) -> None:
    folder = run_copies.make(tmp_path / "cut", rows=20, more={"evaluate": {"max_rows": 200, "max_hours": 1.5}})
    plan = files.read_json(folder / "plan.json")
    for test_rows, warned in ((20, False), (90, True)):
        files.write_json(folder / "plan.json", plan | {"rows": plan["rows"] | {"test": test_rows}})
        said = [text for text in collect.collect(folder).conclusion.warnings if "evaluate.max_hours (1.5)" in text]
        assert [text[:33] for text in said] == (["20 of 90 test rows were answered:"] if warned else [])


def test_server_that_changes_calls_of_tools_is_a_warning_with_one_that_does_not(
    run_copies: RunCopies, tmp_path: Path
) -> None:
    folder = run_copies.make(tmp_path / "tools", rows=20)
    same = ServerPrompts(server="mlx_lm.server", prompts=14, differences=0, problem=None, examples=[], calls=2)
    other = msgspec.structs.replace(same, server="llama-cpp-python", differences=1, different_calls=1)
    for servers, warned in (([same], []), ([other, same], ["serve a model that calls tools with mlx_lm.server."])):
        files.write_json(folder / "model/prompts.json", ServedPrompts(servers=servers))
        said = [text for text in collect.collect(folder).conclusion.warnings if "calls of tools" in text]
        assert [text.partition("; ")[2] for text in said] == warned
    files.write_json(folder / "model/prompts.json", ServedPrompts(servers=[other, same]))
    html = page.render(collect.collect(folder), collect.measurements(folder))
    assert "12 of 12" in html
    assert "1 of 2" in html


FALLEN = HarnessComparison(
    task="arc_easy",
    metric="acc",
    named=True,
    higher_is_better=True,
    base=0.6,
    base_stderr=0.02,
    fused=0.5,
    fused_stderr=0.02,
    documents=800,
    difference=-0.1,
    difference_stderr=0.02,
    p=0.0001,
    p_corrected=0.0002,
)


def put_lm_eval(run: Path, *comparisons: HarnessComparison) -> None:
    """What lm-eval says of the run's model on its test rows."""
    judged = Judged(model=files.sha256(run / "model/fused.json"), rows=files.sha256(run / "data/test.jsonl"))
    found = HarnessResults(version="0.4.13", message="lm-eval 0.4.13", comparisons=list(comparisons), judged=judged)
    files.write_json(run / "lm_eval" / "results.json", found)


@pytest.mark.parametrize(
    ("changed", "limit", "said"),
    [
        ({}, None, "acc of arc_easy is 0.500 instead of 0.600."),
        ({}, 1.3, "acc of arc_easy is 0.500 instead of 0.600."),
        ({}, 1.1, "acc of arc_easy is 0.500 instead of 0.600, which is above the limit."),
        ({"p_corrected": 0.06}, 1.1, None),
        ({"named": False, "p_corrected": None}, None, None),
        ({"fused": 0.7, "difference": 0.1}, None, None),
        ({"fused": 0.7, "difference": 0.1, "higher_is_better": False}, None, "acc of arc_easy is 0.700 instead of"),
    ],
)
def test_a_named_task_of_lm_eval_that_surely_got_worse_is_a_warning_of_forgetting(
    changed: dict[str, object], limit: float | None, said: str | None, run_copies: RunCopies, tmp_path: Path
) -> None:
    folder = run_copies.make(tmp_path / "named", rows=20, more={"evaluate": {"forgetting": {"limit": limit}}})
    put_lm_eval(folder, msgspec.structs.replace(FALLEN, **changed))
    found = [text for text in collect.collect(folder).conclusion.warnings if "by lm-eval" in text]
    assert len(found) == (said is not None)
    assert (said or "") in "".join(found)


@pytest.mark.parametrize(
    ("changed", "judged"),
    [
        ("model/fused.json", "an older model"),
        ("data/test.jsonl", "other test rows"),
        (None, "a model that the file does not name"),
    ],
)
def test_scores_of_lm_eval_for_another_model_stand_on_the_page_as_such_and_show_no_forgetting(
    changed: str | None, judged: str, run_copies: RunCopies, tmp_path: Path
) -> None:
    folder = run_copies.make(tmp_path / "older", rows=20)
    put_lm_eval(folder, FALLEN, msgspec.structs.replace(FALLEN, task="snaketune_older", named=False))
    assert "These scores are of" not in page.render(collect.collect(folder), collect.measurements(folder))
    if changed:
        with open(folder / changed, "a", encoding="utf-8") as file:
            file.write("\n")
    else:
        edit(folder / "lm_eval/results.json", lambda content: content.pop("judged"))
    report = collect.collect(folder)
    html = page.render(report, collect.measurements(folder))
    assert f"These scores are of <strong>{judged}</strong>" in html
    assert "arc_easy" in html.partition("By lm-evaluation-harness")[2].partition("</table>")[0]
    (said,) = (text for text in report.conclusion.warnings if "lm-eval" in text)
    assert "not known by lm-eval" in said
    assert f"of {judged}: `snakemake lm_eval`" in said
    put_lm_eval(folder, FALLEN)
    assert not any("not known" in text for text in collect.collect(folder).conclusion.warnings)


def test_scores_of_lm_eval_for_another_model_warn_of_nothing_where_no_general_task_is_named(
    run_copies: RunCopies, tmp_path: Path
) -> None:
    folder = run_copies.make(tmp_path / "older", rows=20)
    put_lm_eval(folder, msgspec.structs.replace(FALLEN, named=False))
    edit(folder / "model/fused.json", lambda content: content.update(adapter_sha256="of another training"))
    report = collect.collect(folder)
    assert report.evaluation.lm_eval_judged == "an older model"
    assert not any("lm-eval" in text for text in report.conclusion.warnings)


def test_a_metric_of_lm_eval_that_is_a_number_with_the_base_alone_is_a_warning(
    run_copies: RunCopies, tmp_path: Path
) -> None:
    folder = run_copies.make(tmp_path / "broken", rows=20)
    nothing = msgspec.structs.replace(FALLEN, fused=None, difference=None, difference_stderr=None, p=None)
    nothing = msgspec.structs.replace(nothing, p_corrected=None, metric="perplexity", fused_stderr=None)
    put_lm_eval(folder, nothing, FALLEN)
    report = collect.collect(folder)
    said = [text for text in report.conclusion.warnings if "lm-eval" in text]
    assert ["no number where its base has one: perplexity of arc_easy." in text for text in said] == [True, False]
    table = page.render(report, collect.measurements(folder)).partition("By lm-evaluation-harness")[2]
    assert table.partition("</table>")[0].count("not a number") == 1
