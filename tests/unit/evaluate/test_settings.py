"""Each step depends on the settings that it reads, and on no others."""

import pytest
from snaketune import config as configuration
from snaketune.errors import ConfigError
from snaketune.evaluate import settings


def config(**given):
    return configuration.complete({"run": "x"} | given)


def test_a_target_changes_neither_answers_nor_scores():
    before, after = config(), config(evaluate={"targets": {"perplexity": 3}, "forgetting": {"limit": 1.2}})
    assert settings.answering(before, "adapter") == settings.answering(after, "adapter")
    assert settings.scoring(before) == settings.scoring(after)
    assert settings.comparing(before) != settings.comparing(after)


def test_what_the_prompted_base_is_given_changes_its_answers_alone():
    before, after = config(), config(evaluate={"prompted": {"examples": 5}})
    assert settings.answering(before, "base") == settings.answering(after, "base")
    assert settings.answering(before, "prompted") != settings.answering(after, "prompted")


def test_every_setting_belongs_to_a_step():
    known = {*settings.ANSWERING, *settings.SCORING, *settings.COMPARING, "prompted", "artefacts", "on_missed"}
    assert set(config()["evaluate"]) == known


def test_gguf_is_the_first_type_and_the_base_comes_first():
    whole = config(
        evaluate={"artefacts": ["gguf", "adapter", "base", "gguf-q8_0"]}, package={"gguf": ["q8_0", "q4_k_m"]}
    )
    assert settings.artefacts(whole) == ["base", "gguf-q8_0", "adapter"]


def test_a_gguf_that_is_not_made_is_refused_with_a_near_miss():
    whole = config(evaluate={"artefacts": ["gguf-q8_1"]}, package={"gguf": ["q8_0"]})
    with pytest.raises(ConfigError, match='did you mean "gguf-q8_0"'):
        settings.artefacts(whole)


def test_the_run_before_is_measured_when_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = config(compare_with="v0")
    assert settings.artefacts(whole)[-1] == "previous"
    with pytest.raises(ConfigError, match='no finished run "v0"'):
        settings.previous(whole)
    (tmp_path / "results/v0/model").mkdir(parents=True)
    (tmp_path / "results/v0/model/fused.json").write_text("{}")
    assert settings.previous(whole) == "results/v0/model/fused.json"


def test_a_changed_function_of_ones_own_changes_the_scores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = config(evaluate={"metrics": {"own": {"function": "mine.more:f"}}})
    seen = [settings.scoring(whole)]
    (tmp_path / "mine").mkdir()
    for code in ("one", "two"):
        (tmp_path / "mine/more.py").write_text(code)
        seen.append(settings.scoring(whole))
    assert seen[0] != seen[1] != seen[2]
