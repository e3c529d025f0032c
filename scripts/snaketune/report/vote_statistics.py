"""What votes and ratings of several people say: which model wins, how far the raters agree, mean ratings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from snaketune.contracts.human_eval import Agreement, Preference, RatingMean
from snaketune.evaluate import significance

CRITERIA = ("accuracy", "relevance", "coherence", "completeness", "overall")
RESAMPLES = 1000
Value = TypeVar("Value")


class Vote(msgspec.Struct):
    """A person's choice between the models behind the two sides: tuned, base or tie."""

    rater: str
    id: str
    choice: str
    comment: str


class Rating(msgspec.Struct):
    """A person's ratings of the answer of one model, tuned or base."""

    rater: str
    id: str
    model: str
    values: dict[str, int]
    comment: str


def preference(votes: Sequence[Vote]) -> Preference | None:
    """Which model wins more questions.

    A question counts once however many judged it, for the model that more of them preferred: two votes on one question
    are not two independent observations.
    """
    if not votes:
        return None
    by_question: dict[str, Counter[str]] = defaultdict(Counter)
    for vote in votes:
        by_question[vote.id][vote.choice] += 1
    leads = [counts["tuned"] - counts["base"] for counts in by_question.values()]
    tuned, base = sum(lead > 0 for lead in leads), sum(lead < 0 for lead in leads)
    decided = tuned + base
    low, high = significance.wilson_interval(tuned, decided) if decided else (None, None)
    return Preference(
        questions=len(by_question),
        tuned=tuned,
        base=base,
        ties=len(by_question) - decided,
        share=tuned / decided if decided else None,
        low=low,
        high=high,
        p=significance.mcnemar_p([lead > 0 for lead in leads], [lead < 0 for lead in leads]) if decided else None,
    )


def agreement(votes: Sequence[Vote]) -> Agreement | None:
    """How far raters of the same questions agree; None with fewer than two raters."""
    units: dict[str, list[str]] = defaultdict(list)
    for vote in votes:
        units[vote.id].append(vote.choice)
    shared = [choices for choices in units.values() if len(choices) > 1]
    if not shared:
        return None
    pairs = [(a, b) for choices in shared for i, a in enumerate(choices) for b in choices[i + 1 :]]
    return Agreement(
        questions=len(shared),
        share=sum(a == b for a, b in pairs) / len(pairs),
        alpha=krippendorff_alpha(shared, lambda a, b: float(a != b)),
    )


def krippendorff_alpha(units: Sequence[Sequence[Value]], distance: Callable[[Value, Value], float]) -> float | None:
    """Krippendorff's alpha of values given to the same units; None where all values are the same.

    1 less observed over expected disagreement (Krippendorff 2004, chapter 11); units with one value say nothing.
    """
    shared = [values for values in units if len(values) > 1]
    counts = Counter(value for values in shared for value in values)
    total = counts.total()
    observed = sum(
        sum(distance(a, b) for i, a in enumerate(values) for j, b in enumerate(values) if i != j) / (len(values) - 1)
        for values in shared
    )
    expected = sum(n * m * distance(a, b) for a, n in counts.items() for b, m in counts.items()) / max(total - 1, 1)
    return 1 - observed / expected if expected else None


def rating_means(ratings: Sequence[Rating], seed: int) -> dict[str, RatingMean] | None:
    """Mean ratings by criterion.

    Differences are of questions whose both answers were rated, each the mean over its raters, with the 95 % bootstrap
    interval over questions; None in place of what too few ratings cannot give.
    """
    return {name: _rating_mean(name, ratings, seed) for name in CRITERIA} if ratings else None


def _rating_mean(criterion: str, ratings: Sequence[Rating], seed: int) -> RatingMean:
    by_question: dict[str, dict[str, list[int]]] = defaultdict(lambda: {"base": [], "tuned": []})
    for rating in ratings:
        by_question[rating.id][rating.model].append(rating.values[criterion])
    base, tuned = ([value for given in by_question.values() for value in given[name]] for name in ("base", "tuned"))
    both = [given for given in by_question.values() if given["base"] and given["tuned"]]
    gaps = np.array([np.mean(given["tuned"]) - np.mean(given["base"]) for given in both])
    low = high = None
    if len(gaps) > 1:
        sums = significance.bootstrap_sums(np.stack([gaps, np.ones(len(gaps))], axis=1), RESAMPLES, seed)
        low, high = significance.percentile_interval(sums[:, 0] / sums[:, 1], len(gaps))
        if low == high:
            low, high = significance.unvaried_interval(low, -4.0, 4.0, len(gaps))
    return RatingMean(
        base=float(np.mean(base)) if base else None,
        tuned=float(np.mean(tuned)) if tuned else None,
        questions=len(gaps),
        difference=float(gaps.mean()) if len(gaps) else None,
        low=low,
        high=high,
    )
