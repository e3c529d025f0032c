"""What was forecast before the training, beside what came of it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from snaketune.report.run_files import RunFiles

STAGES = {
    "package": ("Packaging", ("fuse_adapter", "convert_gguf", "quantize_gguf")),
    "evaluate": ("Answering the test rows", ("generate_answers",)),
}


def outcomes(run: RunFiles, found: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a quantity: {"what", "unit", "forecast", "low", "high", "outcome", "ratio"}; ratio is outcome / forecast.

    found: the facts so far (plan, pilot, training). The outcome is that of the experiment that the pilot tried, of the
    plan's first one where there was no pilot.
    Times of training are the trainer's own, of the other stages those of Snakemake's benchmark files, of the last time
    that each step ran; all of them one job after another.
    """
    pilot, plans = found["pilot"] or {}, (found["plan"] or {}).get("experiments") or {}
    piloted = (pilot.get("piloted") or {}).get("experiment") or next(iter(plans), None)
    forecast = pilot.get("forecast") or {}
    seconds = forecast.get("seconds") or {}
    trained = _experiment(found, piloted)
    summary, timing = trained.get("summary") or {}, trained.get("timing") or {}
    planned = plans.get(piloted) or {}
    share = forecast.get("hours_high", 0) / forecast["hours"] - 1 if forecast.get("hours") else None
    stages = {stage: stage_seconds(run.folder, steps) for stage, (_, steps) in STAGES.items()}
    stages |= {"train": timing.get("seconds"), "other_experiments": _others(found, trained)}
    rows = [
        row("Updates", "count", planned.get("steps"), summary.get("updates")),
        row("Rows seen", "count", planned.get("rows_seen"), summary.get("rows_seen")),
        row("Tokens trained", "count", planned.get("num_target_tokens"), summary.get("trained_tokens")),
        *_times(seconds, stages, share),
        row("Peak memory, by the plan", "bytes", (planned.get("memory") or {}).get("total"), _peak(timing)),
        row("Peak memory, by the pilot", "bytes", forecast.get("pilot_memory_bytes"), _peak(timing)),
        row("Validation loss", "nats", forecast.get("validation_loss"), summary.get("best_validation_loss"))
        | {end: forecast.get(f"validation_loss_{end}") for end in ("low", "high")},
    ]
    return [it for it in rows if it["forecast"] is not None]


def _times(seconds: dict[str, float], outcome: dict[str, float | None], share: float | None) -> list[dict[str, Any]]:
    """A row for each stage that was forecast, and one for all of them where all have an outcome."""
    titles = {"train": "Training time", "other_experiments": "Training of the other experiments"}
    titles |= {stage: title for stage, (title, _) in STAGES.items()}
    rows = [
        row(title, "seconds", seconds[stage], outcome[stage], share)
        for stage, title in titles.items()
        if stage in seconds
    ]
    known: list[float] = [it["outcome"] for it in rows if it["outcome"] is not None]
    together = sum(known) if known and len(known) == len(rows) else None
    return [*rows, row("All of these, one after another", "seconds", sum(seconds.values()), together, share)]


def _others(found: dict[str, Any], trained: dict[str, Any]) -> float | None:
    """Seconds that the experiments took that the pilot did not try; None where one did not say."""
    others = [it.get("timing") or {} for it in found["training"]["experiments"] if it is not trained]
    times: list[float] = [it["seconds"] for it in others if it.get("seconds") is not None]
    return sum(times) if others and len(times) == len(others) else None


def row(what: str, unit: str, forecast: Any, outcome: Any, share: float | None = None) -> dict[str, Any]:
    """share: half the width of the forecast's range, as a share of it."""
    known = isinstance(forecast, int | float) and isinstance(outcome, int | float) and forecast > 0
    return {
        "what": what,
        "unit": unit,
        "forecast": forecast,
        "low": forecast * max(0.0, 1 - share) if share is not None and forecast is not None else None,
        "high": forecast * (1 + share) if share is not None and forecast is not None else None,
        "outcome": outcome,
        "ratio": round(outcome / forecast, 4) if known else None,
    }


def stage_seconds(folder: Path, steps: tuple[str, ...]) -> float | None:
    """Seconds that the named steps took together; None where no step left a benchmark file."""
    found = []
    for path in sorted((folder / "benchmarks").glob("*.tsv")):
        if path.stem.split("-")[0] in steps:
            with open(path, encoding="utf-8", newline="") as lines:
                found += [
                    float(line["s"]) for line in csv.DictReader(lines, delimiter="\t") if _is_number(line.get("s"))
                ]
    return sum(found) if found else None


def _is_number(text: str | None) -> bool:
    return text is not None and text.replace(".", "", 1).isdigit()


def _peak(timing: dict[str, Any]) -> Any:
    return timing.get("peak_memory_bytes")


def _experiment(found: dict[str, Any], name: str | None) -> dict[str, Any]:
    experiments = found["training"]["experiments"]
    chosen = (found["training"]["selection"] or {}).get("experiment")
    for wanted in (name, chosen):
        for experiment in experiments:
            if experiment["name"] == wanted:
                return experiment
    return experiments[0] if experiments else {}
