"""The next version of a run: its rows with the feedback, the same test rows kept out, compared with the last one.

Two files are written beside the feedback, named after the new run: the corrections to learn, and the last run's test
rows with their better references. The new configuration takes both as sources, so that all of it can be read there.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from snaketune.config import schema
from snaketune.config.docs import to_commented_yaml
from snaketune.config.sections import RunConfig, load
from snaketune.contracts.data import DataRecord, LeakReport
from snaketune.data import splits
from snaketune.data.deduplication import row_keys
from snaketune.data.splits import LeakageConfig
from snaketune.errors import ConfigError, EvaluationError
from snaketune.files import read_json, read_jsonl, write_jsonl, write_text
from snaketune.ui.feedback import FOLDER, Feedback, FeedbackRow
from snaketune.ui.project import Project, check_run_name

PINNED = re.compile(rf"{re.escape(FOLDER)}/[^/]+[.]test[.]jsonl")
LAST = -1  # the turn of a reference that is its row's last answer
CHANGED = "changed"  # of a row in the making
ROUNDS = 20  # in which rows that are near test rows are taken out; a report lists a hundred at a time


class NextRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What the new version is called, and how its corrections count.

    weight: how many times each correction is seen per epoch; with_good: answers marked right are learned as well.
    """

    name: str
    weight: float = 3.0
    with_good: bool = True


class NextVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What was written. held_back: corrections that are nearly a test question; references: that were made better."""

    configuration: str
    yaml: str
    files: list[str]
    learned: int
    held_back: int
    references: int
    test_rows: int
    command: str


@dataclass
class NextVersionMaker:
    """Makes the next version of one run."""

    project: Project
    run: str

    def make(self, wanted: NextRequest) -> NextVersion:
        """Write the two files of rows and the configuration. ConfigError where something is in the way."""
        check_run_name(wanted.name)
        folder = self.project.run_folder(self.run)
        target = self.project.path(f"{wanted.name}.yaml")
        if target.exists() or self.project.run_folder(wanted.name).exists():
            raise ConfigError(
                f"there is a run or a file {wanted.name} already", where="name", fix="Choose another name"
            )
        if not (folder / "config.json").is_file() or not (folder / "data" / "test.jsonl").is_file():
            raise EvaluationError(f"{self.run} has not been run to its report", where=str(folder))
        rows = Feedback(self.project, self.run).rows()
        tests = list(_with_references(folder, rows, "test"))
        config = load(read_json(folder / "config.json"))
        learned, held_back = self._learned(rows, folder, config, with_good=wanted.with_good)
        if not learned and not any(row.use == "reference" for row in rows):
            raise ConfigError(
                "there is nothing to learn yet",
                where=f"{FOLDER}/{self.run}.jsonl",
                fix="Correct some answers first, to questions that are not test questions",
            )
        valid = [row for row in _with_references(folder, rows, "valid") if row.pop(CHANGED)]
        for row in tests:
            row.pop(CHANGED)
        made = {"train": learned, "valid": valid, "test": tests}
        files = {split: f"{FOLDER}/{wanted.name}.{split}.jsonl" for split, found in made.items() if found}
        for split, file in files.items():
            write_jsonl(self.project.path(file), made[split])
        complete = _settings(config, self.run, wanted, files)
        text = to_commented_yaml(complete)
        write_text(target, f"# The version after {self.run}, with what was learned from its answers.\n\n{text}")
        return NextVersion(
            configuration=target.name,
            yaml=text,
            files=list(files.values()),
            learned=len(learned),
            held_back=held_back,
            references=sum(row.use == "reference" for row in rows),
            test_rows=len(tests),
            command=f"snakemake --configfile {target.name}",
        )

    def _learned(
        self, rows: list[FeedbackRow], folder: Path, config: RunConfig, *, with_good: bool
    ) -> tuple[list[dict[str, object]], int]:
        """The rows to learn, and how many were held back because a test question is nearly the same.

        The leak check of the data stage finds them, so that it will find none in the run.
        """
        chosen = [row for row in rows if row.is_trainable and (with_good or row.mark == "corrected")]
        found = {_question(row): row for row in chosen}  # of one question the last correction
        records = [_learned_record(row, number) for number, row in enumerate(found.values(), 1)]
        count = len(records)
        leakage = LeakageConfig(**{name: getattr(config.data, name) for name in LeakageConfig.__struct_fields__})
        with tempfile.TemporaryDirectory() as scratch:
            train, leaks = Path(scratch, "train.jsonl"), Path(scratch, "leaks.json")
            valid, test = folder / "data" / "valid.jsonl", folder / "data" / "test.jsonl"
            for _ in range(ROUNDS):
                write_jsonl(train, records)
                near = _leaking_lines(splits.check_leaks(leakage, train, valid, test, leaks))
                if not near:
                    break
                records = [record for record in records if record["line"] not in near]
        return [_as_row(record) for record in records], count - len(records)


def _settings(config: RunConfig, run: str, wanted: NextRequest, files: dict[str, str]) -> dict[str, object]:
    """The settings of the last run with the new sources; the test rows of an earlier version give way to these."""
    new = msgspec.to_builtins(config)
    labels = {"category": {"field": "category"}, "group": {"field": "group"}}
    sources = [one for one in new["data"]["sources"] if not PINNED.fullmatch(str(one.get("path") or ""))]
    for split, file in files.items():
        weight = {"weight": wanted.weight} if split == "train" else {}
        sources.append({"path": file, "split": split, "replaces": True} | weight | labels)
    new["data"]["sources"] = sources
    return schema.complete(new | {"run": wanted.name, "compare_with": run})


def _with_references(folder: Path, feedback: list[FeedbackRow], split: str) -> Iterator[dict[str, object]]:
    """The rows of a split as rows of a source, with their better references; CHANGED says which have one."""
    better = [row for row in feedback if row.use == "reference" and row.split == split]
    by_record: dict[str, dict[int, str]] = {}
    for row in better:
        name, _, turn = row.row.partition("#")
        by_record.setdefault(name, {})[int(turn) if turn else LAST] = row.response
    for record in read_jsonl(folder / "data" / f"{split}.jsonl"):
        made = _as_row(record)
        for at, response in by_record.get(record["id"], {}).items():
            _correct(made, at, response)
        yield made | {CHANGED: record["id"] in by_record}


def _correct(row: dict[str, object], turn: int, response: str) -> None:
    """Put a better reference in the place of an answer: that of a turn, or the last one."""
    turns = row.get("messages")
    answers = [at for at, one in enumerate(turns) if one["role"] == "assistant"] if isinstance(turns, list) else []
    if isinstance(turns, list) and answers:
        at = turn if turn in answers else answers[-1]
        turns[at] = turns[at] | {"content": response}


def _leaking_lines(report: LeakReport) -> set[int]:
    """The lines of training rows in a report of leaks."""
    rows = (row for pair in report.listed for row in pair.rows if row.split == "train")
    return {int(row.row.rpartition(":")[2]) for row in rows}


def _question(row: FeedbackRow) -> int:
    return row_keys(_learned_record(row, 0)).prompt_hash


def _learned_record(row: FeedbackRow, number: int) -> DataRecord:
    """A correction as a record of the data stage; nobody has said that the answers before it are right."""
    before = [turn | {"trained": False} if turn["role"] == "assistant" else turn for turn in row.messages]
    messages = [*before, {"role": "assistant", "content": row.right_answer}]
    record: dict[str, object] = {"id": f"feedback-{number}", "messages": messages, "source": "feedback", "line": number}
    return msgspec.convert(record | ({"category": row.category} if row.category else {}), DataRecord)


def _as_row(record: Any) -> dict[str, object]:
    """A record as a row that the readers make the same record of."""
    labels = {name: record[name] for name in ("category", "group", "tools") if name in record}
    if "text" in record:
        segments = [{"text": record["text"][a:b], "label": bool(on)} for a, b, on in record.get("segments", [])]
        return ({"segments": segments} if segments else {"text": record["text"]}) | labels
    return {"messages": [_as_turn(turn) for turn in record["messages"]]} | labels


def _as_turn(turn: Any) -> dict[str, object]:
    """A message as a turn of a source: an answer that is not trained has the weight 0."""
    plain = {name: value for name, value in turn.items() if name != "trained"}
    return plain | ({"weight": 0} if turn.get("trained") is False else {})


def suggested_name(run: str) -> str:
    """The name of the version after a run: jessy-v2 after jessy-v1."""
    number = re.search(r"\d+$", run)
    return f"{run[: number.start()]}{int(number[0]) + 1}" if number else f"{run}-v2"
