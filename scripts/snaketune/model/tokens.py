"""Tokenising the splits once: token stores for training, and what the model's own rules make of each row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snaketune.data import token_verdicts
from snaketune.errors import DataError
from snaketune.files import StrPath, read_jsonl, write_json
from snaketune.model.base import read_manifest
from snaketune.model.rendering import Rendered, Renderer
from snaketune.model.store import write_store
from snaketune.progress import progress


def tokenize_splits(
    rows: dict[str, str], manifest: StrPath, config: dict[str, Any], stores: dict[str, str], verdicts: StrPath
) -> dict[str, Any]:
    """Write a token store for each split, and tokens.json with every row that was cut, dropped or is suspicious.

    rows and stores: file by split; config: {"model": {"template"}, "data": {...}}. Raises DataError when nothing is
    left to train on.
    """
    renderer = Renderer(read_manifest(manifest)["folder"], config["model"]["template"])
    report: dict[str, Any] = {"splits": {}, "verdicts": []}
    for split, path in rows.items():
        tally = token_verdicts.Tally(split)
        kept = write_store(stores[split], _kept(path, renderer, config["data"], tally))
        report["splits"][split] = tally.summary()
        report["verdicts"] += tally.listed
        if split == "train" and not kept:
            raise DataError(
                "no training row is left after tokenising",
                where=str(Path(path)),
                why="There is nothing to train on",
                mend=f"Raise data.max_length, or see {verdicts} for what was wrong with each row",
            )
    write_json(verdicts, report)
    return report


def _kept(path: StrPath, renderer: Renderer, data: dict[str, Any], tally: Any) -> Iterator[tuple[Rendered, float]]:
    for record in progress(read_jsonl(path), f"tokenising {Path(path).stem}"):
        rendered = tally.judge(record, renderer, data)
        if rendered is not None:
            yield rendered, float(record.get("weight", 1.0))
