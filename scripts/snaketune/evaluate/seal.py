"""A test split that is scored once: whoever looks at its scores and trains again has chosen by them.

The openings lie beside the runs, in results/.seals, a file each: which rows were opened, for which adapter, when. The
same adapter may be scored again, after a crash or with other metrics; another one that meets a row opened before is
refused.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from snaketune.contracts.evaluate import Opening, TestSplitUse
from snaketune.errors import EvaluationError
from snaketune.files import StrPath, read_json, read_jsonl, sha256, write_json

SEALS = ".seals"


def open_test_rows(rows: StrPath, adapter: StrPath, run: StrPath, use: StrPath) -> TestSplitUse:
    """Open the test rows for an adapter, or find that they are open for it; writes `use`, which holds no time.

    run: the folder results/<run>. Raises EvaluationError where another adapter was scored on one of these rows.
    """
    ids = [row["id"] for row in read_jsonl(rows)]
    digest, tuned = sha256(rows), sha256(adapter)
    known = openings(run)
    for one in known:
        again = len(set(ids) & set(one.rows))
        if again and one.adapter_sha256 != tuned:
            raise EvaluationError(
                f"{again} of {len(ids)} test rows are sealed, and were opened for another model: run {one.run}, "
                f"{one.opened_at}",
                where="data.split.sealed",
                why="A model that is trained again after its test scores were seen is chosen by them",
                fix="Bring test rows that no run has scored (a source with split: test), or set data.split.sealed: "
                "false; the report then says that the rows were scored before",
            )
    if not any(one.test_sha256 == digest for one in known):
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        found = Opening(run=Path(run).name, opened_at=now, test_sha256=digest, adapter_sha256=tuned, rows=ids)
        write_json(_seals(run) / f"{digest[:16]}.json", found)
    record = TestSplitUse(sealed=True, rows=len(ids), test_sha256=digest, adapter_sha256=tuned)
    write_json(use, record)
    return record


def openings(run: StrPath) -> list[Opening]:
    """The openings that are recorded beside this run, of all runs, the first one first."""
    found = [read_json(path, Opening) for path in _seals(run).glob("*.json")]
    return sorted(found, key=lambda one: (one.opened_at, one.run))


def opening_of(run: StrPath, rows: StrPath) -> Opening | None:
    """The first opening that holds one of these test rows, if they were ever sealed and opened."""
    if not Path(rows).is_file() or not (known := openings(run)):
        return None
    ids = {row["id"] for row in read_jsonl(rows)}
    return next((one for one in known if ids & set(one.rows)), None)


def _seals(run: StrPath) -> Path:
    return Path(run).parent / SEALS
