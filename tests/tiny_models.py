"""Tiny models with random weights, of several architectures in Hugging Face format, and token stores to train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from snaketune import files
from snaketune.config import schema
from snaketune.config.sections import TrainConfig
from snaketune.contracts.data import ModelManifest
from snaketune.contracts.train import (
    StepMetrics,
    TrainingJob,
    TrainingOutputs,
    TrainingSummary,
    ValidationMetrics,
    VisitCounts,
)
from snaketune.tokens.chat_template import Rendered
from snaketune.tokens.token_store import write_store
from snaketune.train.metrics_log import TrainingCallback, read_metrics

VOCABULARY = 64
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCABULARY,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
TEXT = SHAPE | {
    "model_type": "gemma3_text",
    "query_pre_attn_scalar": 16,
    "sliding_window": 8,
    "sliding_window_pattern": 2,
}
CONFIGS = {
    "llama": SHAPE | {"model_type": "llama"},
    "llama-untied": SHAPE | {"model_type": "llama", "tie_word_embeddings": False},
    "qwen3": SHAPE | {"model_type": "qwen3"},
    "gemma2": SHAPE
    | {
        "model_type": "gemma2",
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 5.0,
    },
    "gemma3": TEXT,
    "gemma3-multimodal": {"model_type": "gemma3", "vocab_size": VOCABULARY, "text_config": TEXT},
}


def manifest_of(folder: files.StrPath) -> ModelManifest:
    """A manifest of a base in a folder, none of whose files is checked."""
    where = str(folder)
    return ModelManifest(base=where, revision=None, commit=None, folder=where, quantize=None, files={})


def write_model(folder: Path, name: str = "llama", seed: int = 0) -> Path:
    """A model of CONFIGS in `folder`, and its manifest, whose path is returned."""
    import mlx.core as mx
    import mlx.utils
    from mlx_lm.utils import _get_classes

    shape = CONFIGS[name]
    made, arguments = _get_classes(config=dict(shape))
    model = made(arguments.from_dict(json.loads(json.dumps(shape))))
    random = np.random.default_rng(seed)
    weights = {}
    for path, array in mlx.utils.tree_flatten(model.parameters()):
        if array.ndim < 2:
            weights[path] = array
        elif "lm_head" not in path or not shape.get("tie_word_embeddings", "gemma3" in name):
            weights[path] = mx.array(random.normal(0, 0.15, array.shape).astype(np.float32))
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    files.write_json(folder / "config.json", shape)
    manifest = folder.with_suffix(".json")
    files.write_json(manifest, manifest_of(folder))
    return manifest


def rows(count: int, seed: int = 0, shortest: int = 4, longest: int = 20) -> list[Rendered]:
    """Rows in which each next token follows from the one before, so that there is something to learn."""
    random = np.random.default_rng(seed)
    made = []
    for length in random.integers(shortest, longest + 1, count):
        start = int(random.integers(3, VOCABULARY))
        ids = [3 + (start * 7 + step * 5) % (VOCABULARY - 3) for step in range(int(length))]
        made.append(Rendered(ids, [at >= 2 for at in range(int(length))]))
    return made


def store(path: Path, made: list[Rendered], weights: list[float] | None = None) -> Path:
    write_store(path, zip(made, weights or [1.0] * len(made), strict=True))
    return path


def training_summary(**changed: Any) -> TrainingSummary:
    """The summary of a short training that beat its base."""
    summary = TrainingSummary(
        steps=30,
        planned_steps=30,
        epochs=3.0,
        rows=80,
        rows_seen=240,
        times_each_row_was_seen=VisitCounts(least=3, most=3, mean=3.0),
        num_target_tokens=1234,
        positions_per_token=1.0,
        base_validation_loss=3.0,
        best_validation_loss=0.5,
        best_step=30,
        skipped_steps=0,
        stop_reason="done",
        trainable_parameters=10,
        total_parameters=100,
        validation_rows=8,
        validation_tokens=64,
        method="lora",
        seed=1,
    )
    return msgspec.structs.replace(summary, **changed)


def train_config(**changed: object) -> TrainConfig:
    """The `train` section's defaults, small and quick."""
    quick = {
        "dropout": 0.0,
        "rank": 4,
        "alpha": 8.0,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "eval_steps": 5,
        "early_stopping_patience": None,
        "gradient_checkpointing": False,
    }
    return msgspec.convert(schema.complete({"run": "test", "train": quick | changed})["train"], TrainConfig)


class TrainingFolder:
    """A folder with a tiny model and token stores, in which `train` runs."""

    def __init__(self, folder: Path, model: str = "llama", train: int = 24, valid: int = 7) -> None:
        self.folder = folder
        self.manifest = write_model(folder / "model", model)
        self.train_store = store(folder / "train.safetensors", rows(train))
        self.valid_store = store(folder / "valid.safetensors", rows(valid, seed=1))

    @classmethod
    def reopen(cls, folder: Path) -> TrainingFolder:
        """The same folder in another process."""
        reopened = object.__new__(cls)
        reopened.folder, reopened.manifest = folder, folder / "model.json"
        reopened.train_store, reopened.valid_store = folder / "train.safetensors", folder / "valid.safetensors"
        return reopened

    def job(
        self, name: str = "out", *, num_rows: int | None = None, dtype: str = "auto", seed: int = 1, **changed: object
    ) -> TrainingJob:
        """A training whose outputs go into the folder `name`; changed: keys of the `train` section."""
        (self.folder / name).mkdir(exist_ok=True)
        return TrainingJob(
            train_tokens=str(self.train_store),
            valid_tokens=str(self.valid_store),
            model=str(self.manifest),
            config=train_config(**changed),
            dtype=dtype,
            seed=seed,
            outputs=TrainingOutputs.in_folder(self.folder / name),
            num_rows=num_rows,
        )

    def train(self, name: str = "out", *, callback: TrainingCallback | None = None, **changed: Any) -> TrainingSummary:
        """Train; changed: see `job`."""
        from snaketune.engines.mlx import train as trainer

        return trainer.train(self.job(name, **changed), callback)

    def adapter(self, name: str = "out") -> dict[str, np.ndarray]:
        from safetensors.numpy import load_file

        return load_file(self.folder / name / "adapters.safetensors")

    def metrics(self, name: str = "out") -> list[StepMetrics | ValidationMetrics]:
        return read_metrics(self.folder / name / "metrics.jsonl")

    def step_metrics(self, name: str = "out") -> list[StepMetrics]:
        return [line for line in self.metrics(name) if isinstance(line, StepMetrics)]

    def validations(self, name: str = "out") -> list[tuple[int, float | None]]:
        """(step, validation loss) of each validation."""
        return [(one.step, one.validation_loss) for one in self.metrics(name) if isinstance(one, ValidationMetrics)]
