"""What people said of answers: data/feedback/<run>.jsonl, a row for each marked or corrected answer.

A row says where it came from. A correction of a question that the run is tested or validated on is a better reference
and never a row to train on, wherever it was asked.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import msgspec

from snaketune.contracts.data import DataRecord, Message
from snaketune.data.deduplication import is_blank, row_keys
from snaketune.errors import ConfigError
from snaketune.files import read_jsonl
from snaketune.ui.project import Project

FOLDER = "data/feedback"
Origin = Literal["chat", "test", "log"]
Mark = Literal["corrected", "good", "bad"]
Use = Literal["training", "reference", "marked"]
HELD_OUT = ("test", "valid")
MAX_ANSWER = 200_000  # characters


class FeedbackRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the feedback file; of several about one answer, the last counts.

    messages: the conversation up to the answer; answer: what the model said; response: what it should have said.
    origin: chat, a test question, or the log of a client; row: the record or the chat entry or the logged request;
    use: what becomes of it; split: where a reference belongs.
    """

    messages: list[Message]
    answer: str
    mark: Mark
    run: str
    variant: str
    origin: Origin
    row: str
    use: Use
    response: str = ""
    split: str = ""
    category: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Which answer it is about."""
        return self.origin, self.row, self.variant

    @property
    def is_trainable(self) -> bool:
        """Whether it has an answer to learn."""
        return self.use == "training"

    @property
    def right_answer(self) -> str:
        return self.response if self.mark == "corrected" else self.answer


class HeldOut(msgspec.Struct, frozen=True):
    """A row that the run is tested or validated on."""

    split: str
    id: str


class Feedback:
    """The feedback on one run."""

    def __init__(self, project: Project, run: str) -> None:
        self.project, self.run = project, run
        project.run_folder(run)
        self.path = project.path(f"{FOLDER}/{run}.jsonl")

    def rows(self) -> list[FeedbackRow]:
        """All rows, of each answer the last."""
        found: dict[tuple[str, str, str], FeedbackRow] = {}
        decode = msgspec.json.Decoder(FeedbackRow).decode
        with contextlib.suppress(OSError):
            for line in self.path.read_bytes().splitlines():
                with contextlib.suppress(msgspec.DecodeError):  # cut off by a kill, or edited by hand
                    row = decode(line)
                    found[row.key] = row
        return list(found.values())

    def add(self, row: FeedbackRow) -> FeedbackRow:
        """Append a row, with its use; returns it. ConfigError for a correction that says nothing."""
        if row.mark == "corrected" and (is_blank(row.response) or len(row.response) > MAX_ANSWER):
            raise ConfigError("a correction has between 1 and 200,000 characters", where="response")
        placed = self.placed(row, held_out_questions(self.project.run_folder(self.run)))
        self.append([placed])
        return placed

    def append(self, rows: list[FeedbackRow]) -> None:
        """Append rows whose use is known."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as out:
            out.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))

    @staticmethod
    def placed(row: FeedbackRow, held_out: dict[int, HeldOut]) -> FeedbackRow:
        """The row with what becomes of it: a row to train on, a better reference, or a mark alone."""
        if row.origin == "test":
            return msgspec.structs.replace(row, use="reference" if row.mark == "corrected" else "marked", split="test")
        found = held_out.get(question_key(row.messages))
        if row.mark == "corrected" and found:
            return msgspec.structs.replace(row, use="reference", split=found.split, row=found.id)
        is_learned = row.mark == "corrected" or (row.mark == "good" and not found and not is_blank(row.answer))
        return msgspec.structs.replace(row, use="training" if is_learned else "marked")


def question_key(messages: list[Message]) -> int:
    """The key by which the data stage finds rows of one question."""
    content = DataRecord(messages=[*messages, {"role": "assistant", "content": "-"}])
    return row_keys(content).prompt_hash


def held_out_questions(folder: Path) -> dict[int, HeldOut]:
    """The questions of a run's test and validation rows."""
    found: dict[int, HeldOut] = {}
    for split in reversed(HELD_OUT):
        path = folder / "data" / f"{split}.jsonl"
        if path.is_file():
            for record in read_jsonl(path):
                if "messages" in record:
                    found[row_keys(record).prompt_hash] = HeldOut(split, record["id"])
    return found
