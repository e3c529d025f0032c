"""What the stages take of models of real shape, beside doing it by hand: `python benchmarks/size/table.py [SHAPE ...]`.

Makes each model with random weights, runs stage after stage in a process of its own, and writes the table of
docs/scale.md, in which the rows of shapes that are not named stay. llama-3.1-8b takes 16 GB of disk five times: base,
two fused models, two 16-bit GGUF files. `--bits 4` starts from MLX's 4-bit format, `--folder` keeps the models.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "plan"))
sys.path.insert(0, str(ROOT / "tests"))

import accuracy  # noqa: E402
import shaped_models  # noqa: E402
from real_shapes import SHAPES  # noqa: E402

PAGE = ROOT / "docs" / "scale.md"
BESIDE = {"fuse": "hand_fuse", "convert": "hand_convert", "quantize": "hand_quantize"}
ORDER = ("prepare", "fetch", "fuse", "hand_fuse", "convert", "hand_convert", "quantize", "hand_quantize", "fidelity")
HEAD = (
    "| model | stage | seconds | CPU-seconds | the system's of them | by hand | peak, GB | by hand "
    "| read, GB | written, GB |\n|---|---|---|---|---|---|---|---|---|---|"
)


def stage(name: str, base: Path, folder: Path) -> dict[str, Any]:
    """The measurements of one stage, by a process of its own with one thread for each BLAS."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "one_stage.py"), name, str(base), str(folder)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | threads).stdout
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    print(name, found, file=sys.stderr)
    return found


def rows(shape: str, bits: int | None, folder: Path) -> list[str]:
    """The table's rows for one shape."""
    label = f"{shape}, 4 bits" if bits else shape
    base = folder / label.replace(", ", "-").replace(" ", "-")
    if not (base / "config.json").is_file():
        shaped_models.make(SHAPES[shape], base, bits=bits)
    work = folder / "work"
    try:
        found = {name: stage(name, base, work) for name in ORDER}
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return [_row(label, name, found) for name in ORDER if name != "prepare" and name not in BESIDE.values()]


def _row(label: str, name: str, found: dict[str, dict[str, Any]]) -> str:
    ours, hand = found[name], found.get(BESIDE.get(name, ""))
    gigabytes = [f"{one / 1e9:.2f}" if one is not None else "" for one in (ours["read"], ours["written"])]
    return (
        "| "
        + " | ".join(
            [
                label,
                name,
                f"{ours['seconds']:.0f}",
                f"{ours['cpu_seconds']:.1f}",
                f"{ours['system_seconds']:.1f}",
                f"{hand['cpu_seconds']:.1f}" if hand else "",
                f"{ours['peak_bytes'] / 1e9:.2f}",
                f"{hand['peak_bytes'] / 1e9:.2f}" if hand else "",
                *gigabytes,
            ]
        )
        + " |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", choices=[*SHAPES, []], default=[])
    parser.add_argument("--bits", type=int, choices=(4,))
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        made = [row for shape in given.shapes or SHAPES for row in rows(shape, given.bits, folder)]
    accuracy.put("size", f"{HEAD}\n" + "\n".join([*_kept(made), *made]), machine=True, page=PAGE)


def _kept(made: list[str]) -> list[str]:
    """The rows on the page of models that were not measured now."""
    block = re.search(r"<!-- size -->\n(.*?)<!-- end -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block
    now = {row.split(" | ")[0] for row in made}
    old = [line for line in block[1].splitlines() if line.startswith("| ") and not line.startswith("| model ")]
    return [line for line in old if line.split(" | ")[0] not in now]


if __name__ == "__main__":
    main()
