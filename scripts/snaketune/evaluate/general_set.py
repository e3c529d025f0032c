"""The general set: what a model could do before it was tuned, to see what it has forgotten."""

from __future__ import annotations

from typing import Any

from snaketune.data import sources
from snaketune.data.readers import dispatch
from snaketune.data.rejection import Rejection
from snaketune.data.row_formats import content_of
from snaketune.errors import DataError
from snaketune.files import StrPath


def records(path: StrPath) -> list[dict[str, Any]]:
    """The rows of a file in any row format of the data; a row that cannot be used is a DataError with its line."""
    name = str(path)
    found = []
    for row in dispatch.rows(name, sources.container_of(name, "auto"), {"path": name}):
        try:
            if isinstance(row.value, Rejection):
                raise row.value
            content = content_of(row.value, {})
        except Rejection as rejection:
            raise DataError(
                f"this row of the general set cannot be used: {rejection}",
                where=f"{name}:{row.line}",
                fix="Mend it or take it out, or set evaluate.forgetting.rows to another file, or to null",
            ) from None
        category = row.value.get("category")
        found.append({"id": f"general-{row.line}", **content} | ({"category": str(category)} if category else {}))
    return found


def as_text(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows for a base without a chat template, which cannot be asked: their turns, one a line."""
    return [
        {key: record[key] for key in ("id", "category") if key in record}
        | {
            "text": record["text"]
            if "text" in record
            else "\n".join(turn["content"] or "" for turn in record["messages"])
        }
        for record in records
    ]
