"""Many experiments on one page: the best, the worst, and which settings make the difference."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from snaketune.config.schema import canonical
from snaketune.contracts.report import JsonObject, SettingEffect, SettingValue
from snaketune.files import StrPath, replacing

TOP, BOTTOM = 12, 3
MOST = TOP + BOTTOM + 5  # so many are all shown
MAX_VALUES = 8  # of a setting


def select_shown(names: list[str], selection: JsonObject) -> list[str]:
    """The experiments that a page shows: all of a few; of many the best and the worst of the ranking."""
    ranked = [entry["experiment"] for entry in selection.get("experiments", []) if entry.get("experiment") in names]
    if len(names) <= MOST or len(ranked) <= MOST:
        return names
    chosen = [name for name in (selection.get("experiment"),) if name in ranked[TOP:-BOTTOM]]
    return [*ranked[:TOP], *chosen, *ranked[-BOTTOM:]]


def setting_effects(selection: JsonObject) -> list[SettingEffect]:
    """For each setting that differs the validation loss by its values, those that matter most first.

    The best medians stand first. Empty where there are few experiments.
    """
    entries = [entry for entry in selection.get("experiments", []) if entry.get("validation_loss") is not None]
    if len(entries) <= MOST:
        return []
    found = [_effect(setting, entries) for setting in entries[0].get("settings") or {}]
    return sorted((effect for effect in found if effect), key=lambda effect: -effect.spread)


def _effect(setting: str, entries: Sequence[JsonObject]) -> SettingEffect | None:
    losses: dict[str, list[float]] = {}
    values = {}
    for entry in entries:
        value = entry["settings"].get(setting)
        values[canonical(value)] = value
        losses.setdefault(canonical(value), []).append(entry["validation_loss"])
    if len(losses) == len(entries):
        return None  # each has a value of its own: nothing to compare within
    rows = [
        SettingValue(value=values[key], experiments=len(own), median=statistics.median(own), best=min(own))
        for key, own in losses.items()
    ]
    rows.sort(key=lambda row: row.median)
    return SettingEffect(
        setting=setting,
        spread=rows[-1].median - rows[0].median,
        values=rows[:MAX_VALUES],
        left_out=len(rows[MAX_VALUES:]),
    )


def write_table(path: StrPath, selection: JsonObject | None) -> None:
    """Write the experiments, the best first, as CSV: a line each with its settings and what came of it."""
    import pandas

    entries = (selection or {}).get("experiments") or []
    chosen = (selection or {}).get("experiment")
    rows = [
        {"experiment": entry.get("experiment"), "chosen": entry.get("experiment") == chosen}
        | {f"settings.{name}": _cell(value) for name, value in (entry.get("settings") or {}).items()}
        | {name: _cell(value) for name, value in entry.items() if name not in ("experiment", "settings")}
        for entry in entries
    ]
    columns = list(dict.fromkeys(["experiment", "chosen", *(name for row in rows for name in row)]))
    with replacing(path) as temporary:
        pandas.DataFrame(rows, columns=columns).to_csv(temporary, index=False, lineterminator="\n")


def _cell(value: object) -> object:
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list) else value
