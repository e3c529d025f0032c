"""Each step depends on the settings that it reads, and on no others."""

import pytest
from snaketune.config import sections
from snaketune.config.experiments import expand
from snaketune.errors import ConfigError
from snaketune.evaluate import run_metrics, step_config


def config(**given):
    return sections.load({"run": "x"} | given)


def predicting(given, variant):
    return step_config.prediction_config(given, expand(given)["main"], variant)


def scoring(given):
    return step_config.scoring_config(given)


def comparing(given):
    return step_config.comparison_config(given)


def test_a_target_changes_neither_answers_nor_scores():
    before, after = config(), config(evaluate={"thresholds": {"perplexity": 3}, "forgetting": {"limit": 1.2}})
    assert predicting(before, "adapter") == predicting(after, "adapter")
    assert scoring(before) == scoring(after)
    assert comparing(before) != comparing(after)


def test_what_the_prompted_base_is_given_changes_its_answers_alone():
    before, after = config(), config(evaluate={"few_shot": {"num_examples": 5}})
    assert predicting(before, "base") == predicting(after, "base")
    assert predicting(before, "prompted") != predicting(after, "prompted")


def test_every_setting_belongs_to_a_step():
    of_training = {"chat_template", "num_virtual_tokens", "dtype", "seed"}
    known = {
        *(set(step_config.PredictionConfig.__struct_fields__) - of_training),
        *run_metrics.MetricSettings.__struct_fields__,
        *(set(step_config.ComparisonConfig.__struct_fields__) - {"settings", "seed"}),
        "experiments",
        "lm_eval_tasks",
        "models",
        "on_missed_threshold",
    }
    assert set(config().evaluate.__struct_fields__) == known


def test_gguf_is_the_first_type_and_the_base_comes_first():
    whole = config(evaluate={"models": ["gguf", "adapter", "base", "gguf-q8_0"]}, package={"gguf": ["q8_0", "q4_k_m"]})
    assert step_config.variants(whole) == ["base", "gguf-q8_0", "adapter"]


def test_a_gguf_that_is_not_made_is_refused_with_a_near_miss():
    whole = config(evaluate={"models": ["gguf-q8_1"]}, package={"gguf": ["q8_0"]})
    with pytest.raises(ConfigError, match='did you mean "gguf-q8_0"'):
        step_config.variants(whole)


def test_the_run_before_is_measured_when_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = config(compare_with="v0")
    assert step_config.variants(whole)[-1] == "previous"
    with pytest.raises(ConfigError, match='no finished run "v0"'):
        step_config.previous_model(whole)
    (tmp_path / "results/v0/model").mkdir(parents=True)
    (tmp_path / "results/v0/model/fused.json").write_text("{}")
    assert step_config.previous_model(whole) == "results/v0/model/fused.json"


def test_a_changed_function_of_ones_own_changes_the_scores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = config(evaluate={"metrics": {"own": {"function": "mine.more:f"}}})
    seen = [scoring(whole)]
    (tmp_path / "mine").mkdir()
    for code in ("one", "two"):
        (tmp_path / "mine/more.py").write_text(code)
        seen.append(scoring(whole))
    assert seen[0] != seen[1] != seen[2]
