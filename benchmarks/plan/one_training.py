"""Trains as the arguments say, in a process of its own, and prints its timing.json: the peak is a process's own."""

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from snaketune.mlx_engine import trainer  # noqa: E402


def main(train: str, valid: str, manifest: str, settings: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        trainer.train(
            train,
            valid,
            manifest,
            json.loads(settings),
            adapter=out / "adapters.safetensors",
            adapter_config=out / "adapter_config.json",
            metrics=out / "metrics.jsonl",
            summary=out / "summary.json",
            work=out / "work",
        )
        print((out / "timing.json").read_text())


if __name__ == "__main__":
    main(*sys.argv[1:])
