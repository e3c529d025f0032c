"""The data steps one after another, as the rules run them, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from snaketune.config import schema
from snaketune.config.sections import SourceConfig
from snaketune.contracts.data import SPLITS
from snaketune.data import splits, validate
from snaketune.data.records import ValidationConfig
from snaketune.data.splits import LeakageConfig
from snaketune.files import read_json, read_jsonl


def settings(*sources: dict[str, Any], **data: Any) -> dict[str, Any]:
    """The completed data section; every row may be rejected unless said otherwise."""
    return schema.complete({"run": "t", "data": {"sources": list(sources), "max_rejected": 1.0} | data})["data"]


def section(kind: type, data: dict[str, Any]) -> Any:
    """The part of a data section that a step is given."""
    return msgspec.convert({name: data[name] for name in kind.__struct_fields__}, kind)


def source(**keys: Any) -> SourceConfig:
    """One completed source."""
    return msgspec.convert(settings(keys)["sources"][0], SourceConfig)


def validated(folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Run validate_rows in a folder; returns report.json."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("records.jsonl", "rejected.jsonl", "report.json")]
    validate.run(section(ValidationConfig, data), *paths)
    return read_json(paths[-1])


def divided(folder: Path, data: dict[str, Any], seed: int = 1) -> dict[str, dict[str, Any]]:
    """Run split_rows after validate_rows; returns the records by split and id."""
    files = {name: folder / f"{name}.jsonl" for name in SPLITS}
    shares = {key: value for key, value in data["split"].items() if key != "sealed"}
    config = msgspec.convert({"split": shares, "seed": seed}, splits.SplitRowsConfig)
    splits.run(config, folder / "records.jsonl", files, folder / "split.json")
    return {name: {row["id"]: row for row in read_jsonl(file)} for name, file in files.items()}


def checked(folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Run check_leaks after split_rows; returns leaks.json."""
    paths = [folder / f"{name}.jsonl" for name in SPLITS]
    splits.check_leaks(section(LeakageConfig, data), *paths, folder / "leaks.json")
    return read_json(folder / "leaks.json")


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
