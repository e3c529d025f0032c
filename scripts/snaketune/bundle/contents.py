"""What a bundle of a run holds: its records, on request what it was made from and the products."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from snaketune.errors import ConfigError
from snaketune.files import StrPath, read_jsonl

RUN, INPUTS = "run/", "inputs/"
CONFIGURATION = f"{RUN}config.json"
ROWS = f"{RUN}data/rows.csv"
RECORDS = (
    "config.json",
    "run.json",
    "plan.json",
    "data/*.json",
    "data/tokens/*/tokens.json",
    "pilot/*.json",
    "pilot/metrics.jsonl",
    "train/selection.json",
    "train/*/*.json",
    "train/*/metrics.jsonl",
    "model/*.json",
    "model/Modelfile",
    "model/README.md",
    "evaluation/comparison.*",
    "evaluation/*/scores.json",
    "report/*",
)
WITH_ROWS = ("data/*.jsonl", "evaluation/*/*.jsonl")
PRODUCTS = ("model/*.gguf", "model/peft/*", "model/*-mlx-*/*", "train/*/adapters.safetensors")
# what the machine and the moment decide, not the settings
MEASURED = re.compile(r"run/(run\.json|.*timing\.jsonl?|pilot/(decision\.json|index\.html)|report/.*)")
NOT_HANDED_ON = re.compile(r"(^|/)(\.|model/(ollama|uploaded)\.json)|\.passed$|/events")
SPLITS = ("train", "valid", "test")


def members(folder: StrPath, *, inputs: Sequence[StrPath] | None, products: bool) -> dict[str, Path | bytes]:
    """The members of the bundle of the run in `folder`, by name.

    inputs: the files that the run was made from, by paths relative to the project; None to leave them and all rows out.
    """
    run = Path(folder)
    patterns = [*RECORDS, *(WITH_ROWS if inputs is not None else ()), *(PRODUCTS if products else ())]
    found: dict[str, Path | bytes] = {
        f"{RUN}{path.relative_to(run).as_posix()}": path
        for pattern in patterns
        for path in run.glob(pattern)
        if path.is_file() and not NOT_HANDED_ON.search(path.relative_to(run).as_posix())
    }
    found[ROWS] = "".join(_row_digests(run)).encode()
    for path in inputs or ():
        found[f"{INPUTS}{inside(path)}"] = Path(path)
    return found


def inside(path: StrPath) -> str:
    """A path relative to the project, which an archive can hold; ConfigError for another one."""
    parts = PurePosixPath(Path(path).as_posix())
    if parts.is_absolute() or ".." in parts.parts:
        raise ConfigError(
            f"{path} lies outside of the project",
            where="package.bundle",
            why="A bundle puts its inputs where the configuration looks for them, and elsewhere there is no such place",
            fix="Copy it into the project and name it there, or leave `inputs` out of package.bundle",
        )
    return parts.as_posix()


def _row_digests(run: Path) -> Iterator[str]:
    """A line of CSV for each row of each split: what tells a row from every other one, but not the row."""
    yield "split,id,sha256\n"
    for split in SPLITS:
        for row in read_jsonl(run / "data" / f"{split}.jsonl"):
            yield f"{split},{row['id']},{hashlib.sha256(msgspec.json.encode(row, order='sorted')).hexdigest()}\n"


def is_measured(name: str) -> bool:
    """Whether a member differs from run to run of the same configuration, since it holds times or the machine."""
    return bool(MEASURED.fullmatch(name))
