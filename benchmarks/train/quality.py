"""Validation loss after the same number of updates over the same rows: `python quality.py SIDE WORK SEED` prints it.

cpu_seconds, which snaketune's sides print too, are those of an update and its share of the last validation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from snaketune import files  # noqa: E402
from snaketune.config.sections import TrainConfig, section  # noqa: E402
from snaketune.contracts.train import TrainingJob, TrainingOutputs  # noqa: E402
from snaketune.engines import get_trainer  # noqa: E402
from snaketune.engines.mlx import loading, lora, pretraining  # noqa: E402
from snaketune.engines.mlx.loss import ChunkedCrossEntropy  # noqa: E402
from snaketune.tokens.chat_template import Renderer  # noqa: E402
from snaketune.tokens.token_store import TokenStore, write_store  # noqa: E402
from snaketune.train.batches import MicroBatching, collate  # noqa: E402

STEPS, BATCH, RATE = 150, 16, 1e-3


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
    files.write_json(
        work / "demo.json",
        {"base": "demo", "revision": None, "commit": None, "quantize": None, "folder": str(work / "demo"), "files": {}},
    )


def _turns(prompt: str, response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def train_config() -> TrainConfig:
    changed = {
        "rank": 8,
        "alpha": 16.0,
        "dropout": 0.0,
        "batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "max_steps": STEPS,
        "learning_rate": RATE,
        "lr_scheduler": "constant",
        "warmup_steps": 0,
        "max_grad_norm": None,
        "optimizer": "adam",
        "eval_steps": STEPS,
        "early_stopping_patience": None,
    }
    return section(TrainConfig, **changed)


def ours(work: Path, seed: int, engine: str = "mlx", dtype: str = "float32") -> dict[str, float]:
    out = work / f"{engine}-{dtype}-{seed}"
    out.mkdir(exist_ok=True)
    job = TrainingJob(
        train_tokens=str(work / "train.safetensors"),
        valid_tokens=str(work / "valid.safetensors"),
        model=str(work / "demo.json"),
        config=train_config(),
        dtype=dtype,
        seed=seed,
        outputs=TrainingOutputs.in_folder(out),
    )
    loss = get_trainer(engine).train(job).best_validation_loss
    (first, *_, last) = files.read_jsonl(out / "timing.jsonl")
    spent = (last["cpu_seconds"] - first["cpu_seconds"]) / (last["step"] - first["step"])
    return {"validation_loss": loss, "cpu_seconds": spent}


def mlx_lm(work: Path, seed: int) -> dict[str, float]:
    import mlx.optimizers
    import numpy as np
    from mlx_lm.tuner.datasets import CacheDataset
    from mlx_lm.tuner.trainer import TrainingArgs, train
    from sides import Rows

    model = loading.load(work / "demo", dtype="float32").model
    lora.add_adapter(model, train_config(), seed)
    store = TokenStore(work / "train.safetensors")
    rows = [(store.row(n)[0].tolist(), int(np.argmax(store.row(n)[1]))) for n in range(len(store))]
    np.random.seed(seed)
    options = TrainingArgs(
        batch_size=BATCH,
        iters=STEPS,
        steps_per_report=STEPS,
        steps_per_save=10**9,
        max_seq_length=512,
        adapter_file=str(work / "mlx_lm.safetensors"),
    )
    train(model, mlx.optimizers.Adam(RATE, bias_correction=True), CacheDataset(Rows(rows)), args=options)
    model.eval()
    valid, loss = TokenStore(work / "valid.safetensors"), ChunkedCrossEntropy(model)
    total = sum(
        float(loss.value(collate(valid, np.array([row]), MicroBatching(1, 10**6)))) for row in range(len(valid))
    )
    return {"validation_loss": total / int(valid.num_target_tokens.sum())}


SIDES = {
    "mlx_lm": mlx_lm,
    "snaketune": ours,
    "torch": lambda work, seed: ours(work, seed, "torch"),
    "torch_bfloat16": lambda work, seed: ours(work, seed, "torch", "bfloat16"),
}

if __name__ == "__main__":
    side, work, seed = sys.argv[1:4]
    prepare(Path(work))
    print(json.dumps(SIDES[side](Path(work), int(seed))))
