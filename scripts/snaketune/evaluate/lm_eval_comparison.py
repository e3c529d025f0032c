"""What lm-evaluation-harness says of base and fused model, compared in pairs of documents.

Metrics have their values by document, and are tested by these; a group has those of its tasks.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec
import numpy as np

from snaketune.contracts.lm_eval import HarnessComparison, HarnessOutput, HarnessValue
from snaketune.evaluate import significance

PERMUTATIONS = 10_000
SEED = 1  # of the permutations: the same results give the same p-values
EXACT = 1e-9  # difference up to which a mean over documents is the value that lm-eval states

Pair = tuple[HarnessValue, HarnessValue]
"""A metric of the base, and of the fused model."""


def compared(base: HarnessOutput, fused: HarnessOutput, own: str) -> list[HarnessComparison]:
    """Each metric of both models, tested in pairs where documents have values; own: the task of the test rows."""
    pairs = {
        (task, metric): (value, fused.tasks[task][metric])
        for task, metrics in sorted(base.tasks.items())
        for metric, value in sorted(metrics.items())
        if metric in fused.tasks.get(task, {})
    }
    for (task, metric), pair in pairs.items():
        parts = [pairs[part, metric] for part in base.groups.get(task, []) if (part, metric) in pairs]
        if parts:
            pairs[task, metric] = _with_documents(pair, parts)
    found = [_comparison(task, metric, pair, named=task != own) for (task, metric), pair in pairs.items()]
    tested = [one for one in found if one.named and one.p is not None]
    corrected = dict(zip(map(id, tested), significance.holm([one.p or 0.0 for one in tested]), strict=True))
    return [msgspec.structs.replace(one, p_corrected=corrected.get(id(one))) for one in found]


def _with_documents(group: Pair, parts: Sequence[Pair]) -> Pair:
    """A metric of a group with the values of the documents of its tasks, where their mean is the group's value.

    It is the mean over all documents, or that of the tasks' means. Where it is neither for both models, as with a
    perplexity, the group stays without values by document.
    """
    sizes = [len(base.each) for base, _ in parts]
    if 0 in sizes or any(len(fused.each) != size for (_, fused), size in zip(parts, sizes, strict=True)):
        return group
    for shares in ([1.0] * len(parts), [1 / size for size in sizes]):
        base, fused = (_pooled(group[side], [pair[side] for pair in parts], shares) for side in (0, 1))
        if all(_is_value(one, math.fsum(one.each) / math.fsum(one.weights)) for one in (base, fused)):
            return base, fused
    return group


def _pooled(group: HarnessValue, parts: Sequence[HarnessValue], shares: Sequence[float]) -> HarnessValue:
    """A group with its tasks' documents, each of which counts as much as its task's share."""
    with_shares = [(value, share) for part, share in zip(parts, shares, strict=True) for value in part.each]
    return msgspec.structs.replace(
        group, each=[value * share for value, share in with_shares], weights=[share for _, share in with_shares]
    )


def _is_value(one: HarnessValue, mean: float) -> bool:
    return one.value is not None and math.isclose(mean, one.value, rel_tol=EXACT, abs_tol=EXACT)


def _comparison(task: str, metric: str, pair: Pair, *, named: bool) -> HarnessComparison:
    base, fused = pair
    difference = None if base.value is None or fused.value is None else fused.value - base.value
    is_paired = difference is not None and len(base.each) == len(fused.each)
    return HarnessComparison(
        task=task,
        metric=metric,
        named=named,
        higher_is_better=base.higher_is_better,
        base=base.value,
        base_stderr=base.stderr,
        fused=fused.value,
        fused_stderr=fused.stderr,
        documents=len(base.each) if is_paired else 0,
        difference=difference,
        difference_stderr=_error(base, fused) if is_paired else None,
        p=_p(base, fused) if is_paired and base.each else None,
        p_corrected=None,
    )


def _error(base: HarnessValue, fused: HarnessValue) -> float | None:
    """The standard error of the mean of the documents' differences; None where the metric is not that mean."""
    if len(base.each) < 2 or not all(_is_value(one, statistics.fmean(one.each)) for one in (base, fused)):
        return None
    differences = [after - before for before, after in zip(base.each, fused.each, strict=True)]
    return statistics.stdev(differences) / math.sqrt(len(differences))


def _p(base: HarnessValue, fused: HarnessValue) -> float:
    """The tests of the evaluation: McNemar's of right and wrong, else paired approximate randomization."""
    if {*base.each, *fused.each} <= {0, 1}:
        return significance.mcnemar_p(fused.each, base.each)
    ours, theirs = (np.array([one.each, one.weights or [1.0] * len(one.each)]).T for one in (fused, base))
    return significance.randomization_p(ours, theirs, _weighted_mean, PERMUTATIONS, SEED)


def _weighted_mean(sums: np.ndarray) -> np.ndarray:
    mean: np.ndarray = sums[..., 0] / sums[..., 1]
    return mean
