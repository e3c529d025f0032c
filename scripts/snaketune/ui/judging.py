"""Blind judging on the page: the form of human_eval, each judge's votes saved as they go, and what they say so far."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

import msgspec

from snaketune.contracts.human_eval import Form, FormItem, HumanRatings
from snaketune.contracts.report import RunReport
from snaketune.errors import EvaluationError
from snaketune.files import read_json, write_json
from snaketune.report import human_eval
from snaketune.report.human_eval import PreferenceEntry, RatingEntry

MAX_NAME = 60  # characters of a judge's name


class SavedVotes(msgspec.Struct, kw_only=True):
    """A votes file as human_eval.html exports one."""

    kind: str
    version: int
    run: str
    fingerprint: str
    rater: str
    preferences: list[PreferenceEntry]
    ratings: list[RatingEntry]


class JudgeForm(msgspec.Struct, frozen=True, kw_only=True):
    """The questions in an order of the judge's own, and what this judge has said so far."""

    rater: str
    items: list[FormItem]
    identical: int
    criteria: list[str]
    preferences: list[PreferenceEntry]
    ratings: list[RatingEntry]
    command: str


class Judging:
    """The form of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "report" / "report.json"
        if not path.is_file():
            raise EvaluationError(
                f"{folder.name} has no report yet", why="Judges compare the answers in it", fix="Run it to its report"
            )
        report = read_json(path, RunReport)
        self.seed = int(report.config.get("seed", 1))
        self.form: Form = human_eval.form(report)

    def questions(self, rater: str, configuration: str | None) -> JudgeForm:
        """The form for a judge."""
        votes = self._votes(_checked(rater))
        items = list(self.form.items)
        random.Random(f"{self.form.fingerprint} {rater}").shuffle(items)
        chosen = f" --configfile {configuration}" if configuration not in (None, "config.yaml") else ""
        return JudgeForm(
            rater=rater,
            items=items,
            identical=self.form.identical,
            criteria=self.form.criteria,
            preferences=votes.preferences,
            ratings=votes.ratings,
            command=f"snakemake report{chosen}",
        )

    def save(self, rater: str, entry: PreferenceEntry | RatingEntry) -> Path:
        """Save one vote; of two on one question the later counts. Returns the judge's file."""
        votes = self._votes(_checked(rater))
        if entry.id not in {item.id for item in self.form.items}:
            raise EvaluationError("this question is not in the form", fix="Reload the page: the run was evaluated anew")
        if isinstance(entry, PreferenceEntry):
            votes.preferences = [one for one in votes.preferences if one.id != entry.id] + [entry]
        else:
            key = (entry.id, entry.side)
            votes.ratings = [one for one in votes.ratings if (one.id, one.side) != key] + [entry]
        write_json(self._file(rater), votes)
        return self._file(rater)

    def result(self) -> HumanRatings:
        """What all judges have said so far, with intervals, as the report will say it."""
        return human_eval.aggregate_votes((self.folder / "votes").glob("*.json"), self.form, self.seed)

    def _file(self, rater: str) -> Path:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", rater)[:30]
        return self.folder / "votes" / f"{plain}-{hashlib.sha256(rater.encode()).hexdigest()[:8]}.json"

    def _votes(self, rater: str) -> SavedVotes:
        """A judge's votes on these answers; those on earlier ones stay in a file of their own."""
        path = self._file(rater)
        if path.is_file():
            try:
                found = human_eval.read(path, self.form)
                return self._saved(rater, found.preferences, found.ratings)
            except EvaluationError:
                path.replace(path.with_suffix(".json.older"))
        return self._saved(rater, [], [])

    def _saved(self, rater: str, preferences: list[PreferenceEntry], ratings: list[RatingEntry]) -> SavedVotes:
        return SavedVotes(
            kind=human_eval.FILE_KIND,
            version=1,
            run=self.form.run,
            fingerprint=self.form.fingerprint,
            rater=rater,
            preferences=preferences,
            ratings=ratings,
        )


def _checked(rater: str) -> str:
    if not rater.strip() or len(rater) > MAX_NAME:
        raise EvaluationError("a judge needs a name", where="rater", fix=f"Up to {MAX_NAME} characters")
    return rater
