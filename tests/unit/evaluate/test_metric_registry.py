"""The registry is the one place that knows a metric: everything that shows or uses one asks it."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from snaketune.config import sections
from snaketune.config.sections import RunConfig
from snaketune.contracts.evaluate import Comparison, Prediction
from snaketune.errors import ConfigError
from snaketune.evaluate import metrics, run_metrics, selection, step_config
from snaketune.evaluate.metric import Metric, RowMean
from snaketune.files import read_json
from snaketune.package import card
from snaketune.report import collect, page
from unit.evaluate.test_selection import summary


def complete(**given: Any) -> RunConfig:
    return sections.load({"run": "x", **given})


def refusal(**given: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        step_config.check_metrics(complete(**given))
    return caught.value


def winner(metric: str, values: dict[str, float], **evaluate: Any) -> str:
    """The experiment chosen by a metric, from each one's value."""
    chosen_by = step_config.selection_metric(complete(select={"metric": metric}, evaluate=evaluate))
    return selection.select(dict.fromkeys(values, summary(1.0)), 0.0, chosen_by, values).experiment


@pytest.fixture
def vowel_errors() -> Iterator[type[Metric]]:
    """A metric that nothing else in the project knows: how many more vowels an answer has than its reference."""

    class VowelErrors(RowMean):
        name = "vowel_errors"
        label = "Vowel errors"
        description = "Vowels that an answer has too many or too few."
        better = "lower"
        unit = "points"
        priority = 1
        aspect = "task"

        def row_value(self, prediction: Prediction) -> float:
            texts = (prediction.answer or "", prediction.reference or "")
            answer, reference = (len(re.findall("[aeiouAEIOU]", text)) for text in texts)
            return float(abs(answer - reference))

    metrics.register(VowelErrors)
    yield VowelErrors
    del metrics.METRICS["vowel_errors"]


def test_a_metric_of_one_class_is_on_the_page_in_the_card_in_selection_and_in_thresholds(
    vowel_errors, run_copies, tmp_path
):
    run = run_copies.make(tmp_path / "toy-run", seed=11, more={"evaluate": {"thresholds": {"vowel_errors": 9}}})

    text = html.unescape(page.render(collect.collect(run), collect.measurements(run)))
    assert "<h3>Vowel errors</h3>" in text
    assert re.search(r"Vowel errors<small>lower is better", text)
    assert vowel_errors.description in text
    assert "at most 9.0" in text

    (threshold,) = read_json(run / "evaluation/comparison.json")["thresholds"]
    assert (threshold["metric"], threshold["met"]) == ("vowel_errors", True)
    assert "Write 90 for 90 points" in str(refusal(evaluate={"thresholds": {"vowel_errors": 0.9}}))

    comparison = read_json(run / "evaluation/comparison.json", Comparison)
    assert "| Vowel errors (lower is better) |" in card.score_table(comparison)

    assert winner("vowel_errors", {"zebra": 3.0, "ant": 5.0}) == "zebra"


def test_repetition_selects_the_experiment_that_repeats_itself_least():
    assert winner("repetition", {"parrot": 0.9, "owl": 0.1, "magpie": 0.4}) == "owl"
    assert winner("chrf", {"parrot": 9.0, "owl": 71.0, "magpie": 40.0}) == "owl"


def test_a_custom_metric_that_is_better_when_lower_selects_the_lowest():
    custom = {"profanity": {"function": "m:f", "better": "lower"}}
    assert winner("profanity", {"parrot": 0.9, "owl": 0.1}, metrics=custom) == "owl"


def test_a_custom_metric_that_is_better_when_lower_is_labelled_so_on_the_page(run_copies, tmp_path, monkeypatch):
    (tmp_path / "swearing.py").write_text("def profanity(line):\n    return len(line['answer']) % 2\n")
    monkeypatch.chdir(tmp_path)
    custom = {"profanity": {"function": "swearing:profanity", "better": "lower"}}
    run = run_copies.make(tmp_path / "polite", seed=12, more={"evaluate": {"metrics": custom}})
    text = page.render(collect.collect(run), collect.measurements(run))
    assert "profanity<small>lower is better" in text
    assert "profanity<small>higher is better" not in text


@pytest.mark.parametrize(
    ("given", "where", "message"),
    [
        ({"select": {"metric": "chrF++"}}, "select.metric", 'did you mean "chrf"'),
        ({"select": {"metric": "ROUGE-L"}}, "select.metric", 'did you mean "rouge_l"'),
        ({"select": {"metric": "Exact match"}}, "select.metric", 'did you mean "exact_match"'),
        ({"select": {"metric": "perplexty"}}, "select.metric", 'did you mean "perplexity"'),
        ({"select": {"metric": "xyz"}}, "select.metric", "Name one of validation_loss, perplexity"),
        ({"select": {"metric": "length_ratio"}}, "select.metric", "no better direction"),
        ({"select": {"metric": "similarity"}}, "select.metric", "needs an embedding model"),
        ({"evaluate": {"thresholds": {"chrF": 50}}}, "evaluate.thresholds.chrF", 'did you mean "chrf"'),
        ({"evaluate": {"thresholds": {"length_ratio": 1}}}, "evaluate.thresholds.length_ratio", "no better direction"),
        ({"evaluate": {"thresholds": {"rouge_l": 40}}}, "evaluate.thresholds.rouge_l", "from 0 to 1"),
        ({"evaluate": {"metrics": {"chrf": {"function": "m:f"}}}}, "evaluate.metrics.chrf", "snaketune's own"),
    ],
)
def test_a_metric_name_that_cannot_be_meant_is_refused_with_its_key(given, where, message):
    error = refusal(**given)
    assert error.where == where
    assert message in str(error)


def test_names_of_custom_metrics_are_accepted_wherever_a_metric_is_named():
    custom = {"right": {"function": "m:f"}}
    config = complete(select={"metric": "right"}, evaluate={"metrics": custom, "thresholds": {"right": 0.5, "ter": 40}})
    step_config.check_metrics(config)


def test_a_second_metric_of_one_name_is_refused(vowel_errors):
    with pytest.raises(ValueError, match="registered already"):
        metrics.register(vowel_errors)


def test_the_registry_imports_nothing_heavy():
    code = (
        "import sys, snaketune.evaluate.step_config as s; print(*({'numpy', 'sacrebleu', 'pandas'} & set(sys.modules)))"
    )
    scripts = Path(metrics.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_metric_says_what_readers_need():
    for name, metric in metrics.METRICS.items():
        assert metric.name == name
        assert metric.label
        assert metric.description.endswith(".")
        assert metric.upper_bound in (None, {"share": 1.0, "points": 100.0}.get(metric.unit))


def test_documentation_has_the_metrics_of_the_registry():
    page = (Path(__file__).resolve().parents[3] / "docs/evaluation.md").read_text(encoding="utf-8")
    assert page == run_metrics.regenerate_documentation(page), "run `make docs`"
