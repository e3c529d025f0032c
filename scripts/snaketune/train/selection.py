"""Which experiment goes on: the one that finds the validation answers likeliest, and of equals the smaller model.

The test split has no say in it. Losses are summed over all validation answers rather than averaged over tokens, so
that bases whose tokenizers cut text differently can be compared; with one tokenizer the order is the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from snaketune.errors import TrainingError
from snaketune.files import StrPath, read_json, replacing, write_json
from snaketune.train.experiments import differences


def run(
    *,
    summaries: Sequence[StrPath],
    adapters: Sequence[StrPath],
    adapter_configs: Sequence[StrPath],
    models: Sequence[StrPath],
    config: dict[str, Any],
    selection: StrPath,
    adapter: StrPath,
    adapter_config: StrPath,
    model: StrPath,
) -> dict[str, Any]:
    """Choose, write selection.json, and copy the chosen adapter, its config and its base's manifest.

    The lists are in the order of config["experiments"], name -> settings; config["select"]: {"tolerance"}.
    """
    names = list(config["experiments"])
    found = select(dict(zip(names, map(read_json, summaries), strict=True)), config["select"]["tolerance"])
    differ = differences(config["experiments"])
    for entry in found["experiments"]:
        entry["settings"] = differ[entry["experiment"]]
    chosen = names.index(found["experiment"])
    for source, target in (
        (adapters[chosen], adapter),
        (adapter_configs[chosen], adapter_config),
        (models[chosen], model),
    ):
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    write_json(selection, found)
    return found


def select(summaries: dict[str, dict[str, Any]], tolerance: float) -> dict[str, Any]:
    """The winner of some summary.json records, by name, with every experiment's figures and the reasons in words.

    tolerance: losses within this share of the lowest count as equal to it. Raises TrainingError when none has a loss.
    """
    entries = [_entry(name, summary) for name, summary in summaries.items()]
    able = [entry for entry in entries if entry["nats"] is not None]
    if not able:
        raise TrainingError(
            "no experiment has a finite validation loss",
            where="experiments",
            mend="Lower train.learning_rate, and look at each experiment's metrics.jsonl",
        )
    lowest = min(able, key=lambda entry: entry["nats"])
    equal = [entry for entry in able if entry["nats"] <= lowest["nats"] * (1 + tolerance)]
    order = {entry["experiment"]: number for number, entry in enumerate(entries)}
    winner = min(equal, key=lambda e: (e["parameters"], e["trainable_parameters"], order[e["experiment"]]))
    ranked = sorted(entries, key=lambda e: (e["nats"] is None, e["nats"] or 0.0, order[e["experiment"]]))
    return {
        "experiment": winner["experiment"],
        "reasons": _reasons(winner, lowest, equal, entries, tolerance),
        "experiments": ranked,
    }


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
    lowest: dict[str, Any],
    equal: list[dict[str, Any]],
    entries: list[dict[str, Any]],
    tolerance: float,
) -> list[str]:
    name = winner["experiment"]
    if len(entries) == 1:
        return [f"{name} is the only experiment"]
    loss = f"validation loss {winner['validation_loss']:.4f}"
    if winner is lowest:
        said = [f"{name} has the lowest loss over the validation answers ({loss})"]
    else:
        said = [
            f"{name} ({loss}) is within {tolerance:.1%} of the lowest, {lowest['experiment']}, and is the smaller model"
        ]
    if len(equal) > 1:
        said.append(
            f"as good within {tolerance:.1%}: {', '.join(one['experiment'] for one in equal if one is not winner)}"
        )
    if winner["best_update"] == 0:
        said.append("no update of it was better than its base")
    return said
