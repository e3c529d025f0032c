"""The bake-off: all experiments on the test rows, beside the base that was not trained, and what may be concluded.

Trainings that differ in nothing but their seeds are one method: its statistics are the mean over them, row by row, so
that a paired test sees rows and not trainings. The luck of the seeds is measured beside it.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from snaketune.config.sections import Section
from snaketune.contracts.bake_off import BakeOff, Method, MethodPair, SeedLuck
from snaketune.contracts.evaluate import MetricComparison, Prediction, Score, Scores
from snaketune.contracts.train import TrainingSummary
from snaketune.evaluate import significance
from snaketune.evaluate.compare import common_rows, compare_statistics, corrected
from snaketune.evaluate.metric import Metric, by_priority
from snaketune.evaluate.run_metrics import MetricSettings, enabled_metrics
from snaketune.evaluate.score import attach_custom_values, cluster_ids, row_ids, score_statistics
from snaketune.files import StrPath, read_json, read_jsonl, write_json
from snaketune.runtime.events import report_result
from snaketune.runtime.progress import progress

MOST_TO_CROSS = 12
"""With more methods, each is compared with the first alone: all pairs would leave no test any power."""


@dataclass(frozen=True, eq=False)
class Contestant:
    """A method, or a zero line, with the predictions of each of its trainings on the same rows."""

    name: str
    predictions: list[list[Prediction]]
    is_trained: bool = True

    @functools.cached_property
    def _known(self) -> dict[str, list[np.ndarray]]:
        return {}

    def by_training(self, metric: Metric) -> list[np.ndarray]:
        """The metric's statistics of each row [rows, k], for each training."""
        if metric.name not in self._known:
            self._known[metric.name] = [metric.row_statistics(metric.scorable(one)) for one in self.predictions]
        return self._known[metric.name]

    def rows(self, metric: Metric) -> np.ndarray:
        """The same as the mean over the trainings."""
        mean: np.ndarray = np.mean(self.by_training(metric), axis=0)
        return mean

    def clusters(self, metric: Metric) -> list[str]:
        """The cluster of each row."""
        return cluster_ids(metric.scorable(self.predictions[0]))

    def values(self, metric: Metric) -> list[float]:
        """The metric of each training."""
        return [float(metric.aggregate(part.sum(axis=0))) for part in self.by_training(metric)]

    def score(self, metric: Metric, seed: int) -> Score:
        """The metric with its interval."""
        return score_statistics(metric, self.rows(metric), self.clusters(metric), seed)


Pair = tuple[Contestant, Contestant]


def pairs_of(contestants: Sequence[Contestant]) -> list[Pair]:
    """Which is compared with which: each method with each zero line, and with each method before it."""
    zero = [one for one in contestants if not one.is_trained]
    methods = [one for one in contestants if one.is_trained]
    found = [(one, line) for line in zero for one in methods]
    if len(methods) <= MOST_TO_CROSS:
        return found + [(other, one) for one, other in itertools.combinations(methods, 2)]
    return found + [(one, methods[0]) for one in methods[1:]]


def tested(
    pairs: Sequence[Pair], metrics: Mapping[str, Metric], lucks: Mapping[str, SeedLuck], seed: int
) -> list[MethodPair]:
    """Every pair by every metric, corrected for all of these tests together."""
    tests = [(pair, metric) for pair in pairs for metric in metrics.values()]
    single = [
        _compared(*pair, metric, seed, len(tests)) for pair, metric in progress(tests, "testing methods", unit="tests")
    ]
    decided = corrected([metric for _, metric in tests], single)
    return [
        MethodPair(
            method=pair[0].name,
            baseline=pair[1].name,
            metrics={metric.name: entry for (of, metric), entry in zip(tests, decided, strict=True) if of is pair},
            luck={name: luck_of_difference(luck, pair) for name, luck in lucks.items()},
        )
        for pair in pairs
    ]


def _compared(one: Contestant, other: Contestant, metric: Metric, seed: int, tests: int) -> MetricComparison:
    ours, theirs = (significance.sum_by_cluster(each.rows(metric), each.clusters(metric)) for each in (one, other))
    are_single = len(one.predictions) == len(other.predictions) == 1 and len(ours) == len(one.clusters(metric))
    return compare_statistics(metric, ours, theirs, seed, tests, exact=metric.is_proportion and are_single)


def seed_luck(values: Sequence[Sequence[float]]) -> SeedLuck | None:
    """What seeds do by themselves, by the values of each method's trainings; None where no method has two.

    The share is that of a one-way analysis of variance with methods as groups: the variance within, over the sum of it
    and of the component between.
    """
    free = sum(len(one) - 1 for one in values)
    if free < 1:
        return None
    within = sum((value - statistics.fmean(one)) ** 2 for one in values for value in one) / free
    share = None
    if len(values) > 1:
        total = sum(map(len, values))
        grand = sum(map(sum, values)) / total
        between = sum(len(one) * (statistics.fmean(one) - grand) ** 2 for one in values) / (len(values) - 1)
        size = (total - sum(len(one) ** 2 for one in values) / total) / (len(values) - 1)
        component = max(0.0, (between - within) / size)
        share = within / (within + component) if within + component > 0 else None
    return SeedLuck(deviation=math.sqrt(within), degrees_of_freedom=free, share=share)


def luck_of_difference(luck: SeedLuck, pair: Pair) -> float:
    """The half width of the 95 % interval of a difference that seeds alone make between two means over trainings.

    A zero line was not trained, so there is no luck in it.
    """
    parts = sum(1 / len(one.predictions) for one in pair if one.is_trained)
    return significance.student_quantile(luck.degrees_of_freedom) * luck.deviation * math.sqrt(parts)


ZERO_LINES = {"base": "base model", "prompted": "base with a prompt"}
"""Variants that no training has changed; a space keeps their names apart from those of experiments."""
LIKELIHOODS = ("perplexity", "bits_per_byte")
MOST_NAMED = 4


class MethodConfig(Section, frozen=True, kw_only=True):
    """A method and its experiments, which differ in their seeds alone."""

    name: str
    experiments: list[str]


class BakeOffConfig(Section, frozen=True, kw_only=True):
    """What the comparison of experiments depends on; measure: select.metric."""

    methods: list[MethodConfig]
    settings: MetricSettings
    measure: str
    seed: int


@dataclass(frozen=True)
class Answers:
    """Predictions of the test rows, and their scores, of which the values of custom metrics are taken."""

    predictions: StrPath
    scores: StrPath

    def read(self) -> list[Prediction]:
        """The predictions with the values of the custom metrics."""
        values = read_json(self.scores, Scores).custom_values
        return attach_custom_values(list(read_jsonl(self.predictions, Prediction)), values)


@dataclass(frozen=True)
class TrainingFiles:
    """The summary and the adapter of one training."""

    summary: StrPath
    adapter: StrPath


def answers_by_name(
    predictions: Sequence[StrPath],
    scores: Sequence[StrPath],
    zero_predictions: Sequence[StrPath],
    zero_scores: Sequence[StrPath],
) -> dict[str, Answers]:
    """The answers of each experiment, train/<experiment>/test/, and of each zero line, evaluation/<variant>/."""
    found = {
        ZERO_LINES[Path(one).parent.name]: Answers(one, other)
        for one, other in zip(zero_predictions, zero_scores, strict=True)
    }
    pairs = zip(predictions, scores, strict=True)
    return found | {Path(one).parent.parent.name: Answers(one, other) for one, other in pairs}


def trainings_by_name(summaries: Sequence[StrPath], adapters: Sequence[StrPath]) -> dict[str, TrainingFiles]:
    """The files of each training, train/<experiment>/."""
    pairs = zip(summaries, adapters, strict=True)
    return {Path(one).parent.name: TrainingFiles(one, other) for one, other in pairs}


def run(
    config: BakeOffConfig,
    answers: Mapping[str, Answers],
    trainings: Mapping[str, TrainingFiles],
    out: StrPath,
) -> BakeOff:
    """Compare and write. answers: by experiment, and by the names of ZERO_LINES where those were measured."""
    rows = common_rows({name: one.read() for name, one in answers.items()})
    zero = [Contestant(name, [rows[name]], is_trained=False) for name in ZERO_LINES.values() if name in rows]
    methods = [Contestant(one.name, [rows[name] for name in one.experiments]) for one in config.methods]
    measure, likelihood = chosen_metrics(config, [*zero, *methods])
    found = compared([*zero, *methods], measure, likelihood, config.seed)
    by_name = {method.name: method for method in found.methods}
    for one in config.methods:
        by_name[one.name] = _trained(by_name[one.name], one.experiments, [trainings[name] for name in one.experiments])
    found = msgspec.structs.replace(found, methods=list(by_name.values()))
    found = msgspec.structs.replace(found, conclusion=conclude(found, measure or likelihood))
    write_json(out, found)
    report_result(found.conclusion)
    return found


def chosen_metrics(config: BakeOffConfig, contestants: Sequence[Contestant]) -> tuple[Metric | None, Metric]:
    """The measure of the answers, which is select.metric's or the leading one, None without answers; the likelihood."""
    known = enabled_metrics(config.settings)
    first = contestants[0].predictions[0]
    targets = {
        tuple(one.num_target_tokens for one in each) for contestant in contestants for each in contestant.predictions
    }
    likelihood = LIKELIHOODS[0] if len(targets) == 1 else LIKELIHOODS[1]
    usable = [
        name
        for name, metric in known.items()
        if metric.better != "neither" and metric.aspect not in ("likelihood", "style") and metric.scorable(first)
    ]
    measure = config.measure if config.measure in usable else next(iter(by_priority(usable, known)), None)
    return known[measure] if measure else None, known[likelihood]


def compared(contestants: Sequence[Contestant], measure: Metric | None, likelihood: Metric, seed: int) -> BakeOff:
    """The scores and every pair; what the trainings were like and the conclusion are not there yet."""
    metrics = {metric.name: metric for metric in (measure, likelihood) if metric}
    trained = [one for one in contestants if one.is_trained]
    lucks = {name: seed_luck([one.values(metric) for one in trained]) for name, metric in metrics.items()}
    known = {name: luck for name, luck in lucks.items() if luck}
    pairs = pairs_of(contestants)
    first = contestants[0].predictions[0]
    return BakeOff(
        rows=len(set(row_ids(first))),
        clusters=len(set(cluster_ids(first))),
        measure=measure.name if measure else None,
        likelihood=likelihood.name,
        correction="Holm",
        alpha=significance.ALPHA,
        num_tests=len(pairs) * len(metrics),
        methods=[_scored(one, measure, likelihood, seed) for one in contestants],
        pairs=tested(pairs, metrics, known, seed),
        luck=known,
        conclusion="",
    )


def _scored(one: Contestant, measure: Metric | None, likelihood: Metric, seed: int) -> Method:
    score = one.score(likelihood, seed)
    low, high = (None if end is None else _in_nats(likelihood, end) for end in (score.low, score.high))
    return Method(
        name=one.name,
        loss=Score(value=_in_nats(likelihood, score.value), low=low, high=high),
        losses=[_in_nats(likelihood, value) for value in one.values(likelihood)],
        measure=one.score(measure, seed) if measure else None,
        measures=one.values(measure) if measure else [],
    )


def _in_nats(likelihood: Metric, value: float) -> float:
    """A perplexity as the mean loss that it is made of; bits per byte stay what they are."""
    return math.log(value) if likelihood.name == LIKELIHOODS[0] else value


def _trained(method: Method, names: Sequence[str], files: Sequence[TrainingFiles]) -> Method:
    """The method with what its trainings say of themselves."""
    summaries = [read_json(one.summary, TrainingSummary) for one in files]
    first, losses = summaries[0], [one.best_validation_loss for one in summaries]
    known = [loss for loss in losses if loss is not None]
    return msgspec.structs.replace(
        method,
        experiments=list(names),
        method=first.method,
        validation_loss=statistics.fmean(known) if known else None,
        validation_losses=losses,
        steps=first.steps,
        trainable_parameters=first.trainable_parameters,
        adapter_bytes=Path(files[0].adapter).stat().st_size,
        trainer=first.trainer,
    )


def conclude(found: BakeOff, metric: Metric) -> str:
    """What may be concluded of the methods by the metric that decides, as one sentence."""
    methods = {one.name: one.measure or one.loss for one in found.methods if one.is_trained}
    sign = 1 if found.measure and metric.better == "higher" else -1
    best = max(methods, key=lambda name: sign * methods[name].value)
    value = methods[best].value
    shown = f"{100 * value:.1f} %" if found.measure and metric.unit == "share" else f"{value:.4g}"
    named = f"{best} ({metric.in_sentence if found.measure else 'loss'} {shown})"
    others = [name for name in methods if name != best]
    if not others:
        return f"There is one method, {named}, and no other to compare it with."
    beaten = [other for other in others if is_shown_better(found, best, other, metric.name)]
    rest = [other for other in others if other not in beaten]
    if not beaten:
        return f"No difference between the {len(methods)} methods that these {found.rows} rows could show."
    if not rest:
        return f"{named} is shown to be the best of the {len(methods)} methods."
    return (
        f"{named} is shown to be better than {_named(beaten)}; "
        f"no difference to {_named(rest)} that these {found.rows} rows could show."
    )


def is_shown_better(found: BakeOff, name: str, other: str, metric: str) -> bool:
    """Whether a test of the rows says so after correction, and the difference is more than the luck of the seeds."""
    for pair in found.pairs:
        if {pair.method, pair.baseline} == {name, other}:
            entry = pair.metrics[metric]
            wanted = "better" if pair.method == name else "worse"
            return entry.outcome == wanted and abs(entry.difference) > pair.luck.get(metric, 0.0)
    return False


def _named(names: Sequence[str]) -> str:
    if len(names) > MOST_NAMED:
        return f"{len(names)} others"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
