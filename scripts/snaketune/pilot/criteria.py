"""What a pilot must show before hours are spent, one function for each criterion, and the gate that asks for it.

A result is `pass`, `fail`, or `unknown` where there is too little to tell (few validation rows, plain text without
questions); only `fail` leads to a no-go. Confidence intervals are percentile bootstraps over rows, at 95 %; at 97.5 %
where rows are looked at twice, so that both looks together err as often as one would (Bonferroni).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from snaketune.contracts.plan import Criterion, PilotDecision, PilotedExperiment
from snaketune.contracts.train import StepMetrics, ValidationMetrics
from snaketune.errors import NoGoError
from snaketune.evaluate import significance
from snaketune.files import StrPath, read_json, write_text
from snaketune.runtime.events import report_warning

LoggedMetrics = StepMetrics | ValidationMetrics
RESAMPLES = 2000
MIN_ROWS = 8  # a bootstrap over fewer says nothing
MIN_LOSSES = 6
MAX_ADAPTER_RATIO = 3.0
MAX_PROMPT_RATIO = 256.0  # bfloat16 has eight bits: beside such a vector it rounds a row of the embedding away
HOUR = 3600.0
GO = "go\n"
REPORT, OLDER_REPORT = "report/index.html", "report/index-older.html"
OLDER = (
    '<p role="alert" style="margin:0;padding:1em;background:#fde68a;color:#000">This report is older than the last '
    'pilot, whose decision was no-go: <a href="../pilot/index.html">the pilot\'s page</a>. It describes the model '
    "that was trained before, not the present configuration.</p>"
)


def confidence_of_each(looks: int) -> float:
    """The confidence of each look's interval, so that all looks together err as often as one 95 % interval."""
    return 1 - (1 - significance.CONFIDENCE) / looks


def interval(
    gains: np.ndarray, sizes: np.ndarray, seed: int, confidence: float = significance.CONFIDENCE
) -> tuple[float, float, float]:
    """The mean gain per unit of size with its interval, resampling rows: (mean, low, high).

    gains and sizes have one entry a row; with sizes of 1 it is the plain mean.
    """
    sums = significance.bootstrap_sums(np.stack([gains, sizes], axis=1).astype(float), RESAMPLES, seed)
    low, high = significance.percentile_interval(sums[:, 0] / sums[:, 1], len(gains), confidence)
    return float(gains.sum() / sizes.sum()), low, high


def is_clear_of_zero(gains: np.ndarray, sizes: np.ndarray, seed: int, confidence: float) -> bool:
    """Whether 0 is outside the interval of the mean gain, or more rows would not show it; see `interval`."""
    if not len(gains) or not np.isfinite(gains).all():
        return True
    if len(gains) < MIN_ROWS:
        return False
    _, low, high = interval(gains, sizes, seed, confidence)
    return low > 0 or high < 0


def _between(low: float, high: float, confidence: float) -> str:
    words = f"between {low:.3f} and {high:.3f}"
    return words if confidence == significance.CONFIDENCE else f"{words} with {confidence:.1%} confidence"


def step_losses(metrics: Sequence[LoggedMetrics]) -> list[tuple[int, float]]:
    """(step, loss) of every step whose loss is a number."""
    return [(line.step, line.loss) for line in metrics if isinstance(line, StepMetrics) and line.loss is not None]


def finite(metrics: Sequence[LoggedMetrics]) -> Criterion:
    """Check that every loss and gradient norm was a number; the trainer logs null for one that was not."""
    watched = [value for line in metrics for value in _watched(line)]
    bad = sum(value is None or not math.isfinite(value) for value in watched)
    message = (
        "every loss and gradient norm was finite" if not bad else f"{bad} losses or gradient norms were not finite"
    )
    return Criterion("finite", bad, 0, "fail" if bad else "pass", message)


def _watched(line: LoggedMetrics) -> tuple[float | None, ...]:
    return (line.loss, line.grad_norm) if isinstance(line, StepMetrics) else (line.validation_loss,)


def loss_fell(metrics: Sequence[LoggedMetrics]) -> Criterion:
    """Check that the training loss fell from the first third to the last by more than twice its standard error."""
    losses = np.array([loss for _, loss in step_losses(metrics)])
    losses = losses[np.isfinite(losses)]
    if len(losses) < MIN_LOSSES:
        return Criterion("loss fell", None, None, "unknown", f"only {len(losses)} training losses were logged")
    third = len(losses) // 3
    first, last = losses[:third], losses[-third:]
    fall = float(first.mean() - last.mean())
    noise = 2 * math.sqrt(first.var(ddof=1) / third + last.var(ddof=1) / third)
    words = f"training loss went from {first.mean():.3f} to {last.mean():.3f}"
    if fall > noise:
        return Criterion("loss fell", fall, noise, "pass", words)
    return Criterion("loss fell", fall, noise, "fail", f"{words}: it did not fall by more than chance ({noise:.3f})")


def validation_better_than_base(
    base: np.ndarray,
    pilot: np.ndarray,
    targets: np.ndarray,
    seed: int,
    confidence: float = significance.CONFIDENCE,
) -> Criterion:
    """Check that the pilot's validation loss is below the base's, beyond its confidence interval.

    base and pilot: log-probabilities of the same rows' targets (natural log); targets: how many each row has.
    """
    if len(base) < MIN_ROWS:
        message = f"{len(base)} validation rows are too few to tell; {MIN_ROWS} would do"
        return Criterion("validation better than base", None, None, "unknown", message)
    if not np.isfinite(pilot).all():
        return Criterion("validation better than base", None, 0.0, "fail", "the pilot's validation loss is not finite")
    gain, low, high = interval(pilot - base, targets, seed, confidence)
    losses = f"validation loss {-base.sum() / targets.sum():.3f} (base) and {-pilot.sum() / targets.sum():.3f} (pilot)"
    message = f"{losses}: a gain of {gain:.3f}, {_between(low, high, confidence)}"
    return Criterion("validation better than base", low, 0.0, "pass" if low > 0 else "fail", message)


def adapter_norm_ratio(size: float | None, method: str) -> Criterion:
    """Check that the adapter is not far larger than the weights it changes: else it replaces what the model knew.

    Catches a learning rate that destroys the model even while its loss falls: it then gives the same answer to every
    prompt. What prompt tuning learned is held against the rows of the embedding instead.
    """
    if method == "prompt":
        return _prompt_norm_ratio(size)
    name = "adapter norm ratio"
    if size is None:
        return Criterion(name, None, None, "unknown", "all weights are trained, so there is no adapter to measure")
    if not math.isfinite(size):
        return Criterion(name, None, MAX_ADAPTER_RATIO, "fail", "the adapter is not finite")
    message = f"its change has {size:.2g} times the norm of the weights it changes"
    return Criterion(name, size, MAX_ADAPTER_RATIO, "pass" if size < MAX_ADAPTER_RATIO else "fail", message)


def _prompt_norm_ratio(size: float | None) -> Criterion:
    """Check that no learned vector is so long that what the layers add to it is lost.

    Of a far longer vector only the direction counts, which then hardly learns any more.
    """
    name = "prompt norm ratio"
    if size is None or not math.isfinite(size):
        return Criterion(name, None, MAX_PROMPT_RATIO, "fail", "the learned vectors are not finite")
    message = f"its longest vector has {size:.2g} times the norm of a row of the embedding"
    return Criterion(name, size, MAX_PROMPT_RATIO, "pass" if size < MAX_PROMPT_RATIO else "fail", message)


def prompt_dependence(
    own: np.ndarray,
    other: np.ndarray,
    targets: np.ndarray,
    seed: int,
    confidence: float = significance.CONFIDENCE,
) -> Criterion:
    """Check that reference answers are likelier after their own prompt than after another row's.

    own and other: log-probabilities of the same answers after the one and the other. Shuffled answers fail here and
    nowhere else: their loss falls, because their form is learnt.
    """
    if len(own) < MIN_ROWS:
        message = f"{len(own)} validation rows with a question and an answer are too few to tell"
        return Criterion("prompt dependence", None, None, "unknown", message)
    if not (np.isfinite(own).all() and np.isfinite(other).all()):
        message = "the pilot gives no finite probability to the reference answers"
        return Criterion("prompt dependence", None, 0.0, "fail", message)
    gain, low, high = interval(own - other, targets, seed, confidence)
    share = float((own > other).mean())
    message = (
        f"a reference answer is likelier after its own question than after another row's in {share:.0%} of the rows, "
        f"by {gain:.3f} nats a token, {_between(low, high, confidence)}"
    )
    if low > 0:
        return Criterion("prompt dependence", low, 0.0, "pass", message)
    return Criterion("prompt dependence", low, 0.0, "fail", message)


def score_not_worse_than_base(base: np.ndarray, pilot: np.ndarray, metric: str, seed: int) -> Criterion:
    """Check that the scored sample is not worse than the base's, as far as its interval can tell."""
    if len(base) < MIN_ROWS:
        message = f"{len(base)} scored answers are too few to tell"
        return Criterion("score not worse than base", None, None, "unknown", message)
    gain, low, high = interval(pilot - base, np.ones(len(base)), seed)
    message = (
        f"{metric} of {len(base)} answers {base.mean():.1f} (base) and {pilot.mean():.1f} (pilot): "
        f"{gain:+.1f}, between {low:+.1f} and {high:+.1f}"
    )
    return Criterion("score not worse than base", high, 0.0, "fail" if high < 0 else "pass", message)


def memory(needed: int, usable: int) -> Criterion:
    """Check that the full run's peak fits into what may be used."""
    message = f"{needed / 1e9:.2f} GB of {usable / 1e9:.2f} GB that may be used"
    return Criterion("memory", needed, usable, "pass" if needed <= usable else "fail", message)


def time(hours: float, high: float, most: float) -> Criterion:
    """Check that the forecast of the full run is within `pilot.max_hours`."""
    if high >= 2 * hours:
        return Criterion("time", None, most, "unknown", "the pilot made too few updates to tell how long one takes")
    message = f"{hours:.2f} hours forecast, up to {high:.2f}; pilot.max_hours is {most:g}"
    return Criterion("time", hours, most, "pass" if hours <= most else "fail", message)


def likely_cause(found: Sequence[Criterion], best_step: int, *, beat_base: bool) -> str | None:
    """What most probably stands behind the failures, as one sentence with what to try; None after a go.

    best_step and beat_base: of the pilot's summary.
    """
    failed = {criterion.name for criterion in found if criterion.result == "fail"}
    if "finite" in failed:
        return "train.learning_rate is too high, or model.dtype float16 too narrow: try a third of the learning rate"
    if "adapter norm ratio" in failed:
        return "train.learning_rate is too high, and has broken the model: try a tenth of it"
    if "prompt norm ratio" in failed:
        return "train.learning_rate is too high for vectors of this size: try a tenth of it"
    if not beat_base and failed & {"validation better than base"}:
        if "loss fell" in failed:
            return "nothing was learnt: train.learning_rate is too low (or 0), or the pilot is too short"
        if best_step:  # of vectors that began worse than the base
            return (
                "what prompt tuning learnt is not as good as the base yet: train.learning_rate is too low, "
                "or the pilot too short"
            )
        return "training made validation worse: train.learning_rate is too high, or the pilot's rows are too few"
    if "prompt dependence" in failed:
        return (
            "the answers do not belong to their questions: look for shuffled or shifted rows in the data; if they do, "
            "the pilot is too short to show it, so raise pilot.rows or pilot.max_steps"
        )
    if "loss fell" in failed:
        return "train.learning_rate is too low, or the pilot too short"
    if "score not worse than base" in failed:
        return "the loss fell and the answers got worse: look at the sample, and at model.chat_template"
    if "memory" in failed:
        return (
            "less memory: a smaller train.batch_size with more gradient_accumulation_steps, or gradient_checkpointing"
        )
    if "time" in failed:
        return "fewer epochs or rows, a smaller base, or a higher pilot.max_hours"
    if failed:
        return "the gain is no larger than chance: raise pilot.rows or pilot.max_steps, and data.split.valid"
    return None


def experiment_note(piloted: PilotedExperiment) -> str:
    """Return which experiment the pilot trained, where there are several: in brackets, after a word."""
    return f" (of {piloted.experiment}, the first of {piloted.of} experiments)" if piloted.of > 1 else ""


def table(criteria: Sequence[Criterion]) -> str:
    """Return the criteria as lines for a terminal."""
    width = max(len(criterion.name) for criterion in criteria)
    return "\n".join(f"  {criterion.result:<8}{criterion.name:<{width}}  {criterion.message}" for criterion in criteria)


def write_go_or_raise(decision: StrPath, on_no_go: str, go: StrPath) -> None:
    """Write `go` after a go, or after a no-go that the configuration overrides; else raise NoGoError.

    A report that this run already has then moves aside and says at its top that it is older.
    """
    made = read_json(decision, type=PilotDecision)
    if made.decision == "no-go":
        lines = table(made.criteria)
        if on_no_go == "stop":
            older = set_report_aside(Path(decision).parents[1])
            note = f"The report of the training before is now {older}\n" if older else ""
            raise NoGoError(
                f"the pilot's decision{experiment_note(made.piloted)} is no-go",
                where="pilot",
                why=f"\n{lines}\n{note}",
                fix=f"Likely: {made.likely_cause}. Or go on all the same with `pilot.on_no_go: continue`",
            )
        report_warning(f"a no-go, overridden by pilot.on_no_go\n{lines}")
    write_text(go, GO)


def set_report_aside(run: Path) -> Path | None:
    """Rename an earlier report of the run, which then says that it is older; its new path, None where there is none."""
    report, older = run / REPORT, run / OLDER_REPORT
    if report.is_file():
        write_text(older, re.sub("<body[^>]*>", lambda body: body.group() + OLDER, report.read_text("utf-8"), count=1))
        report.unlink()
    return older if older.is_file() else None
