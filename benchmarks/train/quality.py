"""Validation loss after the same number of updates over the same rows: `python quality.py SIDE WORK SEED` prints it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from snaketune import files  # noqa: E402
from snaketune.config import schema  # noqa: E402
from snaketune.engines.mlx import loading, lora, pretraining  # noqa: E402
from snaketune.engines.mlx import loss as losses  # noqa: E402
from snaketune.engines.mlx import train as trainer  # noqa: E402
from snaketune.tokens.chat_template import Renderer  # noqa: E402
from snaketune.tokens.token_store import TokenStore, write_store  # noqa: E402
from snaketune.train.batches import Cutting, gather  # noqa: E402

UPDATES, BATCH, RATE = 150, 16, 1e-3


def prepare(work: Path) -> None:
    """The demo's base model and its rows as token stores."""
    if (work / "valid.safetensors").is_file():
        return
    pretraining.build_demo(work / "demo", seed=1)
    renderer = Renderer(work / "demo")
    for split in ("train", "valid"):
        rows = files.read_jsonl(ROOT / "data" / "demo" / f"{split}.jsonl")
        turns = [
            ({"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["response"]}) for r in rows
        ]
        write_store(work / f"{split}.safetensors", ((renderer.conversation(list(one)), 1.0) for one in turns))
    files.write_json(work / "demo.json", {"folder": str(work / "demo"), "files": {}})


def _turns(prompt: str, response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def settings(seed: int) -> dict:
    return schema.complete({"run": "bench"})["train"] | {
        "rank": 8,
        "alpha": 16.0,
        "dropout": 0.0,
        "batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "max_steps": UPDATES,
        "learning_rate": RATE,
        "lr_scheduler": "constant",
        "warmup_steps": 0,
        "max_grad_norm": None,
        "optimizer": "adam",
        "eval_steps": UPDATES,
        "early_stopping_patience": None,
        "dtype": "float32",
        "seed": seed,
    }


def ours(work: Path, seed: int) -> float:
    out = work / f"ours-{seed}"
    out.mkdir(exist_ok=True)
    outputs = {name: out / name for name in ("adapter", "adapter_config", "metrics", "summary", "work")}
    stores = work / "train.safetensors", work / "valid.safetensors", work / "demo.json"
    report = trainer.train(*stores, settings(seed), **outputs)
    return report["best_validation_loss"]


def mlx_lm(work: Path, seed: int) -> float:
    import mlx.optimizers
    import numpy as np
    from mlx_lm.tuner.datasets import CacheDataset
    from mlx_lm.tuner.trainer import TrainingArgs, train
    from sides import Rows

    model = loading.load(work / "demo", dtype="float32").model
    lora.attach(model, settings(seed), seed)
    store = TokenStore(work / "train.safetensors")
    rows = [(store.row(n)[0].tolist(), int(np.argmax(store.row(n)[1]))) for n in range(len(store))]
    np.random.seed(seed)
    options = TrainingArgs(
        batch_size=BATCH,
        iters=UPDATES,
        steps_per_report=UPDATES,
        steps_per_save=10**9,
        max_seq_length=512,
        adapter_file=str(work / "mlx_lm.safetensors"),
    )
    train(model, mlx.optimizers.Adam(RATE, bias_correction=True), CacheDataset(Rows(rows)), args=options)
    model.eval()
    valid, loss = TokenStore(work / "valid.safetensors"), losses.Loss(model)
    total = sum(float(loss.value(gather(valid, np.array([row]), Cutting(1, 10**6)))) for row in range(len(valid)))
    return total / int(valid.targets.sum())


if __name__ == "__main__":
    side, work, seed = sys.argv[1:4]
    prepare(Path(work))
    print(json.dumps({"validation_loss": {"snaketune": ours, "mlx_lm": mlx_lm}[side](Path(work), int(seed))}))
