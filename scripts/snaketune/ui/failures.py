"""Where a run's answers to its test questions fall short: what the scores say of each, and groups, the worst first."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import msgspec

from snaketune.contracts.data import DataRecord
from snaketune.contracts.evaluate import Prediction
from snaketune.data.deduplication import fold
from snaketune.errors import EvaluationError
from snaketune.files import read_json, read_jsonl
from snaketune.report import answers, conclusion
from snaketune.report.run_files import RunFiles

SHORT, LONG = 60, 240  # characters of a prompt, between which it is of middle length
NEAR, FAR = 80.0, 30.0  # chrF++ of an answer that is nearly its reference, and of one that has little of it
GRAM = 4  # characters of the pieces by which rows are found alike
MAX_SEARCHED = 50_000  # training rows among which the nearest ones are looked for
NEAREST = 3


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to a test question. score: chrF++, 0 to 100; kind: what is wrong, in words."""

    id: str
    question: str
    reference: str
    answer: str
    base: str | None
    category: str
    length: str
    kind: str
    score: float
    change: float | None


class FailureGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of one category, length and kind; lost: points of chrF++ that all of them together lack."""

    category: str
    length: str
    kind: str
    rows: int
    score: float
    lost: float


class NearRow(msgspec.Struct, frozen=True, kw_only=True):
    """A training row like a question; similarity: share of the pieces that both have."""

    where: str
    prompt: str
    response: str
    similarity: float


class Failures:
    """The answers of the file to deploy, the worst first."""

    def __init__(self, folder: Path) -> None:
        run = RunFiles(folder)
        scored = [path.parent.name for path in run.glob("evaluation/*/predictions.jsonl")]
        self.variant = conclusion.deployed_variant(scored, read_json(folder / "config.json")) if scored else None
        if self.variant is None:
            raise EvaluationError(
                f"{folder.name} has answered no test question yet", where=str(folder), fix="Run its stage evaluate"
            )
        base = {one.id: one for one in run.optional_records("evaluation/base/predictions.jsonl", Prediction)}
        lines = run.records(f"evaluation/{self.variant}/predictions.jsonl", Prediction)
        found = [_failure(one, base.get(one.id)) for one in lines if one.answer is not None and one.reference]
        self.rows = sorted(found, key=lambda one: (one.score, one.id))

    def groups(self) -> list[FailureGroup]:
        """Groups of answers that are not right, those that cost most first."""
        grouped: dict[tuple[str, str, str], list[Failure]] = defaultdict(list)
        for one in self.rows:
            if one.kind != RIGHT:
                grouped[one.category, one.length, one.kind].append(one)
        found = [
            FailureGroup(
                category=category,
                length=length,
                kind=kind,
                rows=len(members),
                score=round(statistics.fmean(one.score for one in members), 1),
                lost=round(sum(100 - one.score for one in members), 1),
            )
            for (category, length, kind), members in grouped.items()
        ]
        return sorted(found, key=lambda group: (-group.lost, group.category, group.length, group.kind))

    def of_group(self, category: str, length: str, kind: str) -> list[Failure]:
        """The answers of one group; an empty text stands for any."""
        return [
            one
            for one in self.rows
            if category in ("", one.category) and length in ("", one.length) and kind in ("", one.kind)
        ]

    def by_id(self, identifier: str) -> Failure:
        """One answer; EvaluationError where there is none."""
        found = next((one for one in self.rows if one.id == identifier), None)
        if found is None:
            raise EvaluationError("there is no such answer", fix="Reload the page: the run was evaluated anew")
        return found


RIGHT = "right"


def _failure(line: Prediction, base: Prediction | None) -> Failure:
    reference, answer = line.reference or "", line.answer or ""
    score = round(answers.row_chrf(answer, reference), 1)
    of_base = None if base is None or base.answer is None else round(answers.row_chrf(base.answer, reference), 1)
    return Failure(
        id=line.id,
        question=answers.shorten(line.prompt),
        reference=answers.shorten(reference),
        answer=answers.shorten(answer),
        base=None if base is None or base.answer is None else answers.shorten(base.answer),
        category=line.category or "",
        length=_length(line.prompt),
        kind=_kind(line, score),
        score=score,
        change=None if of_base is None else round(score - of_base, 1),
    )


def _length(prompt: str) -> str:
    return "short" if len(prompt) < SHORT else "long" if len(prompt) > LONG else "middle"


def _kind(line: Prediction, score: float) -> str:
    """What is wrong with an answer, in words."""
    answer, reference = (line.answer or "").strip(), (line.reference or "").strip()
    if answer == reference:
        return RIGHT
    if not answer:
        return "empty"
    if line.stopped is False:
        return "repeats itself" if _repeats(answer) else "does not end"
    if fold(answer) == fold(reference):
        return "right but for capitals and punctuation"
    if score >= NEAR:
        return "nearly right"
    return "far from the reference" if score < FAR else "partly right"


def _repeats(answer: str) -> bool:
    """Whether the end of an answer says one thing again and again."""
    words = answer.split()
    return len(words) >= 12 and len(set(words[-12:])) <= 4


def nearest_rows(train: Path, question: str) -> list[NearRow]:
    """The training rows whose prompts are most like a question, among the first MAX_SEARCHED."""
    wanted = _pieces(question)
    best: list[tuple[float, int, DataRecord]] = []
    for number, record in enumerate(_first(read_jsonl(train))):
        prompt = _prompt(record)
        pieces = _pieces(prompt)
        together = len(wanted | pieces)
        similarity = len(wanted & pieces) / together if together else 0.0
        if len(best) < NEAREST or similarity > best[-1][0]:
            best = sorted([*best, (similarity, number, record)], key=lambda one: (-one[0], one[1]))[:NEAREST]
    return [
        NearRow(
            where=f"{record['source']}:{record['line']}",
            prompt=answers.shorten(_prompt(record), 600),
            response=answers.shorten(_response(record), 600),
            similarity=round(similarity, 3),
        )
        for similarity, _, record in best
        if similarity
    ]


def _first(records: Iterable[DataRecord]) -> Iterable[DataRecord]:
    return (record for record, _ in zip(records, range(MAX_SEARCHED), strict=False))


def _pieces(text: str) -> set[str]:
    plain = fold(text)
    return {plain[at : at + GRAM] for at in range(max(1, len(plain) - GRAM + 1))}


def _prompt(record: DataRecord) -> str:
    turns = record.get("messages", [])
    return "\n".join(turn["content"] for turn in turns if turn["role"] == "user") or record.get("text", "")


def _response(record: DataRecord) -> str:
    turns = [turn["content"] for turn in record.get("messages", []) if turn["role"] == "assistant"]
    return turns[-1] if turns else ""
