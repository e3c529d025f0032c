"""Scores and comparisons in sentences: what is better or worse than what, by how much, and how good it is in itself.

Intervals and p-values in a sentence are of that test alone, so that the two agree; whether something is better or
worse is decided after correction for all tests that were made together, and said in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from snaketune.contracts.evaluate import MetricComparison, PairComparison, SetScores
from snaketune.contracts.report import RunFindings, Status
from snaketune.evaluate.metric import Metric, by_priority, find, one_per_aspect
from snaketune.evaluate.significance import ALPHA
from snaketune.report.formatting import (
    format_difference,
    format_number,
    format_p,
    format_signed,
    format_value,
    metrics_of,
)

LOW_SHARE = 0.5  # below so many exact answers, and so much overlap with the references, a warning stands above the fold
MOST_NOT_SIGNIFICANT = 2  # metrics in a headline that point the other way
Metrics = Mapping[str, Metric]
Comparisons = Mapping[str, MetricComparison]


def compare_in_words(name: str, baseline: str, pair: PairComparison, metrics: Metrics) -> tuple[Status, str]:
    """A paired comparison's status and the sentence that says so, with what got worse beside what got better."""
    tested = without_style(pair.metrics, metrics)
    better, worse = (leading_metric(tested, outcome, metrics) for outcome in ("better", "worse"))
    rows = rows_in_words(pair)
    if better and worse:
        parts = f"better in {phrase(better, tested, metrics)}, and worse in {phrase(worse, tested, metrics)}"
        status, sentence = "mixed", f"{name} is {parts}, than {baseline} on {rows}."
    elif better or worse:
        status, leading = ("better", better) if better else ("worse", worse or "")
        sentence = f"{name} is {status} than {baseline} on {rows}: {phrase(leading, tested, metrics)}."
    elif tested:
        status, sentence = "same", _no_difference(name, baseline, rows, tested, metrics)
    else:
        return "unknown", f"{name} and {baseline} share no metric, so there is no conclusion."
    return _as_status(status), " ".join([sentence, *_other_side(status, pair.metrics, metrics)])


def _as_status(status: str) -> Status:
    statuses: dict[str, Status] = {"better": "better", "worse": "worse", "mixed": "mixed", "same": "same"}
    return statuses[status]


def rows_in_words(pair: PairComparison) -> str:
    """`49 test rows (37 questions)`: the second number is that of independent observations, where it differs."""
    rows = f"{pair.rows} test {'row' if pair.rows == 1 else 'rows'}"
    questions = "question" if pair.clusters == 1 else "questions"
    return f"{rows} ({pair.clusters} {questions})" if pair.clusters < pair.rows else rows


def _no_difference(name: str, baseline: str, rows: str, tested: Comparisons, metrics: Metrics) -> str:
    leading = by_priority(tested, metrics)[0]
    metric, entry = find(leading, metrics), tested[leading]
    values = f"{format_value(metric, entry.value)} against {format_value(metric, entry.baseline)}"
    least = entry.minimum_detectable_effect
    if is_too_few(metric, least):
        could = "; so few rows could not have shown any"
    else:
        could = (
            f"; {format_difference(metric, least)} would have been found in four of five such tests" if least else ""
        )
    return f"No difference between {name} and {baseline} that {rows} could show: {metric.in_sentence} {values}{could}."


def is_too_few(metric: Metric, least: float | None) -> bool:
    """Whether the smallest difference that would have been found is larger than any that there can be."""
    return least is not None and metric.upper_bound is not None and least > metric.upper_bound


def _other_side(status: str, compared: Comparisons, metrics: Metrics) -> Iterable[str]:
    """What a headline must not hide: style that got worse, and what points the other way without being significant."""
    style = [name for name in _with_outcome(compared, "worse") if find(name, metrics).aspect == "style"]
    if style:
        yield f"Also worse: {_phrases(by_priority(style, metrics), compared, metrics)}."
    if status != "better":
        return
    against = [
        name
        for name in by_priority(without_style(compared, metrics), metrics)
        if compared[name].outcome == "no difference shown" and _points_to_worse(find(name, metrics), compared[name])
    ]
    if against:
        text = _phrases(against[:MOST_NOT_SIGNIFICANT], compared, metrics)
        yield f"Worse, though not significantly: {text}."


def _points_to_worse(metric: Metric, entry: MetricComparison) -> bool:
    return (entry.difference < 0) if metric.better == "higher" else (entry.difference > 0)


def forgetting_in_words(ratio: float | None, previous: float | None) -> str | None:
    """A sentence where a run forgot more than the one before it, by the ratios of their perplexities to the base's."""
    if ratio is None or previous is None or ratio <= previous:
        return None
    return (
        f"It has forgotten more: perplexity on general rows is {format_number(ratio)} instead of "
        f"{format_number(previous)} times the base's."
    )


def difference_in_words(metric: Metric, entry: MetricComparison, num_tests: int, other: str = "the base") -> str:
    """`+62 points against the base (45 to 77), p < 0.001: better`; a share's difference is in percentage points."""
    scale, unit = (100, " points") if metric.unit == "share" else (1, "")
    change = f"{format_signed(scale * entry.difference)}{unit} against {other}"
    if entry.low is None or entry.high is None:
        same = "the same in every row" if entry.difference == 0 else entry.outcome
        return f"{change}: {same}"
    interval = f"({format_signed(scale * entry.low)} to {format_signed(scale * entry.high)})"
    return f"{change} {interval}, {format_p(entry.p)}: {_outcome_in_words(metric, entry, num_tests)}"


def _outcome_in_words(metric: Metric, entry: MetricComparison, num_tests: int) -> str:
    """The corrected outcome, so that it does not contradict the interval and the p-value beside it."""
    if entry.outcome != "no difference shown":
        return entry.outcome
    by_test = entry.p < ALPHA
    by_interval = entry.low is not None and entry.high is not None and not entry.low <= 0 <= entry.high
    if by_test and by_interval:
        return f"not significant after correction for {num_tests} tests"
    if by_test != by_interval:
        return "no difference shown, since interval and test disagree"
    least = entry.minimum_detectable_effect
    if is_too_few(metric, least):
        return "no difference shown (so few rows could not have shown any)"
    return f"no difference shown ({format_difference(metric, least)} would have shown)" if least else entry.outcome


def without_style(compared: Comparisons, metrics: Metrics) -> dict[str, MetricComparison]:
    """The metrics that tell whether answers are right, not how they are given."""
    return {name: entry for name, entry in compared.items() if find(name, metrics).aspect != "style"}


def _with_outcome(compared: Comparisons, outcome: str) -> list[str]:
    return [name for name, entry in compared.items() if entry.outcome == outcome]


def leading_metric(compared: Comparisons, outcome: str, metrics: Metrics) -> str | None:
    """The metric that says it best, of those with this outcome."""
    return next(iter(by_priority(_with_outcome(compared, outcome), metrics)), None)


def phrase(name: str, compared: Comparisons, metrics: Metrics) -> str:
    return f"{_values(name, compared, metrics)} ({format_p(compared[name].p)})"


def _phrases(names: Iterable[str], compared: Comparisons, metrics: Metrics) -> str:
    return listed([_values(name, compared, metrics) for name in names])


def _values(name: str, compared: Comparisons, metrics: Metrics) -> str:
    metric, entry = find(name, metrics), compared[name]
    return f"{metric.in_sentence} {format_value(metric, entry.value)} instead of {format_value(metric, entry.baseline)}"


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def absolute_quality(found: RunFindings, status: Status) -> tuple[str | None, bool]:
    """How good the answers are in themselves, in the measures a person cares about first, and whether that is low."""
    evaluation, metrics = found.evaluation, metrics_of(found.config)
    scores = evaluation.scores_of(evaluation.tuned)
    if scores is None:
        return None, False
    if not evaluation.answered:
        return "The test rows are plain texts, so nothing is known of how good its answers are.", False
    parts = [_score_phrase(name, scores, metrics) for name in _cared_about(found, scores, metrics)]
    parts.append(_exact_phrase(evaluation.exact, evaluation.answered))
    overlap = next((name for name in one_per_aspect(scores.metrics, metrics) if _is_overlap(name, metrics)), None)
    if overlap:
        parts.append(_score_phrase(overlap, scores, metrics) + _of_scale(find(overlap, metrics)))
    is_low = evaluation.exact < LOW_SHARE * evaluation.answered and _overlap_share(overlap, scores, metrics) < LOW_SHARE
    text = "; ".join(parts)
    text = text[0].upper() + text[1:]
    if not is_low:
        return f"{text}.", False
    tail = ": better than its base is not yet good. Read the answers." if status == "better" else ". Read the answers."
    return text + tail, True


def _cared_about(found: RunFindings, scores: SetScores, metrics: Metrics) -> list[str]:
    """The metrics that the configuration itself names: those with a threshold, and custom ones."""
    comparison = found.evaluation.comparison
    named = [result.metric for result in comparison.thresholds] if comparison else []
    named += [name for name in scores.metrics if find(name, metrics).aspect == "task" and name in metrics]
    text = {"exact_match", "chrf"}
    return [name for name in dict.fromkeys(named) if name in scores.metrics and name not in text]


def _exact_phrase(exact: int, answered: int) -> str:
    if exact == answered:
        return f"all {answered} answers equal their references" if answered > 1 else "the answer equals its reference"
    if exact == 0:
        return f"none of {answered} answers equals its reference"
    few = "only " if exact < LOW_SHARE * answered else ""
    return f"{few}{exact} of {answered} answers {'equals its reference' if exact == 1 else 'equal their references'}"


def _score_phrase(name: str, scores: SetScores, metrics: Metrics) -> str:
    metric = find(name, metrics)
    return f"{metric.in_sentence} is {format_value(metric, scores.metrics[name].value)}"


def _of_scale(metric: Metric) -> str:
    return f" of {format_number(metric.upper_bound)}" if metric.unit == "points" and metric.upper_bound else ""


def _is_overlap(name: str, metrics: Metrics) -> bool:
    return find(name, metrics).aspect == "overlap"


def _overlap_share(name: str | None, scores: SetScores, metrics: Metrics) -> float:
    """The overlap with the references as a share of its scale; 0 where none was measured."""
    if name is None:
        return 0.0
    bound = find(name, metrics).upper_bound
    return scores.metrics[name].value / bound if bound else 0.0
