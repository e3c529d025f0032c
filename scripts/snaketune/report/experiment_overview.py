"""Many experiments on one page: the best, the worst, and which settings make the difference."""

from __future__ import annotations

import statistics
from typing import Any

from snaketune.config.schema import canonical

TOP, BOTTOM = 12, 3
MOST = TOP + BOTTOM + 5  # so many are all shown
VALUES = 8  # of a setting


def shown(names: list[str], selection: dict[str, Any]) -> list[str]:
    """The experiments that a page shows: all of a few; of many the best and the worst of the ranking."""
    ranked = [entry["experiment"] for entry in selection.get("experiments", []) if entry.get("experiment") in names]
    if len(names) <= MOST or len(ranked) <= MOST:
        return names
    chosen = [name for name in (selection.get("experiment"),) if name in ranked[TOP:-BOTTOM]]
    return [*ranked[:TOP], *chosen, *ranked[-BOTTOM:]]


def what_matters(selection: dict[str, Any]) -> list[dict[str, Any]]:
    """For each setting that differs the validation loss by its values, those that matter most first.

    A setting's `spread` is how far the medians over its values lie apart, in nats per token. Each entry of `values`:
    {"value", "experiments", "median", "best"}, the best medians first. Empty where there are few experiments.
    """
    entries = [entry for entry in selection.get("experiments", []) if entry.get("validation_loss") is not None]
    if len(entries) <= MOST:
        return []
    found = []
    for setting in entries[0].get("settings") or {}:
        losses: dict[str, list[float]] = {}
        values = {}
        for entry in entries:
            value = entry["settings"].get(setting)
            values[canonical(value)] = value
            losses.setdefault(canonical(value), []).append(entry["validation_loss"])
        if len(losses) == len(entries):
            continue  # each has a value of its own: nothing to compare within
        rows = [
            {"value": values[key], "experiments": len(own), "median": statistics.median(own), "best": min(own)}
            for key, own in losses.items()
        ]
        rows.sort(key=lambda row: row["median"])
        spread = rows[-1]["median"] - rows[0]["median"]
        found.append({"setting": setting, "spread": spread, "values": rows[:VALUES], "left_out": len(rows[VALUES:])})
    return sorted(found, key=lambda one: -one["spread"])
