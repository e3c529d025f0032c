"""Chooses the experiment that goes on: the best on the validation rows, and of equals the smaller model.

The test split is not used. Best is the lowest loss, or a metric of the answers to validation rows. Losses are summed
over all validation answers instead of averaged over tokens, so that bases with different tokenizers can be compared;
with one tokenizer the order is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from snaketune.config.experiments import differences
from snaketune.config.schema import did_you_mean
from snaketune.contracts.evaluate import Candidate, ExperimentResult, Selection, SelectionConfig, SelectionMetric
from snaketune.contracts.train import TrainingSummary
from snaketune.errors import ConfigError, TrainingError
from snaketune.files import StrPath, copy, read_json, write_json

VALIDATION_LOSS = SelectionMetric(name="validation_loss", label="validation loss", better="lower")
MAX_NAMED = 6  # experiments in one sentence


class StatedMethod(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a candidate's `train` section."""

    method: str
    num_virtual_tokens: int


@dataclass(frozen=True)
class SelectionOutputs:
    """The files to write: selection.json, and the chosen adapter and base where packaging looks for them."""

    selection: StrPath
    adapter: StrPath
    adapter_config: StrPath
    model: StrPath


def run(config: SelectionConfig, outputs: SelectionOutputs) -> Selection:
    """Choose and write selection.json; copy the adapter, its configuration and its base's manifest.

    The manifest also gets the load options that the base was trained with.
    """
    candidates = {one.experiment: one for one in config.experiments}
    summaries = {name: read_json(one.summary, TrainingSummary) for name, one in candidates.items()}
    scores = {name: _score(one.scores, config.metric) for name, one in candidates.items() if one.scores}
    found = select(summaries, config.tolerance, config.metric, scores)
    settings = differences({name: one.train | one.model | {"seed": one.seed} for name, one in candidates.items()})
    results = [msgspec.structs.replace(one, settings=settings[one.experiment]) for one in found.experiments]
    found = msgspec.structs.replace(found, experiments=results)
    _hand_on(candidates[found.experiment], outputs)
    write_json(outputs.selection, found)
    return found


def _hand_on(chosen: Candidate, outputs: SelectionOutputs) -> None:
    copy(chosen.adapter, outputs.adapter)
    copy(chosen.adapter_config, outputs.adapter_config)
    train = msgspec.convert(chosen.train, StatedMethod)
    read_as = {key: chosen.model[key] for key in ("chat_template", "dtype")}
    read_as |= {"num_virtual_tokens": train.num_virtual_tokens} if train.method == "prompt" else {}
    write_json(outputs.model, read_json(chosen.manifest) | {"read_as": read_as})


def select(
    summaries: Mapping[str, TrainingSummary],
    tolerance: float,
    metric: SelectionMetric = VALIDATION_LOSS,
    scores: Mapping[str, float] | None = None,
) -> Selection:
    """Choose between experiments by name; TrainingError when none has a score.

    tolerance: scores within this share of the best count as equal to it; scores: each experiment's value of a metric
    other than the loss.
    """
    results = [_result(name, summary, scores or {}) for name, summary in summaries.items()]
    costs = {
        one.experiment: one.score if metric.better == "lower" else -one.score
        for one in results
        if one.score is not None
    }
    if not costs:
        raise TrainingError(
            "no experiment has a finite validation loss",
            where="experiments",
            fix="Lower train.learning_rate, and look at each experiment's metrics.jsonl",
        )
    lowest = min(costs.values())
    best = next(one for one in results if costs.get(one.experiment) == lowest)
    limit = lowest + abs(lowest) * tolerance
    equal = [one for one in results if one.experiment in costs and costs[one.experiment] <= limit]
    winner = min(equal, key=_size)
    ranked = sorted(results, key=lambda one: (one.experiment not in costs, costs.get(one.experiment, 0.0)))
    reasons = _reasons(winner, best, equal, metric, tolerance) if len(results) > 1 else []
    if reasons and not summaries[winner.experiment].beat_base:
        reasons.append("no step of it was better than its base")
    return Selection(
        experiment=winner.experiment,
        metric=metric.name,
        reasons=reasons or [f"{winner.experiment} is the only experiment"],
        experiments=ranked,
    )


def _size(result: ExperimentResult) -> tuple[int, int, float]:
    loss = math.inf if result.total_nll is None else result.total_nll
    return result.parameters, result.trainable_parameters, loss


def _result(name: str, summary: TrainingSummary, scores: Mapping[str, float]) -> ExperimentResult:
    loss = summary.best_validation_loss
    total_nll = None if loss is None else loss * summary.validation_tokens
    return ExperimentResult(
        experiment=name,
        validation_loss=loss,
        base_validation_loss=summary.base_validation_loss,
        total_nll=total_nll,
        best_step=summary.best_step,
        steps=summary.steps,
        trainable_parameters=summary.trainable_parameters,
        parameters=summary.total_parameters,
        score=scores.get(name, total_nll),
        settings={},
    )


def _score(path: StrPath, metric: SelectionMetric) -> float:
    scores = read_json(path)["metrics"]
    if metric.name not in scores:
        raise ConfigError(
            f'the validation answers have no metric "{metric.name}"{did_you_mean(metric.name, scores)}',
            where="select.metric",
            fix=f"Choose validation_loss or one of {', '.join(scores)}",
        )
    return float(scores[metric.name]["value"])


def _reasons(
    winner: ExperimentResult,
    best: ExperimentResult,
    equal: Sequence[ExperimentResult],
    metric: SelectionMetric,
    tolerance: float,
) -> list[str]:
    """Sentences, without their full stops, on why this one was chosen among several."""
    name = winner.experiment
    by_loss = metric.name == VALIDATION_LOSS.name
    value = f"{winner.validation_loss:.4f}" if by_loss else f"{winner.score:.4g}"
    score = f"{metric.label} {value}"
    if winner is best:
        reasons = [f"{name} is the best on the validation rows ({score})"]
    else:
        reasons = [
            f"{name} ({score}) is within {tolerance:.1%} of the best, {best.experiment}, and is the smaller model"
        ]
    if len(equal) > 1:
        others = [one.experiment for one in equal if one is not winner]
        more = f" and {len(others) - MAX_NAMED} more" if len(others) > MAX_NAMED else ""
        reasons.append(f"as good within {tolerance:.1%}: {', '.join(others[:MAX_NAMED])}{more}")
    return reasons
