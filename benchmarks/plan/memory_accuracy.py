"""Peak memory as forecast and as measured, for trainings of every kind; writes the table of docs/accuracy.md.

`python benchmarks/plan/memory_accuracy.py` takes some five minutes on one core. Each training runs in a process
of its own, since the peak is a process's. The models are random: what a training holds does not depend on what it
learns.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import accuracy
import made_models
from snaketune.config import schema as configuration
from snaketune.config.sections import TrainConfig, section
from snaketune.plan import architecture, resources
from snaketune.plan.plan import largest_batches
from snaketune.tokens.token_store import TokenStore

ROWS = 24
PLAIN = {
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "dropout": 0.0,
    "gradient_checkpointing": False,
    "max_tokens_per_micro_batch": 4096,
}
Q4 = {"bits": 4, "group_size": 64}

COMBINATIONS: list[tuple[str, int, dict[str, Any]]] = [
    ("6M", 128, {"batch_size": 1}),
    ("6M", 128, {}),
    ("6M", 256, {}),
    ("6M", 512, {"batch_size": 2}),
    ("6M", 128, {"gradient_checkpointing": True}),
    ("6M", 256, {"gradient_checkpointing": True}),
    ("6M", 512, {"batch_size": 2, "gradient_checkpointing": True}),
    ("6M", 128, {"dropout": 0.1}),
    ("6M", 128, {"dropout": 0.1, "gradient_checkpointing": True}),
    ("6M", 128, {"rank": 256}),
    ("6M", 128, {"rank": 128, "gradient_accumulation_steps": 3}),
    ("6M", 128, {"num_layers": 2}),
    ("6M", 128, {"method": "dora"}),
    ("6M", 128, {"method": "full"}),
    ("6M", 128, {"quantize": Q4}),
    ("32M", 128, {}),
    ("32M", 128, {"gradient_checkpointing": True}),
    ("32M", 256, {"batch_size": 2, "gradient_checkpointing": True}),
    ("32M", 128, {"quantize": Q4, "gradient_checkpointing": True}),
    ("32M", 128, {"batch_size": 2, "method": "full"}),
]


def one(folder: Path, size: str, length: int, changed: dict[str, Any]) -> tuple[int, int]:
    """Bytes of the peak as forecast and as measured."""
    quantize = changed.get("quantize")
    model = folder / (size + ("-q4" if quantize else ""))
    if not model.exists():
        made_models.write_model(model, size, quantize)
    manifest = folder / f"{model.name}.json"
    manifest.write_text(
        json.dumps(
            dict.fromkeys(("revision", "commit", "quantize")) | {"base": "demo", "folder": str(model), "files": {}}
        )
    )
    vocabulary = made_models.SIZES[size]["vocab_size"]
    train, valid = folder / f"{size}-{length}.safetensors", folder / f"{size}-valid.safetensors"
    made_models.write_rows(train, ROWS, length, vocabulary)
    made_models.write_rows(valid, 1, 16, vocabulary)
    given = PLAIN | {"max_steps": 3, "eval_steps": 1000} | {k: v for k, v in changed.items() if k != "quantize"}
    settings = configuration.complete({"run": "bench", "train": given})["train"]
    shape = architecture.read(json.loads((model / "config.json").read_text()))
    forecast = max(
        resources.forecast_memory(shape, section(TrainConfig, **given), batch, 4).total
        for batch in largest_batches(TokenStore(train), section(TrainConfig, **given), cpu=True)
    )
    done = made_models.trained(train, valid, manifest, settings)
    return forecast, done["timing"]["peak_memory_bytes"]


def table() -> str:
    """The Markdown table of all combinations."""
    lines = [
        "| model | rows x tokens | changed | forecast, MB | measured, MB | forecast / measured |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for size, length, changed in COMBINATIONS:
            forecast, measured = one(Path(scratch), size, length, changed)
            rows = changed.get("batch_size", PLAIN["batch_size"])
            said = ", ".join(
                "4-bit base" if key == "quantize" else f"{key} {json.dumps(value)}".replace('"', "")
                for key, value in changed.items()
                if key != "batch_size"
            )
            lines.append(
                f"| {size} | {rows} x {length} | {said or '-'} | {forecast / 1e6:.1f} | {measured / 1e6:.1f} "
                f"| {forecast / measured:.2f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    accuracy.put("memory_accuracy", table(), machine=True)
