"""Blind judging: the form with two answers in a random order without names, and the votes that come back.

The page holds neither names nor an order to find them by: which side shows the tuned model is derived from the form's
fingerprint when the votes are read back (see aggregate_votes), and never written anywhere.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from snaketune.config.schema import canonical
from snaketune.contracts.human_eval import (
    Form,
    FormItem,
    HumanRatings,
    Preference,
    RaterComment,
    RefusedFile,
)
from snaketune.contracts.report import AnsweredRow, RunFindings
from snaketune.errors import EvaluationError
from snaketune.files import StrPath
from snaketune.report.run_files import replace_lone_surrogates
from snaketune.report.vote_statistics import CRITERIA, Rating, Vote, agreement, preference, rating_means

MOST = 100  # questions; more than a person judges with care
FILE_KIND = "snaketune votes"
LARGEST = 20_000_000  # bytes of a votes file
Side = Literal["left", "right"]
Value = TypeVar("Value")


class PreferenceEntry(msgspec.Struct):
    """A choice in a votes file."""

    id: str
    choice: Literal["left", "right", "tie"]
    comment: str = ""


class RatingEntry(msgspec.Struct):
    """The ratings of one answer in a votes file, 1 to 5 by each criterion."""

    id: str
    side: Side
    accuracy: Literal[1, 2, 3, 4, 5]
    relevance: Literal[1, 2, 3, 4, 5]
    coherence: Literal[1, 2, 3, 4, 5]
    completeness: Literal[1, 2, 3, 4, 5]
    overall: Literal[1, 2, 3, 4, 5]
    comment: str = ""


class VotesFile(msgspec.Struct):
    """What a person saves from the form."""

    rater: str
    preferences: list[PreferenceEntry]
    ratings: list[RatingEntry]


def form(found: RunFindings) -> Form:
    """The questions to judge, each once however many rows ask it.

    Questions that base and tuned model answered alike cannot be preferred either way; they are only counted.
    """
    base, tuned = found.evaluation.answers.base, found.evaluation.answers.tuned
    rows = _distinct_questions([row for row in found.evaluation.answers.rows if _pair(row, base, tuned)])
    differing = [row for row in rows if len(set(_pair(row, base, tuned))) > 1]
    if len(differing) > MOST:
        chosen = sorted(random.Random(found.config.get("seed", 1)).sample(range(len(differing)), MOST))
        shown = [differing[i] for i in chosen]
    else:
        shown = differing
    texts = [[row.id, *_pair(row, base, tuned)] for row in shown]
    identity = canonical([found.run, found.config.get("seed"), base, tuned, texts])
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:32]
    return Form(
        run=found.run,
        fingerprint=fingerprint,
        items=[_item(row, _pair(row, base, tuned), fingerprint) for row in shown],
        identical=len(rows) - len(differing),
        criteria=list(CRITERIA),
    )


def _distinct_questions(rows: Sequence[AnsweredRow]) -> list[AnsweredRow]:
    """The first row of each question."""
    first: dict[tuple[str, str], AnsweredRow] = {}
    for row in rows:
        first.setdefault((row.cluster, row.prompt), row)
    return list(first.values())


def _item(row: AnsweredRow, pair: Sequence[str], fingerprint: str) -> FormItem:
    left, right = reversed(pair) if tuned_is_left(fingerprint, row.id) else pair
    return FormItem(
        id=row.id, question=row.prompt, reference=row.reference, left=left, right=right, category=row.category
    )


def _pair(row: AnsweredRow, base: str | None, tuned: str | None) -> list[str]:
    """The texts of base and tuned model, nothing where one of them has none."""
    texts = [row.answers[name].text for name in (base, tuned) if name in row.answers]
    known = [text for text in texts if text is not None]
    return known if len(known) == 2 else []


def tuned_is_left(fingerprint: str, item: str) -> bool:
    """Which side of an item shows the tuned model: a fair coin that only the form's fingerprint decides."""
    return hashlib.sha256(f"{fingerprint}\0{item}".encode()).digest()[0] & 1 == 1


def aggregate_votes(paths: Iterable[StrPath], form: Form, seed: int) -> HumanRatings:
    """Everything that the votes in some files say about the run whose form they were given on.

    A file that cannot be counted is refused as a whole, and named.
    """
    counted, refused = _read_all(sorted(map(Path, paths)), form)
    votes = [vote for file in counted.values() for vote in _votes(file, form)]
    ratings = [rating for file in counted.values() for rating in _ratings(file, form)]
    return HumanRatings(
        raters=sorted(counted),
        votes=len(votes),
        preference=preference(votes),
        categories=_preference_by_category(votes, form),
        agreement=agreement(votes),
        ratings=rating_means(ratings, seed),
        comments=[
            *(RaterComment(rater=v.rater, id=v.id, choice=v.choice, comment=v.comment) for v in votes if v.comment),
            *(RaterComment(rater=r.rater, id=r.id, choice=r.model, comment=r.comment) for r in ratings if r.comment),
        ],
        refused=refused,
    )


def _read_all(paths: Iterable[Path], form: Form) -> tuple[dict[str, VotesFile], list[RefusedFile]]:
    """The files that count, by rater, and those that do not."""
    counted: dict[str, VotesFile] = {}
    refused = []
    for path in paths:
        try:
            file = read(path, form)
            if file.rater in counted:
                raise EvaluationError(
                    f'there are two files of the rater "{file.rater}"',
                    where=str(path),
                    fix="Keep the later one, or give each rater a name of their own",
                )
            counted[file.rater] = file
        except EvaluationError as error:
            refused.append(RefusedFile(file=path.name, problem=error.what, fix=error.fix))
    return counted, refused


def read(path: Path, form: Form) -> VotesFile:
    """A votes file, checked; EvaluationError for one that is damaged, or of another run or other answers."""
    where, again = str(path), "Export it again from this run's human_eval.html"
    content = _object(path, again)
    if content.get("kind") != FILE_KIND or content.get("version") != 1:
        raise EvaluationError("this is not a file of votes", where=where, fix=again)
    if content.get("run") != form.run:
        raise EvaluationError(
            f'these votes are for the run "{content.get("run")}"',
            where=where,
            fix="Put them into that run's votes folder",
        )
    if content.get("fingerprint") != form.fingerprint:
        raise EvaluationError(
            "these votes were given on other answers: this run has been evaluated anew since",
            where=where,
            fix="Judge again with the present human_eval.html, or remove the file",
        )
    known = {item.id for item in form.items}
    rater = content.get("rater")
    return VotesFile(
        rater=rater if isinstance(rater, str) and rater.strip() else path.stem,
        preferences=_entries(
            content, "preferences", PreferenceEntry, known, "a choice in it is none of left, right, tie", path
        ),
        ratings=_entries(content, "ratings", RatingEntry, known, "a rating in it is not from 1 to 5", path),
    )


def _object(path: Path, again: str) -> dict[str, object]:
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError
        content = replace_lone_surrogates(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        raise EvaluationError(
            "this is not a file of votes: it cannot be read as JSON", where=str(path), fix=again
        ) from None
    if not isinstance(content, dict):
        raise EvaluationError("this is not a file of votes", where=str(path), fix=again)
    return content


def _entries(
    content: dict[str, object], key: str, type: type[Value], known: set[str], invalid: str, path: Path
) -> list[Value]:
    """The entries of a list in a votes file; each must be of a question of the form, and valid."""
    again = "Export it again from this run's human_eval.html"
    found = content.get(key, [])
    given = found if isinstance(found, list) else [found]
    entries = [entry for entry in given if isinstance(entry, dict) and entry.get("id") in known]
    if len(entries) < len(given):
        raise EvaluationError("it has a vote for a question that was not asked", where=str(path), fix=again)
    try:
        return [msgspec.convert({**entry, "comment": str(entry.get("comment") or "")}, type) for entry in entries]
    except msgspec.ValidationError:
        raise EvaluationError(invalid, where=str(path), fix=again) from None


def _votes(file: VotesFile, form: Form) -> list[Vote]:
    """A rater's preferences with the sides turned into what they hid; of two for one question the later counts."""
    chosen = {entry.id: entry for entry in file.preferences}
    models = {
        item: "tie" if entry.choice == "tie" else _model(form, item, entry.choice) for item, entry in chosen.items()
    }
    return [Vote(file.rater, item, models[item], entry.comment) for item, entry in chosen.items()]


def _ratings(file: VotesFile, form: Form) -> list[Rating]:
    chosen = {(entry.id, entry.side): entry for entry in file.ratings}
    return [
        Rating(
            file.rater, item, _model(form, item, side), {name: getattr(entry, name) for name in CRITERIA}, entry.comment
        )
        for (item, side), entry in chosen.items()
    ]


def _model(form: Form, item: str, side: Side) -> str:
    return "tuned" if (side == "left") == tuned_is_left(form.fingerprint, item) else "base"


def _preference_by_category(votes: Sequence[Vote], form: Form) -> dict[str, Preference]:
    categories = {item.id: item.category for item in form.items}
    found = {
        name: preference([vote for vote in votes if categories[vote.id] == name])
        for name in sorted({category for category in categories.values() if category})
    }
    return {name: preferred for name, preferred in found.items() if preferred}
