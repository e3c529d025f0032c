"""One step on many rows, in a process of its own: `python one_step.py STEP ROWS FOLDER` prints one line of JSON.

generate writes the rows that validate reads, whose records split divides. write_store writes so many made-up rows of
about 114 tokens, and open_store opens them as a training does and takes the first and the last update's rows.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "scripts"), str(HERE.parent / "data")]


def generate(rows: int, folder: Path) -> None:
    import generate

    generate.write(rows, folder / "rows.jsonl")


def validate(_: int, folder: Path) -> None:
    from snaketune.config import schema
    from snaketune.data import validate

    data = schema.complete({"run": "benchmark", "data": {"sources": [{"path": str(folder / "rows.jsonl")}]}})["data"]
    outputs = [folder / name for name in ("records.jsonl", "rejected.jsonl", "report.json")]
    validate.run({"data": data, "seed": 1}, *outputs)


def split(_: int, folder: Path) -> None:
    from snaketune.config import schema
    from snaketune.data import splits

    data = schema.complete({"run": "benchmark", "data": {"sources": [{"path": "rows.jsonl"}]}})["data"]
    files = [folder / f"{name}.jsonl" for name in splits.NAMES]
    splits.run({"split": data["split"], "seed": 1}, folder / "records.jsonl", *files, folder / "split.json")


def write_store(rows: int, folder: Path) -> None:
    from snaketune.tokens.chat_template import Rendered
    from snaketune.tokens.token_store import write_store

    def made() -> Iterator[tuple[Rendered, float]]:
        ids, trained = list(range(178)), [False] * 40 + [True] * 138
        for row in range(rows):
            length = 50 + row * 7919 % 129
            yield Rendered(ids[:length], trained[:length]), 1.0

    write_store(folder / "train.safetensors", made())


def open_store(_: int, folder: Path) -> None:
    from snaketune.tokens.token_store import TokenStore
    from snaketune.train.batches import EpochSampler, MicroBatching, collate, nested_subset

    store = TokenStore(folder / "train.safetensors")
    indices = nested_subset(store, len(store), 1)
    sampler = EpochSampler(store.lengths[indices], store.weights[indices], rows_per_step=16, seed=1, epochs=1)
    for step in (1, sampler.num_steps):
        collate(store, indices[sampler.rows(step)], MicroBatching(16, 4096))


if __name__ == "__main__":
    step, rows, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    before = time.process_time()
    {"generate": generate, "validate": validate, "split": split, "write_store": write_store, "open_store": open_store}[
        step
    ](rows, folder)
    # ru_maxrss counts kilobytes on Linux and bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"cpu_seconds": time.process_time() - before, "peak_bytes": peak}))
