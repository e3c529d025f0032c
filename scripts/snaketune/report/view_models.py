"""From facts to what the page's templates show: panels with bars, tables, sentences. Numbers become words here."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from typing import Any

from snaketune.evaluate.metrics import Metric, by_priority, find, one_per_aspect
from snaketune.report import collect, plots
from snaketune.report.formatting import duration, gap, metrics_of, number, probability, shown

MOST_PANELS = 4

Facts = dict[str, Any]


def values(found: Facts) -> dict[str, Any]:
    """Everything that page.html needs beside the facts."""
    evaluation, metrics = found["evaluation"], metrics_of(found["config"])
    return {
        "measure": functools.partial(find, metrics=metrics),
        "measures": names_of_measures(evaluation),
        "panels": panels(evaluation, metrics),
        "pairs": pairs(evaluation, metrics),
        "targets": targets(found, metrics),
        "forgetting": forgetting(found, metrics),
        "categories_table": by_category(evaluation, metrics),
        "signatures": (evaluation["comparison"] or {}).get("signatures") or {},
        "categories": sorted({row["category"] for row in evaluation["answers"]["rows"] if row["category"]}),
        "curves": plots.loss_curves(found["training"]["experiments"], "training"),
        "lengths": lengths(found),
        "settings_of": settings_of(found),
        "setting_names": list(next(iter(settings_of(found).values()), {})),
        "gains": gains(found),
        "plan_warnings": plan_warnings(found),
        "reasons": _reasons(),
        "configuration": json.dumps(found["config"], ensure_ascii=False, indent=1),
    }


def pilot_values(found: Facts) -> dict[str, Any]:
    """Everything that pilot.html needs beside the facts."""
    decision = found["pilot"] or {}
    hours = (decision.get("forecast") or {}).get("hours")
    if decision.get("decision") == "go":
        sentence = "The pilot says go" + (f": the full run would take {duration(3600 * hours)}." if hours else ".")
    elif decision:
        sentence = (
            f"The pilot says no: {'; '.join(map(str, decision.get('reasons', []))) or 'its criteria were not met'}."
        )
    else:
        sentence = "The pilot has not been decided."
    curve = {"name": "pilot", "metrics": found["training"]["pilot"]["metrics"]}
    return {
        "sentence": sentence,
        "forecast": found["outcomes"],
        "curves": plots.loss_curves([curve], "pilot"),
        "lengths": lengths(found),
        "reasons": _reasons(),
    }


def names_of_measures(evaluation: Facts) -> list[str]:
    """Every measure of any artefact, in the order in which they were made."""
    return list(dict.fromkeys(name for artefact in evaluation["artefacts"] for name in artefact.get("metrics", {})))


def panels(evaluation: Facts, metrics: Mapping[str, Metric]) -> list[dict[str, Any]]:
    """The leading metrics, of each aspect one first: for each artefact a dot and an interval in % of the width."""
    known = names_of_measures(evaluation)
    leading = one_per_aspect(known, metrics)
    rest = [name for name in by_priority(known, metrics) if name not in leading]
    shown_ones = [find(name, metrics) for name in [*leading, *rest][:MOST_PANELS]]
    return [
        {
            "title": metric.label,
            "says": metric.description + (" Logarithmic scale." if is_logarithmic(evaluation, metric) else ""),
            "bars": _bars(evaluation, metric),
        }
        for metric in shown_ones
        if metric.aspect != "style"
    ]


def is_logarithmic(evaluation: Facts, metric: Metric) -> bool:
    """Whether a metric spans so much that a linear scale would show nothing of its small values."""
    name = metric.name
    values = [it["metrics"][name]["value"] for it in evaluation["artefacts"] if name in it["metrics"]]
    return metric.unit == "plain" and min(values) > 0 and max(values) > 20 * min(values)


def _bars(evaluation: Facts, metric: Metric) -> list[dict[str, Any]]:
    name = metric.name
    entries = [
        (artefact, artefact["metrics"][name]) for artefact in evaluation["artefacts"] if name in artefact["metrics"]
    ]
    ends = [it[key] for _, it in entries for key in ("value", "low", "high") if it.get(key) is not None]
    logarithmic = is_logarithmic(evaluation, metric)
    if logarithmic:
        ends = [math.log(max(end, 1e-9)) for end in ends]
    least = min(ends) if metric.unit == "plain" else 0.0
    most = max(ends) if metric.upper_bound is None else metric.upper_bound
    margin = 0.04 * (most - least or 1.0)

    def place(value: float) -> float:
        value = math.log(max(value, 1e-9)) if logarithmic else value
        return round(100 * (value - least + margin) / (most - least + 2 * margin), 2)

    against = {pair["artefact"]: pair for pair in _pairs(evaluation) if pair["against"] == evaluation["base"]}
    bars = []
    for artefact, it in entries:
        known = it.get("low") is not None and it.get("high") is not None
        tested = against.get(artefact["name"], {}).get("metrics", {}).get(name)
        bars.append(
            {
                "title": artefact["title"],
                "tuned": artefact["name"] == evaluation["tuned"],
                "value": shown(metric, it["value"]),
                "at": place(it["value"]),
                "left": place(it["low"]) if known else None,
                "width": round(place(it["high"]) - place(it["low"]), 2) if known else None,
                "against": difference(metric, tested) if tested else "",
            }
        )
    return bars


def difference(metric: Metric, tested: dict[str, Any], other: str = "the base") -> str:
    """`+62 points against the base (45 to 77), p < 0.001: better`; a share's difference is in percentage points."""
    scale, unit = (100, " points") if metric.unit == "share" else (1, "")
    change, low, high = (signed(scale * tested[key]) for key in ("difference", "low", "high"))
    said = f"{change}{unit} against {other} ({low} to {high}), {probability(tested.get('p_corrected', tested['p']))}"
    verdict, least = tested.get("verdict"), tested.get("detectable")
    if verdict not in ("better", "worse") and least:
        return f"{said}: {verdict} ({gap(metric, least)} would have shown)"
    return f"{said}: {verdict}"


def signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else f"−{number(-value)}" if value < 0 else "0"


def _pairs(evaluation: Facts) -> list[dict[str, Any]]:
    return (evaluation["comparison"] or {}).get("pairs", [])


def pairs(evaluation: Facts, metrics: Mapping[str, Metric]) -> list[dict[str, Any]]:
    """Each paired comparison in one sentence: what is better, what is worse, and what could not be told."""
    found = []
    for pair in _pairs(evaluation):
        tested = pair.get("metrics", {})
        parts = []
        for verdict in ("better", "worse"):
            names = [find(name, metrics).in_sentence for name, it in tested.items() if it.get("verdict") == verdict]
            if names:
                parts.append(f"{verdict} in {_listed(names)}")
        rest = sum(it.get("verdict") not in ("better", "worse") for it in tested.values())
        if not parts:
            said = f"no difference that {pair['rows']} rows could show"
        else:
            said = "; ".join(parts) + (f"; no difference shown in the other {rest}" if rest else "")
        words = f"{collect.title(pair['artefact'])}, against {collect.title(pair['against'])}: {said}."
        found.append({"words": words[0].upper() + words[1:]})
    return found


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def targets(found: Facts, metrics: Mapping[str, Metric]) -> list[dict[str, Any]]:
    """The configuration's acceptance limits against the scores of the recommended file."""
    result = []
    for it in (found["evaluation"]["comparison"] or {}).get("targets") or []:
        metric = find(it["metric"], metrics)
        wanted = f"at {'most' if metric.better == 'lower' else 'least'} {shown(metric, it['limit'])}"
        result.append({"title": metric.label, "target": wanted, "value": shown(metric, it["value"]), "met": it["met"]})
    return result


def forgetting(found: Facts, metrics: Mapping[str, Metric]) -> list[dict[str, Any]]:
    """Each tuned artefact on the general set: perplexity over the base's, and every measure before and after."""
    kept = (found["evaluation"]["comparison"] or {}).get("forgetting") or {}
    return [
        {
            "title": collect.title(pair["artefact"]),
            "tuned": pair["artefact"] == found["evaluation"]["tuned"],
            "ratio": pair["ratio"],
            "within": pair["within"],
            "measures": [
                {
                    "title": metric.label,
                    "before": shown(metric, it["against"]),
                    "after": shown(metric, it["value"]),
                    "difference": difference(metric, it),
                }
                for metric, it in ((find(name, metrics), it) for name, it in pair["metrics"].items())
            ],
        }
        for pair in kept.get("pairs", [])
        if pair["artefact"] != "prompted"
    ]


def by_category(evaluation: Facts, metrics: Mapping[str, Metric]) -> dict[str, Any] | None:
    """Base and tuned scores in each category of the rows."""
    scored = {artefact["name"]: artefact for artefact in evaluation["artefacts"]}
    base, tuned = scored.get(evaluation["base"] or ""), scored.get(evaluation["tuned"] or "")
    if not base or not tuned or not tuned.get("categories"):
        return None
    names = one_per_aspect(tuned["metrics"], metrics)
    rows = []
    for category, ours in tuned["categories"].items():
        theirs = (base.get("categories") or {}).get(category, {}).get("metrics", {})
        cells = [
            {
                "base": shown(find(name, metrics), theirs.get(name, {}).get("value")),
                "tuned": shown(find(name, metrics), ours["metrics"].get(name, {}).get("value")),
            }
            for name in names
        ]
        rows.append({"category": category, "rows": ours["rows"], "cells": cells})
    return {"measures": names, "rows": rows}


def settings_of(found: Facts) -> dict[str, dict[str, Any]]:
    """What tells the experiments apart: experiment -> setting -> value; the same settings for all."""
    entries = (found["training"]["selection"] or {}).get("experiments") or []
    return {entry["experiment"]: entry.get("settings") or {} for entry in entries if entry.get("experiment")}


def plan_warnings(found: Facts) -> dict[str, list[str]]:
    """The experiments that a warning of the plan is about, by its words."""
    said: dict[str, list[str]] = {}
    for name, it in ((found["plan"] or {}).get("experiments") or {}).items():
        for warning in it.get("warnings") or []:
            said.setdefault(warning, []).append(name)
    return said


def gains(found: Facts) -> dict[str, float | None]:
    """Share of the adapter's gain in answer likelihood that each artefact keeps."""
    variants = (found["fidelity"] or {}).get("variants") or {}
    sums = {name: it.get("answer_logprob") for name, it in variants.items()}
    base, adapter = sums.get("base"), sums.get("adapter")
    if base is None or adapter is None or adapter <= base:
        return {}
    return {
        name: (value - base) / (adapter - base) for name, value in sums.items() if value is not None and name != "base"
    }


def lengths(found: Facts) -> str:
    """How long the kept rows are, as a picture."""
    return plots.lengths((found["data"]["report"] or {}).get("characters") or {}, "lengths")


def _reasons() -> dict[str, str]:
    from snaketune.data.readers.raw_row import REJECTION_REASONS

    return dict(REJECTION_REASONS)
