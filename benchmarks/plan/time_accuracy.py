"""A training's time as forecast from a pilot and as it was; prints a Markdown table.

`python benchmarks/plan/time_accuracy.py` takes about four CPU-minutes on one core. Both clocks are shown: the wall's,
which another job on the machine moves, and the processor's, which it hardly does. The demo's base is built first if it
is not there; the stories model and its rows are left out where they are not (see SHARED).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import made_models
import numpy as np
from snaketune import config as configuration
from snaketune.files import read_jsonl
from snaketune.model.rendering import Renderer
from snaketune.model.store import TokenStore, write_store
from snaketune.plan import time
from snaketune.train import subset
from snaketune.train.batches import Visits

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / "../shared"
DEMO = ROOT / "results/models/demo"
STORIES = {"learning_rate": 1e-3, "batch_size": 4, "accumulation": 2, "dropout": 0.0, "validate_every": 100}


def configurations() -> Iterator[tuple[str, Path, Path, dict[str, Any], int, int, int]]:
    """Name, base, folder of the splits, train section, and the rows and updates of the pilot, updates of the run."""
    own = configuration.read(ROOT / "config.yaml")
    yield "demo", DEMO, ROOT / "data/demo", own["train"], own["pilot"]["rows"], own["pilot"]["updates"], 1000
    if (SHARED / "data/wikisql").is_dir():
        yield "stories", SHARED / "models/stories260K", SHARED / "data/wikisql", STORIES, 200, 40, 300


def store(base: Path, rows: Path, target: Path) -> Path:
    renderer = Renderer(base)
    records = (row if "text" in row else {"messages": _messages(row)} for row in read_jsonl(rows))
    write_store(target, ((renderer.record(record), 1.0) for record in records))
    return target


def _messages(row: dict[str, str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]


def clock(found: dict[str, Any], processor: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """timing.json and timing.jsonl by the wall's clock, or by the processor's as if it had been the wall's."""
    timing, lines = found["timing"], found["lines"]
    if not processor:
        return timing, lines
    start = lines[0]["cpu_seconds"] - lines[0]["seconds"]
    moved = [line | {"seconds": line["cpu_seconds"] - start} for line in lines]
    return timing | {"seconds": timing["cpu_seconds"] - start}, moved


def rows_of_table() -> Iterator[str]:
    for name, base, data, given, pilot_rows, pilot_updates, updates in configurations():
        settings = configuration.complete({"run": "bench", "train": given})["train"] | {"patience": None}
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            train, valid = (store(base, data / f"{split}.jsonl", folder / split) for split in ("train", "valid"))
            manifest = folder / "manifest.json"
            manifest.write_text(json.dumps({"folder": str(base), "files": {}}))
            pilot = made_models.trained(train, valid, manifest, settings | {"updates": pilot_updates}, pilot_rows)
            full = made_models.trained(train, valid, manifest, settings | {"updates": updates})
            lengths, read = read_by_update(TokenStore(train), settings, pilot_rows, pilot_updates)
        seen = updates * settings["batch_size"] * settings["accumulation"]
        for words, processor in (("wall", False), ("processor", True)):
            speed = time.measured(*clock(pilot, processor), read)
            forecast = time.training_seconds(speed, seen * lengths, updates, settings["validate_every"])
            forecast -= time.START_SECONDS
            outcome = clock(full, processor)[0]["seconds"]
            yield (
                f"| {name} | {pilot_updates} of {updates} | {words} | {forecast:.1f} | ± {speed.share:.0%} "
                f"| {outcome:.1f} | {forecast / outcome:.2f} |"
            )


def read_by_update(rows: TokenStore, settings: dict[str, Any], count: int, updates: int) -> tuple[float, list[int]]:
    """The mean tokens of a row, and the tokens that each update of the pilot reads."""
    chosen = subset.first(rows, count, 1)
    visits = Visits(
        rows.lengths[chosen],
        rows.weights[chosen],
        rows_per_update=settings["batch_size"] * settings["accumulation"],
        seed=1,
        updates=updates,
    )
    read = [int((rows.lengths[chosen[visits.rows(n)]] - 1).sum()) for n in range(1, updates + 1)]
    return float(np.mean(rows.lengths - 1)), read


def table() -> str:
    head = "| run | pilot's updates | clock | forecast, s | range | outcome, s | forecast / outcome |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows_of_table()])


if __name__ == "__main__":
    if not DEMO.is_dir():
        from snaketune.mlx_engine.pretraining import build_demo

        build_demo(DEMO, seed=1)
    print(table())
