"""The whole chain on a model of real shape: a project with such a base and a configuration that takes minutes.

A row has some hundred tokens, as real ones do; few of them are trained, answered and scored.
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import families
import shaped_models
from project_copy import ROOT, Project
from real_shapes import SHAPES

sys.path.insert(0, str(ROOT / "benchmarks" / "size"))
import one_stage

CONFIGURATION = """
run: size
engine: {engine}
model: {{base: {base}}}
data:
  sources: [{{path: rows.jsonl}}]
  max_length: 256
  near_duplicates: false
pilot: {{rows: 16, max_steps: 4, on_no_go: continue, sample: 4}}
train:
  max_steps: 8
  batch_size: 2
  gradient_accumulation_steps: 1
  rank: 8
  alpha: 16
  learning_rate: 1e-3
  warmup_steps: 1
  eval_steps: 8
package: {{gguf: [q8_0, q4_k_m], min_gain_retained: 0}}
evaluate: {{max_rows: 8, max_new_tokens: 24, models: [base, adapter, gguf]}}
"""
LOOKS = 0.5  # seconds between two looks at the disk
ROWS = 60
SENTENCES = 6  # of an answer


def rules_without_training() -> list[str]:
    """The rules that package an adapter made elsewhere, as docs/planning.md names them to a person."""
    (command,) = re.findall(r"--allowed-rules ((?:.*\\\n)*.*)", (ROOT / "docs" / "planning.md").read_text("utf-8"))
    return command.replace("\\", "").split()


def project(folder: Path, shape: str, *, bits: int | None = None, engine: str = "auto") -> Project:
    """A project whose base has this shape; bits: quantized to so many."""
    copied = Project.copied(folder, "size.yaml")
    base = shaped_models.make(SHAPES[shape], folder / "base", bits=bits)
    copied.write("size.yaml", CONFIGURATION.format(engine=engine, base=base))
    copied.write("rows.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows(ROWS)))
    return copied


def rows(count: int) -> list[dict[str, object]]:
    """Conversations with answers of several sentences, no two alike."""
    drawn = families.conversations(count * SENTENCES)
    found: list[dict[str, object]] = []
    for number in range(count):
        group = drawn[number * SENTENCES : (number + 1) * SENTENCES]
        asked = {"role": "user", "content": f"{number}: " + group[0]["messages"][0]["content"]}
        answer = {"role": "assistant", "content": " ".join(one["messages"][1]["content"] for one in group)}
        found.append({"messages": [asked, answer]})
    return found


def jobs(run: Path) -> dict[str, dict[str, float]]:
    """What Snakemake measured of each job of a run: seconds, CPU-seconds and bytes of resident memory at the peak."""
    found = {}
    for path in sorted(run.glob("benchmarks/*.tsv")):
        with path.open(encoding="utf-8") as lines:
            (line,) = csv.DictReader(lines, delimiter="\t")
        found[path.stem] = {
            "seconds": float(line["s"]),
            "cpu_seconds": _number(line["cpu_time"]),
            "peak_bytes": _number(line["max_rss"]) * 2**20,
        }
    return found


def _number(text: str) -> float:
    """A number of Snakemake's table; a job too short to be looked at has none."""
    return 0.0 if text in ("NA", "-") else float(text)


def put_adapter(run: Path, base: Path, scratch: Path) -> None:
    """Put an adapter that this run has not trained where the run's own would be: random, of rank 8, on all layers."""
    one_stage.prepare(base, scratch)
    target = run / "model" / "adapter"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(scratch / "adapter", target)


@contextlib.contextmanager
def watching_disk(folder: Path) -> Iterator[list[int]]:
    """The bytes of the files below a folder, looked at again and again until the block ends."""
    sizes: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOKS):
            sizes.append(sum(map(_bytes_of, folder.rglob("*"))))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sizes
    finally:
        done.set()
        thread.join()


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() and not path.is_symlink() else 0
    except FileNotFoundError:  # gone since it was listed
        return 0
