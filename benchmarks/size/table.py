"""What the stages take of models of real shape, beside doing it by hand: `python benchmarks/size/table.py [SHAPE ...]`.

Makes each model with random weights and runs stage after stage, each in a process of its own. What was measured is kept
in measured/<model>.json after every stage, so the same command goes on where it was stopped. `--stages` takes these
alone, `--again` measures what is kept already once more and keeps the run of fewer CPU-seconds, since other programs
on the machine can only add to them; `--only-print` measures nothing. A tool by hand that the kernel kills for want of
memory has no figures. The table of docs/scale.md is made of all that is kept. A file goes as soon as no stage to come
reads it; at the most there are base, fused model, 16-bit GGUF and quantized ones at once: 65 GB of disk for
llama-3.1-8b. `--bits 4` starts from MLX's 4-bit format.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "plan"))
sys.path.insert(0, str(ROOT / "tests"))

import accuracy  # noqa: E402
import shaped_models  # noqa: E402
from real_shapes import SHAPES  # noqa: E402

PAGE = ROOT / "docs" / "scale.md"
KEPT = HERE / "measured"
HEAD = (
    "| model | stage | seconds | CPU-seconds | by hand | ratio | peak, GB | by hand | read, GB | written, GB |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)
Figures = dict[str, float]
GGUF = ("fuse", "convert"), ("hand_fuse", "hand_convert")
"""What makes the 16-bit GGUF of an adapted model, here and by hand; our converter merges once more, in float32."""


@dataclass(frozen=True)
class Stage:
    """A stage of `one_stage.py`, with what it reads and leaves in the work folder; hand: the same product by hand."""

    name: str
    reads: tuple[str, ...]
    leaves: tuple[str, ...]
    hand: str | None = None
    shown: bool = True


MERGE = ("base.json", "adapter")
STAGES = (
    Stage("prepare", (), ("adapter", "test.jsonl", "train.jsonl"), shown=False),
    Stage("fetch", (), ("base.json",)),
    Stage("tokenize", ("base.json", "train.jsonl", "test.jsonl"), ("tokens",)),
    Stage("hand_fuse", ("adapter",), ("hand",), shown=False),
    Stage("fuse", MERGE, ("fused", "fused.json"), hand="hand_fuse"),
    Stage("hand_convert", ("fused",), ("hand-f16.gguf",), shown=False),
    Stage("convert", (*MERGE, "fused", "fused.json"), ("size-f16.gguf",)),
    Stage("hand_quantize_q8_0", ("size-f16.gguf",), ("hand-q8_0.gguf",), shown=False),
    Stage("quantize_q8_0", ("size-f16.gguf",), ("size-q8_0.gguf",), hand="hand_quantize_q8_0"),
    Stage("hand_quantize_q4_k_m", ("size-f16.gguf",), ("hand-q4_k_m.gguf",), shown=False),
    Stage("quantize_q4_k_m", ("size-f16.gguf",), ("size-q4_k_m.gguf",), hand="hand_quantize_q4_k_m"),
    Stage(
        "fidelity",
        (*MERGE, "fused", "fused.json", "size-f16.gguf", "size-q8_0.gguf", "size-q4_k_m.gguf", "test.jsonl"),
        ("fidelity.json",),
    ),
    Stage("answer", ("base.json", "size-q8_0.gguf", "test.jsonl"), ("evaluation",)),
    Stage("score", ("evaluation",), ("scores.json",)),
)


def to_run(missing: set[str], there: set[str]) -> list[Stage]:
    """The stages to run: those whose figures are missing, and those that make what they read and is not there."""
    chosen: list[Stage] = []
    wanted: set[str] = set()
    for stage in reversed(STAGES):
        if stage.name in missing or wanted & set(stage.leaves):
            chosen.append(stage)
            wanted = (wanted - set(stage.leaves)) | (set(stage.reads) - there)
    return chosen[::-1]


def measure(label: str, base: Path, work: Path, wanted: set[str]) -> None:
    """Run the wanted stages of one model, and keep the figures stage by stage."""
    kept = figures(label)
    work.mkdir(parents=True, exist_ok=True)
    left = to_run(wanted, {path.name for path in work.iterdir()})
    while left:
        stage = left.pop(0)
        try:
            found = run_stage(stage.name, base, work)
        except subprocess.CalledProcessError as error:
            if error.returncode != -signal.SIGKILL or not stage.name.startswith("hand_"):
                raise
            print(f"{label}: {stage.name}: killed, as by the kernel for want of memory", file=sys.stderr, flush=True)
            continue
        kept[stage.name] = min(found, kept.get(stage.name, found), key=_cpu_seconds)
        KEPT.mkdir(exist_ok=True)
        text = json.dumps({one.name: kept[one.name] for one in STAGES if one.name in kept}, indent=1)
        (KEPT / f"{label}.json").write_text(f"{text}\n", encoding="utf-8")
        needed = {name for one in left for name in one.reads}
        for name in {path.name for path in work.iterdir()} - needed:
            path = work / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _cpu_seconds(found: Figures) -> float:
    return found["cpu_seconds"]


def run_stage(name: str, base: Path, work: Path) -> Figures:
    """What one stage takes, in a process of its own with one thread for each BLAS."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "one_stage.py"), name, str(base), str(work)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | threads).stdout
    found: Figures = json.loads(said.splitlines()[-1])
    print(f"{base.name}: {name}: {said.splitlines()[-1]}", file=sys.stderr, flush=True)
    return found


def figures(label: str) -> dict[str, Figures]:
    """What was measured of a model so far, by stage."""
    path = KEPT / f"{label}.json"
    found: dict[str, Figures] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def table() -> str:
    """All that was measured, in the order of the shapes and the stages."""
    labels = [label for name in SHAPES for label in (name, f"{name}-4-bits")]
    rows = [row for label in labels if (found := figures(label)) for row in _rows(label, found)]
    return "\n".join([HEAD, *rows])


def _rows(label: str, found: dict[str, Figures]) -> list[str]:
    rows = []
    for stage in STAGES:
        if stage.shown and stage.name in found:
            name = stage.name.replace("quantize_", "quantize, ")
            rows.append(_row(label, name, found[stage.name], found.get(stage.hand or "")))
        if stage.name == "convert" and found.keys() >= {*GGUF[0], *GGUF[1]}:
            ours, hand = (_together([found[name] for name in names]) for names in GGUF)
            rows.append(_row(label, "fuse and convert", ours, hand))
    return rows


def _together(stages: list[Figures]) -> Figures:
    """What stages take one after the other: their sums, and the higher peak."""
    summed = {key: sum(one[key] for one in stages) for key in stages[0]}
    return summed | {"peak_bytes": max(one["peak_bytes"] for one in stages)}


def _row(label: str, name: str, ours: Figures, hand: Figures | None) -> str:
    cells = [label.replace("-4-bits", ", 4 bits"), name]
    cells += [f"{ours['seconds']:.0f}", f"{ours['cpu_seconds']:.1f}"]
    cells += [f"{hand['cpu_seconds']:.1f}", f"{ours['cpu_seconds'] / hand['cpu_seconds']:.2f}"] if hand else ["", ""]
    cells += [f"{ours['peak_bytes'] / 1e9:.2f}", f"{hand['peak_bytes'] / 1e9:.2f}" if hand else ""]
    cells += [f"{ours[key] / 1e9:.2f}" for key in ("read", "written")]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", choices=[*SHAPES, []], default=[])
    parser.add_argument("--bits", type=int, choices=(4,))
    parser.add_argument("--stages", nargs="*", choices=[one.name for one in STAGES])
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--only-print", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the models are made (default: a temporary folder)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the models go from the disk
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        for shape in [] if given.only_print else given.shapes or SHAPES:
            label = f"{shape}-{given.bits}-bits" if given.bits else shape
            wanted = set(given.stages or [one.name for one in STAGES])
            wanted -= set() if given.again else figures(label).keys()
            if not wanted:
                continue
            base, work = Path(scratch, label), Path(scratch, f"{label}-work")
            shaped_models.make(SHAPES[shape], base, bits=given.bits)
            measure(label, base, work, wanted)
            shutil.rmtree(base)
            shutil.rmtree(work)
    accuracy.put("size", table(), machine=True, page=PAGE)


if __name__ == "__main__":
    main()
