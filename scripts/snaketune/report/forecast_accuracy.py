"""What was forecast before the training, beside what came of it, and what the plan warned of."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from snaketune.contracts.report import ExperimentFindings, ForecastRow, Measurements, RunFindings

STAGES = {
    "package": (
        "Packaging",
        ("fuse_adapter", "convert_gguf", "quantize_gguf", "collect_imatrix", "quantize_gguf_imatrix", "quantize_mlx"),
    ),
    "fidelity": ("Proof of the files", ("check_fidelity",)),
    "evaluate": ("Answering the test rows", ("generate_answers",)),
}


def forecast_accuracy(found: RunFindings, measured: Measurements) -> list[ForecastRow]:
    """A row for each quantity that was forecast.

    The pilot tried one experiment, so that one's outcome is taken. Times of training are the trainer's own, of the
    other stages those of Snakemake's benchmark files, of the last time that each step ran; all of them one job after
    another.
    """
    plans = found.plan.experiments if found.plan else {}
    forecast = measured.decision.forecast if measured.decision else None
    piloted = found.pilot.piloted.experiment if found.pilot else None
    name = piloted if piloted in plans else next(iter(plans), None)
    trained = _experiment(found, name)
    summary = trained.summary if trained else None
    timing = measured.training.get(trained.name) if trained else None
    planned = plans[name] if name is not None else None
    share = forecast.hours_high / forecast.hours - 1 if forecast and forecast.hours else None
    peak = timing.peak_memory_bytes if timing else None
    others = _others(found, trained, measured)
    outcomes = {**measured.stages, "train": timing.seconds if timing else None, "other_experiments": others}
    best = summary.best_validation_loss if summary else None
    loss = row("Validation loss", "nats", forecast and forecast.validation_loss, best)
    rows = [
        row("Steps", "count", planned and planned.steps, summary and summary.steps),
        row("Rows seen", "count", planned and planned.rows_seen, summary and summary.rows_seen),
        row("Tokens trained", "count", planned and planned.num_target_tokens, summary and summary.num_target_tokens),
        *_times(forecast.seconds if forecast else {}, outcomes, share),
        row("Peak memory, by the plan", "bytes", planned and planned.memory.total, peak),
        row("Peak memory, by the pilot", "bytes", forecast and forecast.pilot_memory_bytes, peak),
        msgspec.structs.replace(
            loss,
            low=forecast.validation_loss_low if forecast else None,
            high=forecast.validation_loss_high if forecast else None,
        ),
    ]
    return [each for each in rows if each.forecast is not None]


def _times(
    seconds: Mapping[str, float], outcomes: Mapping[str, float | None], share: float | None
) -> Iterable[ForecastRow]:
    """A row for each stage that was forecast, and one for all of them where all have an outcome."""
    titles = {"train": "Training time", "other_experiments": "Training of the other experiments"}
    titles |= {stage: title for stage, (title, _) in STAGES.items()}
    rows = [
        row(title, "seconds", seconds[stage], outcomes.get(stage), share)
        for stage, title in titles.items()
        if stage in seconds
    ]
    known = [each.outcome for each in rows if each.outcome is not None]
    total = sum(known) if known and len(known) == len(rows) else None
    return [*rows, row("All of these, one after another", "seconds", sum(seconds.values()), total, share)]


def _others(found: RunFindings, trained: ExperimentFindings | None, measured: Measurements) -> float | None:
    """Seconds that the experiments took that the pilot did not try; None where one did not say."""
    others = [each.name for each in found.training.experiments if each is not trained]
    known = [measured.training[name].seconds for name in others if name in measured.training]
    return sum(known) if others and len(known) == len(others) else None


def row(quantity: str, unit: str, forecast: Any, outcome: Any, share: float | None = None) -> ForecastRow:
    """One quantity; share: half the width of the forecast's range, as a share of it."""
    known = isinstance(forecast, int | float) and isinstance(outcome, int | float) and forecast > 0
    ranged = share is not None and forecast is not None
    return ForecastRow(
        quantity=quantity,
        unit=unit,
        forecast=forecast,
        low=forecast * max(0.0, 1 - share) if share is not None and ranged else None,
        high=forecast * (1 + share) if share is not None and ranged else None,
        outcome=outcome,
        ratio=round(outcome / forecast, 4) if known else None,
    )


def plan_warnings(found: RunFindings) -> dict[str, list[str]]:
    """The experiments that a warning of the plan is about, by its words; none where it is about the whole run."""
    if found.plan is None:
        return {}
    experiments: dict[str, list[str]] = {warning: [] for warning in found.plan.warnings}
    for name, plan in found.plan.experiments.items():
        for warning in plan.warnings:
            experiments.setdefault(warning, []).append(name)
    return experiments


def stage_seconds(folder: Path) -> dict[str, float]:
    """Seconds that the steps of each stage took together, where they left benchmark files."""
    found: dict[str, float] = {}
    for path in sorted((folder / "benchmarks").glob("*.tsv")):
        for stage, (_, steps) in STAGES.items():
            if path.stem.split("-")[0] in steps:
                with open(path, encoding="utf-8", newline="") as lines:
                    times = [line.get("s") for line in csv.DictReader(lines, delimiter="\t")]
                known = [float(seconds) for seconds in times if seconds is not None and _is_number(seconds)]
                if known:
                    found[stage] = found.get(stage, 0.0) + sum(known)
    return found


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def _experiment(found: RunFindings, name: str | None) -> ExperimentFindings | None:
    """The experiment of that name, else the chosen one, else the first."""
    experiments = {each.name: each for each in found.training.experiments}
    chosen = found.training.selection.experiment if found.training.selection else None
    known = [experiments[each] for each in (name, chosen) if each in experiments]
    return next(iter([*known, *experiments.values()]), None)
