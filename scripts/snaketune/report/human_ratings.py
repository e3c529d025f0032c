"""Votes of people read back: which answers they preferred, how surely, and whether they agree with each other."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snaketune.errors import EvaluationError
from snaketune.evaluate import significance
from snaketune.files import StrPath
from snaketune.report.human_eval import CRITERIA, KIND, tuned_is_left
from snaketune.report.run_files import clean

SIDES = ("left", "right")
RESAMPLES = 1000
LARGEST = 20_000_000  # bytes of a votes file


def tally(paths: Iterable[StrPath], form: dict[str, Any], seed: int) -> dict[str, Any]:
    """Everything that the votes in some files say about the run whose form they were given on.

    form: what `human_eval.form` gives for this run. {"raters", "votes", "preference", "categories", "agreement",
    "ratings", "comments", "refused": [{"file", "why"}]}; a file that cannot be counted is refused as a whole.
    """
    taken: dict[str, dict[str, Any]] = {}
    refused = []
    for path in sorted(map(Path, paths)):
        try:
            votes = read(path, form)
            if votes["rater"] in taken:
                raise EvaluationError(
                    f'there are two files of the rater "{votes["rater"]}"',
                    where=str(path),
                    fix="Keep the later one, or give each rater a name of their own",
                )
            taken[votes["rater"]] = votes
        except EvaluationError as error:
            refused.append({"file": path.name, "why": error.what, "fix": error.fix})
    ballots = [ballot for votes in taken.values() for ballot in _ballots(votes, form)]
    ratings = [rating for votes in taken.values() for rating in _ratings(votes, form)]
    categories = {item["id"]: item["category"] for item in form["items"]}
    named = sorted({it for it in categories.values() if it})
    return {
        "raters": sorted(taken),
        "votes": len(ballots),
        "preference": preference(ballots),
        "categories": {
            name: preference([it for it in ballots if categories[it["id"]] == name]) for name in named if ballots
        },
        "agreement": agreement(ballots),
        "ratings": rated(ratings, seed),
        "comments": [
            {
                "rater": it["rater"],
                "id": it["id"],
                "said": it.get("choice") or it.get("artefact"),
                "comment": it["comment"],
            }
            for it in [*ballots, *ratings]
            if it["comment"]
        ],
        "refused": refused,
    }


def read(path: Path, form: dict[str, Any]) -> dict[str, Any]:
    """A votes file, checked; raises EvaluationError for one that is damaged, or of another run or other answers."""
    where = str(path)
    again = "Export it again from this run's human_eval.html"
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError
        votes = clean(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        raise EvaluationError(
            "this is not a file of votes: it cannot be read as JSON", where=where, fix=again
        ) from None
    if not isinstance(votes, dict) or votes.get("kind") != KIND or votes.get("version") != 1:
        raise EvaluationError("this is not a file of votes", where=where, fix=again)
    if votes.get("run") != form["run"]:
        raise EvaluationError(
            f'these votes are for the run "{votes.get("run")}"',
            where=where,
            fix="Put them into that run's votes folder",
        )
    if votes.get("fingerprint") != form["fingerprint"]:
        raise EvaluationError(
            "these votes were given on other answers: this run has been evaluated anew since",
            where=where,
            fix="Judge again with the present human_eval.html, or remove the file",
        )
    known = {item["id"] for item in form["items"]}
    for entry in [*_list(votes, "preferences"), *_list(votes, "ratings")]:
        if not isinstance(entry, dict) or entry.get("id") not in known:
            raise EvaluationError("it has a vote for a question that was not asked", where=where, fix=again)
    for entry in _list(votes, "preferences"):
        if entry.get("choice") not in (*SIDES, "tie"):
            raise EvaluationError("a choice in it is none of left, right, tie", where=where, fix=again)
    for entry in _list(votes, "ratings"):
        if entry.get("side") not in SIDES or any(entry.get(name) not in (1, 2, 3, 4, 5) for name in CRITERIA):
            raise EvaluationError("a rating in it is not from 1 to 5", where=where, fix=again)
    rater = votes.get("rater")
    return votes | {"rater": rater if isinstance(rater, str) and rater.strip() else path.stem}


def _list(votes: dict[str, Any], key: str) -> list[Any]:
    found = votes.get(key, [])
    return found if isinstance(found, list) else [found]


def _ballots(votes: dict[str, Any], form: dict[str, Any]) -> list[dict[str, Any]]:
    """A rater's preferences with the sides turned into what they hid; of two for one question the later counts."""
    chosen = {entry["id"]: entry for entry in _list(votes, "preferences")}
    return [
        {
            "rater": votes["rater"],
            "id": item,
            "choice": entry["choice"] if entry["choice"] == "tie" else _artefact(form, item, entry["choice"]),
            "comment": str(entry.get("comment") or ""),
        }
        for item, entry in chosen.items()
    ]


def _ratings(votes: dict[str, Any], form: dict[str, Any]) -> list[dict[str, Any]]:
    chosen = {(entry["id"], entry["side"]): entry for entry in _list(votes, "ratings")}
    return [
        {"rater": votes["rater"], "id": item, "artefact": _artefact(form, item, side)}
        | {name: entry[name] for name in CRITERIA}
        | {"comment": str(entry.get("comment") or "")}
        for (item, side), entry in chosen.items()
    ]


def _artefact(form: dict[str, Any], item: str, side: str) -> str:
    return "tuned" if (side == "left") == tuned_is_left(form["fingerprint"], item) else "base"


def preference(ballots: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Which side wins more questions: {"questions", "tuned", "base", "ties", "share", "low", "high", "p"}.

    A question counts once however many judged it, for the side that more of them preferred: two votes on one question
    are not two independent observations. share is tuned / (tuned + base) with Wilson's 95 % interval, p the exact
    two-sided sign test; both None where every question is a tie.
    """
    if not ballots:
        return None
    by_question: dict[str, Counter[str]] = defaultdict(Counter)
    for it in ballots:
        by_question[it["id"]][it["choice"]] += 1
    leads = [votes["tuned"] - votes["base"] for votes in by_question.values()]
    tuned, base = sum(lead > 0 for lead in leads), sum(lead < 0 for lead in leads)
    decided = tuned + base
    low, high = significance.wilson(tuned, decided) if decided else (None, None)
    return {
        "questions": len(by_question),
        "tuned": tuned,
        "base": base,
        "ties": len(by_question) - decided,
        "share": tuned / decided if decided else None,
        "low": low,
        "high": high,
        "p": significance.mcnemar_p([lead > 0 for lead in leads], [lead < 0 for lead in leads]) if decided else None,
    }


def agreement(ballots: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """How far raters of the same questions agree: {"questions", "share", "alpha"}; None with fewer than two raters.

    share: pairs of raters that chose alike; alpha: Krippendorff's, nominal, which is 1 for perfect agreement and 0 for
    what chance would give.
    """
    units: dict[str, list[str]] = defaultdict(list)
    for it in ballots:
        units[it["id"]].append(it["choice"])
    shared = [values for values in units.values() if len(values) > 1]
    if not shared:
        return None
    pairs = [(a, b) for values in shared for i, a in enumerate(values) for b in values[i + 1 :]]
    return {
        "questions": len(shared),
        "share": sum(a == b for a, b in pairs) / len(pairs),
        "alpha": krippendorff(shared, lambda a, b: float(a != b)),
    }


def krippendorff(units: Sequence[Sequence[Any]], distance: Callable[[Any, Any], float]) -> float | None:
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


def rated(ratings: Sequence[dict[str, Any]], seed: int) -> dict[str, Any] | None:
    """Mean marks: criterion -> {"base", "tuned", "questions", "difference", "low", "high"}.

    Differences are of questions whose both answers were rated, each the mean over its raters, with the 95 % bootstrap
    interval over questions; None in place of what too few ratings cannot give.
    """
    if not ratings:
        return None
    found = {}
    for name in CRITERIA:
        marks: dict[str, dict[str, list[int]]] = defaultdict(lambda: {"base": [], "tuned": []})
        for it in ratings:
            marks[it["id"]][it["artefact"]].append(it[name])
        means = {side: [m for it in marks.values() for m in it[side]] for side in ("base", "tuned")}
        gaps = np.array(
            [np.mean(it["tuned"]) - np.mean(it["base"]) for it in marks.values() if it["base"] and it["tuned"]]
        )
        low = high = None
        if len(gaps) > 1:
            sums = significance.resamples(np.stack([gaps, np.ones(len(gaps))], axis=1), RESAMPLES, seed)
            low, high = significance.interval(sums[:, 0] / sums[:, 1], len(gaps))
        found[name] = {
            "base": float(np.mean(means["base"])) if means["base"] else None,
            "tuned": float(np.mean(means["tuned"])) if means["tuned"] else None,
            "questions": len(gaps),
            "difference": float(gaps.mean()) if len(gaps) else None,
            "low": low,
            "high": high,
        }
    return found
