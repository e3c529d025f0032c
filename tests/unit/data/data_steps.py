"""The data steps one after another, as the rules run them, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snaketune.config import schema
from snaketune.data import leakage, splits, validate
from snaketune.files import read_jsonl

SPLITS = ("train", "valid", "test")


def settings(*sources: dict[str, Any], **data: Any) -> dict[str, Any]:
    """The completed data section; every row may be rejected unless said otherwise."""
    return schema.complete({"run": "t", "data": {"sources": list(sources), "max_rejected": 1.0} | data})["data"]


def validated(folder: Path, data: dict[str, Any], seed: int = 1) -> dict[str, Any]:
    """Run validate_rows in a folder; returns the report."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = (folder / name for name in ("records.jsonl", "rejected.jsonl", "report.json"))
    return validate.run({"data": data, "seed": seed}, *paths)


def divided(folder: Path, data: dict[str, Any], seed: int = 1) -> dict[str, dict[str, Any]]:
    """Run split_rows after validate_rows; returns the records by split and id."""
    files = [folder / f"{name}.jsonl" for name in SPLITS]
    splits.run({"split": data["split"], "seed": seed}, folder / "records.jsonl", *files, folder / "split.json")
    return {name: {row["id"]: row for row in read_jsonl(file)} for name, file in zip(SPLITS, files, strict=True)}


def checked(folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Run check_leaks after split_rows; returns leaks.json."""
    return leakage.run(data, *(folder / f"{name}.jsonl" for name in SPLITS), folder / "leaks.json")


def sides(folder: Path, data: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """All steps: each row's side and its cluster (its own id where it stands alone), by its id."""
    validated(folder, data)
    found = divided(folder, data)
    return {key: (side, row.get("cluster", key)) for side, rows in found.items() for key, row in rows.items()}


def write(path: Path, *rows: Any) -> dict[str, Any]:
    """Write a JSON Lines file; returns it as a source."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return {"path": str(path)}


def ask(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"prompt": question, "response": answer, **more}
