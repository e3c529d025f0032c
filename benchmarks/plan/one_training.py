"""Trains as the arguments say, in a process of its own, and prints what its clock and its memory said, as JSON."""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from snaketune.runtime.step import block_torch

block_torch()

import msgspec  # noqa: E402
from snaketune.config.sections import TrainConfig  # noqa: E402
from snaketune.contracts.train import TrainingJob, TrainingOutputs  # noqa: E402
from snaketune.engines import get_trainer  # noqa: E402
from snaketune.files import read_json, read_jsonl  # noqa: E402


def main(train: str, valid: str, manifest: str, config: str, rows: str) -> None:
    """rows: how many rows of the training store to use, or "all"."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        get_trainer().train(
            TrainingJob(
                train_tokens=train,
                valid_tokens=valid,
                model=manifest,
                config=msgspec.json.decode(config, type=TrainConfig),
                dtype="float32",
                seed=1,
                outputs=TrainingOutputs.in_folder(out),
                num_rows=None if rows == "all" else int(rows),
            )
        )
        found = {"timing": read_json(out / "timing.json"), "lines": list(read_jsonl(out / "timing.jsonl"))}
        print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
