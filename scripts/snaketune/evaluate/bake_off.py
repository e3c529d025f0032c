"""The bake-off: all experiments on the test rows, beside the base that was not trained, and what may be concluded."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from snaketune.config.sections import Section
from snaketune.contracts.bake_off import BakeOff, Method
from snaketune.contracts.evaluate import Prediction, Score, Scores
from snaketune.contracts.train import TrainingSummary
from snaketune.evaluate.compare import ALPHA, common_rows
from snaketune.evaluate.methods import Contestant, pairs_of, seed_luck, tested
from snaketune.evaluate.metrics import Metric, MetricSettings, by_priority, enabled_metrics
from snaketune.evaluate.score import attach_custom_values, cluster_ids, row_ids
from snaketune.files import StrPath, read_json, read_jsonl, write_json
from snaketune.runtime.events import report_result

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
        alpha=ALPHA,
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
