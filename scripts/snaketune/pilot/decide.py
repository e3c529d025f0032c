"""From a pilot to a decision: evidence, criteria, and a forecast of the full run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from snaketune.contracts.plan import (
    Criterion,
    DryRunTiming,
    LearningCurve,
    PilotDecision,
    PilotedExperiment,
    PilotForecast,
    Plan,
    PlannedExperiment,
)
from snaketune.contracts.train import TrainingSummary
from snaketune.files import StrPath, read_json, write_json
from snaketune.pilot import criteria, dry_run, evidence
from snaketune.pilot import forecast as pilot_forecast
from snaketune.pilot.criteria import LoggedMetrics
from snaketune.pilot.evidence import Evidence, RowScores
from snaketune.pilot.forecast import DecisionSettings
from snaketune.runtime.events import report_result
from snaketune.runtime.progress import format_time
from snaketune.tokens.token_store import TokenStore
from snaketune.train.metrics_log import read_metrics


@dataclass(frozen=True)
class PilotFiles:
    """What a decision is made from.

    summary, metrics, adapter: the pilot's, with timing.json and timing.jsonl beside the summary; model: the base's
    manifest; train, valid: token stores; rows: the validation rows as JSON Lines; dry_run: its report; subsets:
    summaries of the trainings on fractions of the pilot's rows.
    """

    summary: StrPath
    metrics: StrPath
    adapter: StrPath
    model: StrPath
    train: StrPath
    valid: StrPath
    rows: StrPath
    plan: StrPath
    dry_run: StrPath
    subsets: Sequence[StrPath]


def run(files: PilotFiles, settings: DecisionSettings, decision: StrPath, start_seconds: float = 0.0) -> PilotDecision:
    """Write decision.json and return it; never raises for a no-go. start_seconds: of this process until here."""
    plan = read_json(files.plan, type=Plan)
    summary, metrics = read_json(files.summary, type=TrainingSummary), read_metrics(files.metrics)
    planned = plan.experiments[settings.experiment]
    found = evidence.collect(
        files.model,
        Path(files.adapter).parent,
        TokenStore(files.valid),
        settings,
        plan,
        lambda scores: rows_decide(scores, settings.seed),
    )
    forecast = pilot_forecast.forecast(
        settings,
        plan,
        TokenStore(files.train),
        pilot_forecast.PilotTimes.read(files.summary),
        read_json(dry_run.timing(files.dry_run), type=DryRunTiming),
        dataclasses.replace(
            found.timing,
            start_seconds=found.timing.start_seconds + start_seconds,
            general_share=pilot_forecast.general_share(settings, files.rows),
        ),
    )
    expected = pilot_forecast.expected_loss(metrics, summary.best_validation_loss, summary.steps, planned.steps)
    forecast = msgspec.structs.replace(forecast, **expected or {})
    results = evaluate_criteria(settings, metrics, found, forecast, planned, method=summary.method)
    failed = [criterion for criterion in results if criterion.result == "fail"]
    result = PilotDecision(
        decision="no-go" if failed else "go",
        piloted=PilotedExperiment(experiment=settings.experiment, of=len(plan.experiments)),
        reasons=[f"{criterion.name}: {criterion.message}" for criterion in failed],
        likely_cause=criteria.likely_cause(results, summary.best_step, beat_base=summary.beat_base),
        criteria=results,
        rows=len(found.scores.base),
        rows_allowed=found.rows_allowed,
        confidence=criteria.confidence_of_each(found.looks),
        forecast=forecast,
        learning_curve=_learning_curve([*files.subsets, files.summary]) if files.subsets else None,
        overridden=bool(failed) and settings.pilot.on_no_go == "continue",
        sample=found.sample,
    )
    write_json(decision, result)
    print(criteria.table(results), file=sys.stderr)
    note = criteria.experiment_note(result.piloted)
    met = f"{len(results) - len(failed)} of {len(results)} criteria met"
    report_result(f"{result.decision}{note}: {met}; the whole run takes about {format_time(3600 * forecast.hours)}")
    return result


def rows_decide(scores: RowScores, seed: int) -> bool:
    """Whether a second look at more rows would change nothing about the criteria that depend on their number."""
    confidence = criteria.confidence_of_each(2)
    gains = [
        (scores.pilot - scores.base, scores.num_target_tokens),
        (scores.own - scores.other, scores.swapped_targets),
    ]
    return all(criteria.is_clear_of_zero(gain, targets, seed, confidence) for gain, targets in gains)


def evaluate_criteria(
    settings: DecisionSettings,
    metrics: Sequence[LoggedMetrics],
    found: Evidence,
    forecast: PilotForecast,
    planned: PlannedExperiment,
    *,
    method: str,
) -> list[Criterion]:
    """Return all criteria in the order of the page."""
    seed, scores, confidence = settings.seed, found.scores, criteria.confidence_of_each(found.looks)
    return [
        criteria.finite(metrics),
        criteria.loss_fell(metrics),
        criteria.validation_better_than_base(scores.base, scores.pilot, scores.num_target_tokens, seed, confidence),
        criteria.adapter_norm_ratio(found.adapter_norm_ratio, method),
        criteria.prompt_dependence(scores.own, scores.other, scores.swapped_targets, seed, confidence),
        criteria.score_not_worse_than_base(found.base_scores, found.pilot_scores, evidence.METRIC, seed),
        criteria.memory(forecast.memory_bytes, planned.usable_memory),
        criteria.time(forecast.hours, forecast.hours_high, settings.pilot.max_hours),
    ]


def _learning_curve(summaries: Sequence[StrPath]) -> LearningCurve:
    """Return whether more rows would help, from the summaries of the subsets and of the whole pilot."""
    found = [read_json(path) for path in summaries]
    return pilot_forecast.assess_learning_curve(
        [(summary["rows"], summary["best_validation_loss"]) for summary in found]
    )
