"""Blind judging: the form that a person fills, and what all files of votes say."""

from __future__ import annotations

from snaketune.files import Record


class FormItem(Record, frozen=True, kw_only=True):
    """A question of the form of blind judging with the two answers as they are shown."""

    id: str
    question: str
    reference: str
    left: str
    right: str
    category: str | None


class Form(Record, frozen=True, kw_only=True):
    """The form of blind judging; identical: questions that both models answered alike, which are left out."""

    run: str
    fingerprint: str
    items: list[FormItem]
    identical: int
    criteria: list[str]


class Preference(Record, frozen=True, kw_only=True):
    """Which model wins more questions; a question counts once however many people judged it.

    share is tuned / (tuned + base) with Wilson's 95 % interval, p the exact two-sided sign test; None where every
    question is a tie.
    """

    questions: int
    tuned: int
    base: int
    ties: int
    share: float | None
    low: float | None
    high: float | None
    p: float | None


class Agreement(Record, frozen=True, kw_only=True):
    """How far people who judged the same questions agree.

    share: pairs of votes that are alike; alpha: Krippendorff's, nominal: 1 is perfect agreement, 0 is chance.
    """

    questions: int
    share: float
    alpha: float | None


class RatingMean(Record, frozen=True, kw_only=True):
    """Mean ratings (1 to 5) by one criterion; the difference, with its 95 % interval, is of questions rated twice."""

    base: float | None
    tuned: float | None
    questions: int
    difference: float | None
    low: float | None
    high: float | None


class RaterComment(Record, frozen=True, kw_only=True):
    """A comment that a person wrote beside a choice (tuned, base or tie) or beside a rating of one model."""

    rater: str
    id: str
    choice: str
    comment: str


class RefusedFile(Record, frozen=True, kw_only=True):
    """A file of votes that is not counted, and why."""

    file: str
    problem: str
    fix: str


class HumanRatings(Record, frozen=True, kw_only=True):
    """Everything that the files in votes/ say."""

    raters: list[str]
    votes: int
    preference: Preference | None
    categories: dict[str, Preference]
    agreement: Agreement | None
    ratings: dict[str, RatingMean] | None
    comments: list[RaterComment]
    refused: list[RefusedFile]
