"""Which experiment goes on: the best on the validation rows, and of equals the smaller model.

The test split has no say in it. Best is the lowest loss, or a measure of the answers to validation rows. Losses are
summed over all validation answers rather than averaged over tokens, so that bases whose tokenizers cut text differently
can be compared; with one tokenizer the order is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from snaketune.config.experiments import differences
from snaketune.config.schema import did_you_mean
from snaketune.errors import ConfigError, TrainingError
from snaketune.files import StrPath, copy, read_json, write_json

LOSS = "validation_loss"
NAMED = 6  # experiments in one sentence


class Candidate(msgspec.Struct, kw_only=True, frozen=True):
    """One trained experiment: its name, its settings and its files, `scores` only where a metric decides."""

    experiment: str
    train: dict[str, Any]
    model: dict[str, Any]
    summary: str
    adapter: str
    adapter_config: str
    manifest: str
    scores: str | None = None


def run(
    candidates: Sequence[Candidate],
    config: dict[str, Any],
    *,
    selection: StrPath,
    adapter: StrPath,
    adapter_config: StrPath,
    model: StrPath,
) -> dict[str, Any]:
    """Choose, write selection.json, and copy the chosen adapter, its config and its base's manifest, to which it adds
    how the base was read.

    config["select"]: {"metric", "tolerance"}; config["metric"]: {"label", "better"} of what decides. A candidate
    carries its scores.json on the validation split where `by` is a metric of answers.
    """
    by, tolerance = config["select"]["metric"], config["select"]["tolerance"]
    better = config["metric"]["better"]
    measured = {one.experiment: (_score(read_json(one.scores), by), better) for one in candidates if one.scores}
    found = select({one.experiment: read_json(one.summary) for one in candidates}, tolerance, by, measured)
    differ = differences({one.experiment: one.train | one.model for one in candidates})
    for entry in found["experiments"]:
        entry["settings"] = differ[entry["experiment"]]
    (chosen,) = (one for one in candidates if one.experiment == found["experiment"])
    copy(chosen.adapter, adapter)
    copy(chosen.adapter_config, adapter_config)
    read_as = {key: chosen.model[key] for key in ("chat_template", "dtype")}
    write_json(model, read_json(chosen.manifest) | {"read_as": read_as})
    write_json(selection, found)
    return found


def select(
    summaries: dict[str, dict[str, Any]],
    tolerance: float,
    by: str = LOSS,
    measured: dict[str, tuple[float, str]] | None = None,
) -> dict[str, Any]:
    """The winner of some summary.json records, by name, with every experiment's figures and the reasons in words.

    tolerance: scores within this share of the best count as equal to it; measured: for a measure other than the loss
    each experiment's value and which way is better. Raises TrainingError when none has a score.
    """
    entries = [_entry(name, summary) for name, summary in summaries.items()]
    for entry in entries:
        value, better = (measured or {}).get(entry["experiment"], (entry["nats"], "lower"))
        entry["score"], entry["cost"] = value, value if value is None or better == "lower" else -value
    able = [entry for entry in entries if entry["cost"] is not None]
    if not able:
        raise TrainingError(
            "no experiment has a finite validation loss",
            where="experiments",
            fix="Lower train.learning_rate, and look at each experiment's metrics.jsonl",
        )
    best = min(able, key=lambda entry: entry["cost"])
    equal = [entry for entry in able if entry["cost"] <= best["cost"] + abs(best["cost"]) * tolerance]
    order = {entry["experiment"]: number for number, entry in enumerate(entries)}
    winner = min(equal, key=lambda e: (e["parameters"], e["trainable_parameters"], e["nats"], order[e["experiment"]]))
    ranked = sorted(entries, key=lambda e: (e["cost"] is None, e["cost"] or 0.0, order[e["experiment"]]))
    reasons = _reasons(winner, best, equal, entries, tolerance, by)
    for entry in entries:
        del entry["cost"]
    return {"experiment": winner["experiment"], "by": by, "reasons": reasons, "experiments": ranked}


def _score(scores: dict[str, Any], by: str) -> float:
    found = scores["metrics"].get(by)
    if found is None:
        raise ConfigError(
            f'the validation answers have no measure "{by}"{did_you_mean(by, scores["metrics"])}',
            where="select.metric",
            fix=f"Choose validation_loss or one of {', '.join(scores['metrics'])}",
        )
    return found["value"]


def _entry(name: str, summary: dict[str, Any]) -> dict[str, Any]:
    loss = summary["best_validation_loss"]
    return {
        "experiment": name,
        "validation_loss": loss,
        "base_validation_loss": summary["base_validation_loss"],
        "nats": None if loss is None else loss * summary["validation_tokens"],
        "best_update": summary["best_update"],
        "updates": summary["updates"],
        "trainable_parameters": summary["trainable_parameters"],
        "parameters": summary["total_parameters"],
    }


def _reasons(
    winner: dict[str, Any],
    best: dict[str, Any],
    equal: list[dict[str, Any]],
    entries: list[dict[str, Any]],
    tolerance: float,
    by: str,
) -> list[str]:
    name = winner["experiment"]
    if len(entries) == 1:
        return [f"{name} is the only experiment"]
    score = f"validation loss {winner['validation_loss']:.4f}" if by == LOSS else f"{by} {winner['score']:.4g}"
    if winner is best:
        said = [f"{name} is the best on the validation rows ({score})"]
    else:
        other = best["experiment"]
        said = [f"{name} ({score}) is within {tolerance:.1%} of the best, {other}, and is the smaller model"]
    if len(equal) > 1:
        others = [one["experiment"] for one in equal if one is not winner]
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        said.append(f"as good within {tolerance:.1%}: {', '.join(others[:NAMED])}{more}")
    if winner["best_update"] == 0:
        said.append("no update of it was better than its base")
    return said
