"""Which experiment goes on, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.config import schema as configuration
from snaketune.config.experiments import expand
from snaketune.config.sections import RunConfig
from snaketune.contracts.evaluate import SelectionConfig, SelectionMetric
from snaketune.contracts.train import TrainingSummary
from snaketune.errors import ConfigError, TrainingError
from snaketune.evaluate import selection


def summary_json(loss: float | None, **more: Any) -> dict[str, Any]:
    return {
        "best_validation_loss": loss,
        "base_validation_loss": 5.0,
        "validation_tokens": 100,
        "best_step": 10,
        "steps": 20,
        "trainable_parameters": 1000,
        "total_parameters": 100_000,
        "planned_steps": 20,
        "epochs": 1.0,
        "rows": 80,
        "rows_seen": 80,
        "times_each_row_was_seen": {"least": 1, "most": 1, "mean": 1.0},
        "num_target_tokens": 800,
        "positions_per_token": 1.0,
        "skipped_steps": 0,
        "stop_reason": "all steps done",
        "validation_rows": 10,
        "method": "lora",
        "seed": 1,
        **more,
    }


def summary(loss: float | None, **more: Any) -> TrainingSummary:
    return msgspec.convert(summary_json(loss, **more), TrainingSummary)


LOSSES = st.one_of(st.none(), st.floats(0.01, 20))


@given(losses=st.lists(LOSSES, min_size=1, max_size=6), tolerance=st.floats(0, 0.2))
def test_the_winner_is_within_the_tolerance_of_the_lowest_loss(losses, tolerance):
    given_ones = {f"e{number}": summary(loss) for number, loss in enumerate(losses)}
    finite = [loss for loss in losses if loss is not None]
    if not finite:
        with pytest.raises(TrainingError):
            selection.select(given_ones, tolerance)
        return
    found = selection.select(given_ones, tolerance)
    loss = given_ones[found.experiment].best_validation_loss
    assert loss is not None
    assert loss <= min(finite) * (1 + tolerance) * (1 + 1e-12)
    assert {entry.experiment for entry in found.experiments} == set(given_ones)


def test_of_equals_the_smaller_model_wins_then_the_smaller_adapter():
    found = selection.select(
        {
            "large": summary(1.0),
            "small": summary(1.0005, total_parameters=50_000),
            "smallest": summary(1.0006, total_parameters=50_000, trainable_parameters=10),
        },
        0.001,
    )
    assert found.experiment == "smallest"
    assert "smaller model" in found.reasons[0]


def test_a_lower_loss_a_token_does_not_win_if_its_tokenizer_makes_more_tokens():
    found = selection.select({"coarse": summary(2.0), "fine": summary(1.5, validation_tokens=200)}, 0.001)
    assert found.experiment == "coarse"


@pytest.mark.parametrize(("better", "winner"), [("higher", "b"), ("lower", "a")])
def test_a_named_measure_of_the_answers_decides_whatever_the_loss(better, winner):
    metric = SelectionMetric(name="exact_match", label="exact match", better=better)
    found = selection.select({"a": summary(1.0), "b": summary(2.0)}, 0.01, metric, {"a": 0.4, "b": 0.9})
    assert found.experiment == winner
    assert found.metric == "exact_match"
    assert "exact match 0." in found.reasons[0]


def test_a_metric_that_the_answers_do_not_have_is_refused_with_those_they_have(tmp_path):
    config = configuration.complete({"run": "a"})
    metric = SelectionMetric(name="exact_macht", label="exact match", better="higher")
    with pytest.raises(ConfigError, match='no metric "exact_macht"; did you mean "exact_match"'):
        selected(tmp_path, config, {"main": 1.0}, metric, scores={"exact_match": {"value": 1.0}})


def test_an_experiment_that_never_beat_its_base_says_so():
    assert (
        "no step of it was better than its base"
        in selection.select({"a": summary(5.0, best_step=0), "b": summary(6.0)}, 0.001).reasons
    )


@pytest.mark.parametrize(("loss", "best_step", "said"), [(5.5, 10, True), (4.0, 0, False)])
def test_prompt_tuning_is_held_against_its_base_and_not_against_the_vectors_it_began_with(loss, best_step, said):
    tuned = summary(loss, best_step=best_step, method="prompt")
    reasons = selection.select({"a": tuned, "b": summary(6.0)}, 0.001).reasons
    assert ("no step of it was better than its base" in reasons) is said


def test_reasons_name_only_some_of_many_equal_experiments():
    reasons = selection.select({f"point-{number}": summary(1.0) for number in range(1000)}, 0.01).reasons
    assert reasons[1].endswith("and 993 more")
    assert len(reasons[1]) < 200


def test_the_chosen_adapter_and_its_base_are_put_where_packaging_looks(tmp_path):
    model = {"chat_template": "alpaca", "dtype": "bfloat16"}
    config = configuration.complete({"run": "a", "grid": {"rank": [1, 2]}, "model": model})
    outputs = selected(tmp_path, config, {"rank-1": 2.0, "rank-2": 1.0})
    assert outputs["adapter"].read_text() == "adapter of rank-2"
    assert outputs["adapter_config"].read_text() == "adapter_config of rank-2"
    read_as = {"chat_template": "alpaca", "dtype": "bfloat16"}
    assert json.loads(outputs["model"].read_text()) == {"folder": "rank-2", "read_as": read_as}
    written = json.loads(outputs["selection"].read_text())
    assert written["experiment"] == "rank-2"
    assert [entry["settings"] for entry in written["experiments"]] == [{"rank": 2}, {"rank": 1}]


def selected(
    folder: Path,
    config: dict[str, Any],
    losses: dict[str, float],
    metric: SelectionMetric = selection.VALIDATION_LOSS,
    scores: dict[str, Any] | None = None,
) -> dict[str, Path]:
    """The outputs of a selection between experiments with these validation losses, whose files bear their names."""
    candidates = []
    for name, one in expand(msgspec.convert(config, RunConfig)).items():
        contents = {
            "summary": json.dumps(summary_json(losses[name])),
            "adapter": f"adapter of {name}",
            "adapter_config": f"adapter_config of {name}",
            "manifest": json.dumps({"folder": name}),
        } | ({"scores": json.dumps({"metrics": scores})} if scores else {})
        paths = {kind: folder / f"{kind} of {name}" for kind in contents}
        for kind, content in contents.items():
            paths[kind].write_text(content)
        candidates.append(
            {
                "experiment": name,
                "train": one.train,
                "model": one.model,
                "seed": one.seed,
                **{kind: str(path) for kind, path in paths.items()},
            }
        )
    outputs = {name: folder / "out" / name for name in ("selection", "adapter", "adapter_config", "model")}
    params = configuration.canonical(
        msgspec.to_builtins(
            {
                "experiments": candidates,
                "tolerance": config["select"]["tolerance"],
                "metric": metric,
            }
        )
    )
    selection.run(msgspec.json.decode(params, type=SelectionConfig), selection.SelectionOutputs(**outputs))
    return outputs


@pytest.mark.parametrize("names", [["small", "big"], ["big", "small"], ["z", "B", "a"], ["rank-8", "rank-16"]])
@pytest.mark.parametrize("winner", [0, 1])
def test_selection_names_the_experiment_whose_adapter_it_hands_on_in_any_order(tmp_path, names, winner):
    experiments = {name: {"rank": 4 + number} for number, name in enumerate(names)}
    config = configuration.complete({"run": "a", "experiments": experiments})
    losses = {name: 1.0 if number == winner else 2.0 for number, name in enumerate(names)}
    outputs = selected(tmp_path, config, losses)
    written = json.loads(outputs["selection"].read_text())
    assert written["experiment"] == names[winner]
    assert outputs["adapter"].read_text() == f"adapter of {names[winner]}"
    assert json.loads(outputs["model"].read_text())["folder"] == names[winner]
    found = {entry["experiment"]: (entry["settings"], entry["validation_loss"]) for entry in written["experiments"]}
    assert found == {name: (experiments[name], losses[name]) for name in names}
