"""Trains an adapter: from a job to its files and summary; the loop itself is `trainer.Trainer`.

Several worker processes each run a part of it (`train_worker`); where there is one, its part is the whole.
`build_demo` makes the demo's base model from nothing, on facts about numbers, in about a minute on one core.
"""

from __future__ import annotations

import contextlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import msgspec
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import llama

from snaketune import files
from snaketune.config.sections import RESULT_NEUTRAL_KEYS
from snaketune.contracts.train import TrainingJob, TrainingSummary
from snaketune.demo import task
from snaketune.engines.mlx import launcher, loading, lora, memory
from snaketune.engines.mlx.process_group import ProcessGroup
from snaketune.engines.mlx.trainer import Trainer
from snaketune.errors import TrainingError
from snaketune.files import replacing
from snaketune.runtime import locks
from snaketune.runtime.code_digest import code_digest
from snaketune.train.checkpoints import fingerprint
from snaketune.train.metrics_log import TrainingCallback
from snaketune.train.tracking import NullTracker, keep_awake, notify_on_exit, open_tracker

UPDATES = 900
ROWS = 32
PEAK = 2e-3
WARMUP = 50


def train(job: TrainingJob, callback: TrainingCallback | None = None) -> TrainingSummary:
    """Run a training, on as many processes as `job.config.workers` says; writes `job.outputs`.

    Raises TrainingError, ConfigError or ResourceError with what to do; a later call resumes from the last checkpoint.
    """
    folder = Path(job.outputs.summary).parent
    callback = callback or TrainingCallback()
    with notify_on_exit(job.config.notify.command, str(folder)), keep_awake():
        if job.config.workers > 1:
            launcher.train(job, callback)
        else:
            train_worker(job, ProcessGroup(), callback)
    return files.read_json(job.outputs.summary, TrainingSummary)


def train_worker(job: TrainingJob, group: ProcessGroup, callback: TrainingCallback | None = None) -> None:
    """Run one process's part of a training; the main process writes the files."""
    checkpoints, folder = Path(job.outputs.checkpoints), Path(job.outputs.summary).parent
    training_id = training_fingerprint(job)
    assert_same_inputs(group, training_id)
    lock = locks.hold_lock(checkpoints / "lock", f"training in {checkpoints}")
    with lock if group.is_main else contextlib.nullcontext():
        tracker = open_tracker(folder, training_id, job) if group.is_main else NullTracker()
        trainer = Trainer(
            job, checkpoints / training_id, group, tracker=tracker, callback=callback or TrainingCallback()
        )
        with memory.explain_out_of_memory(job.config, trainer.max_row_length):
            summary = trainer.train()
        if group.is_main:
            _write_outputs(job, trainer, summary)


def training_fingerprint(job: TrainingJob) -> str:
    """A name for everything that the result of a training depends on; its checkpoints are found by it."""
    settings = msgspec.to_builtins(job.config)
    for key in RESULT_NEUTRAL_KEYS:
        del settings[key]
    return fingerprint(
        settings | {"dtype": job.dtype, "seed": job.seed},
        [job.train_tokens, job.valid_tokens, job.model],
        code=code_digest(__file__),
        versions=[version("mlx"), version("mlx-lm")],
        rows=job.num_rows,
    )


def _write_outputs(job: TrainingJob, trainer: Trainer, summary: TrainingSummary) -> None:
    """Write the best adapter, the logs and, last, the summary."""
    outputs, folder = job.outputs, Path(job.outputs.summary).parent
    best = loading.load_safetensors(trainer.best_adapter_path())
    lora.save_adapter(best, trainer.adapter_config, Path(outputs.adapter), Path(outputs.adapter_config))
    files.copy(trainer.logger.metrics.path, outputs.metrics)
    files.copy(trainer.logger.timing.path, folder / "timing.jsonl")
    files.write_json(folder / "timing.json", trainer.logger.training_timing())
    files.write_json(outputs.summary, summary)
    trainer.checkpoints.prune_other_trainings()


def assert_same_inputs(group: ProcessGroup, training_id: str) -> None:
    """Raise TrainingError in a worker that would train something else than the main process."""
    if group.broadcast_object(training_id, str) != training_id:
        raise TrainingError(
            f"worker {group.rank} has other rows, another base, other code or other versions than worker 0",
            where="train.hosts",
            why="Their gradients would be of different trainings",
            fix="Keep the project, its .venv and its models in folders that all hosts share",
        )


def build_demo(folder: str | Path, seed: int) -> None:
    """Write the demo's base model into `folder` in Hugging Face format. The same seed gives the same bytes."""
    folder = Path(folder)
    known = task.numbers(seed)
    known_numbers = sorted(known["train"] + known["valid"])
    tokenizer = task.write_tokenizer(folder, known_numbers, seed)
    config = task.write_config(folder)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    _initialise(model, seed)
    _pretrain(model, tokenizer, known_numbers, seed)
    weights = dict(_named_weights(model))
    # transformers, the converter and mlx-lm all look for this name; the metadata is what transformers writes
    with replacing(folder / "model.safetensors") as temporary:
        staged = temporary.with_suffix(".safetensors")  # MLX adds the suffix itself where it is missing
        mx.save_safetensors(str(staged), weights, {"format": "pt"})
        staged.replace(temporary)


def _initialise(model: nn.Module, seed: int) -> None:
    """Uniform weights within 1 / sqrt(fan-in), from an explicit key."""
    matrices = [(name, value) for name, value in _named_weights(model) if value.ndim == 2]
    drawn = []
    for key, (name, value) in zip(mx.random.split(mx.random.key(seed), len(matrices)), matrices, strict=True):
        limit = value.shape[1] ** -0.5
        drawn.append((name, mx.random.uniform(-limit, limit, value.shape, key=key)))
    model.update(tree_unflatten(drawn))


def _named_weights(model: nn.Module) -> list[tuple[str, mx.array]]:
    return list(tree_flatten(model.parameters()))  # type: ignore[arg-type]


def _pretrain(model: nn.Module, tokenizer: Any, known: list[int], seed: int) -> None:
    """AdamW on the right-hand sides, the learning rate rising for 50 updates and falling to 5 % of its peak."""
    optimizer = optimizers.AdamW(learning_rate=PEAK)
    gradient = nn.value_and_grad(model, _pretraining_loss)
    facts = task.facts(known, seed)
    for update in range(UPDATES):
        optimizer.learning_rate = PEAK * min(1.0, (update + 1) / WARMUP) * (1 - 0.95 * update / UPDATES)
        ids, weights = _batch(tokenizer, [next(facts) for _ in range(ROWS)])
        loss, gradients = gradient(model, ids, weights)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        if (update + 1) % 100 == 0:
            print(f"demo base: update {update + 1} of {UPDATES}, loss {loss.item():.3f}", file=sys.stderr)


def _batch(tokenizer: Any, pairs: list[tuple[str, str]]) -> tuple[mx.array, mx.array]:
    """Ids (rows x longest, int32) and target weights (the same shape, 1 on the right-hand side and the end)."""
    begin, end = (task.SPECIAL.index(token) for token in ("<s>", "</s>"))
    lefts = [[begin, *encoding.ids] for encoding in tokenizer.encode_batch([left for left, _ in pairs])]
    rights = [[*encoding.ids, end] for encoding in tokenizer.encode_batch([right for _, right in pairs])]
    ids = np.zeros((len(pairs), max(len(a) + len(b) for a, b in zip(lefts, rights, strict=True))), np.int32)
    weights = np.zeros(ids.shape, np.float32)
    for line, (left, right) in enumerate(zip(lefts, rights, strict=True)):
        ids[line, : len(left) + len(right)] = left + right
        weights[line, len(left) : len(left) + len(right)] = 1
    return mx.array(ids), mx.array(weights)


def _pretraining_loss(model: nn.Module, ids: mx.array, weights: mx.array) -> mx.array:
    losses = nn.losses.cross_entropy(model(ids[:, :-1]), ids[:, 1:])
    return (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()
