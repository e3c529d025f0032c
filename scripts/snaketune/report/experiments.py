"""Experiments on the page: which of many are shown, in what they differ, which settings matter; all of them as CSV."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from snaketune.config.schema import canonical
from snaketune.contracts.evaluate import ExperimentResult, Selection
from snaketune.contracts.report import SettingEffect, SettingValue
from snaketune.files import StrPath, replacing

TOP, BOTTOM = 12, 3
MOST = TOP + BOTTOM + 5  # so many are all shown
MAX_VALUES = 8  # of a setting


def select_shown(names: list[str], selection: Selection | None) -> list[str]:
    """The experiments that a page shows: all of a few; of many the best and the worst of the ranking."""
    ranked = [result.experiment for result in _results(selection) if result.experiment in names]
    if selection is None or len(names) <= MOST or len(ranked) <= MOST:
        return names
    chosen = [selection.experiment] if selection.experiment in ranked[TOP:-BOTTOM] else []
    return [*ranked[:TOP], *chosen, *ranked[-BOTTOM:]]


def settings_of(selection: Selection | None) -> dict[str, dict[str, object]]:
    """What tells the experiments apart: experiment -> setting -> value; the same settings for all."""
    return {result.experiment: result.settings for result in selection.experiments} if selection else {}


def setting_effects(selection: Selection | None) -> list[SettingEffect]:
    """For each setting that differs the validation loss by its values, those that matter most first.

    The best medians stand first. Empty where there are few experiments.
    """
    results = [result for result in _results(selection) if result.validation_loss is not None]
    if len(results) <= MOST:
        return []
    found = [_effect(setting, results) for setting in results[0].settings]
    return sorted((effect for effect in found if effect), key=lambda effect: -effect.spread)


def _results(selection: Selection | None) -> list[ExperimentResult]:
    return selection.experiments if selection else []


def _effect(setting: str, results: Sequence[ExperimentResult]) -> SettingEffect | None:
    losses: dict[str, list[float]] = {}
    values = {}
    for result in results:
        value = result.settings.get(setting)
        values[canonical(value)] = value
        if result.validation_loss is not None:
            losses.setdefault(canonical(value), []).append(result.validation_loss)
    if len(losses) == len(results):
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


def write_table(path: StrPath, selection: Selection | None) -> None:
    """Write the experiments, the best first, as CSV: a line each with its settings and what came of it."""
    import pandas

    chosen = selection.experiment if selection else None
    rows = [
        {"experiment": result.experiment, "chosen": result.experiment == chosen}
        | {f"settings.{name}": _cell(value) for name, value in result.settings.items()}
        | {
            name: value
            for name, value in msgspec.structs.asdict(result).items()
            if name not in ("experiment", "settings")
        }
        for result in _results(selection)
    ]
    columns = list(dict.fromkeys(["experiment", "chosen", *(name for row in rows for name in row)]))
    with replacing(path) as temporary:
        pandas.DataFrame(rows, columns=columns).to_csv(temporary, index=False, lineterminator="\n")


def _cell(value: object) -> object:
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list) else value
