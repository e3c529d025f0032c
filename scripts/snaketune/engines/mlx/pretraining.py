"""The demo's base model: pre-trained from nothing on facts about numbers, in about a minute on one core."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import llama

from snaketune.demo import task
from snaketune.files import replacing
from snaketune.runtime.events import Progress, report_progress

UPDATES = 900
ROWS = 32
PEAK = 2e-3
WARMUP = 50


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
    weights = dict(_named(model))
    # transformers, the converter and mlx-lm all look for this name; the metadata is what transformers writes
    with replacing(folder / "model.safetensors") as temporary:
        staged = temporary.with_suffix(".safetensors")  # MLX adds the suffix itself where it is missing
        mx.save_safetensors(str(staged), weights, {"format": "pt"})
        staged.replace(temporary)


def _initialise(model: nn.Module, seed: int) -> None:
    """Uniform weights within 1 / sqrt(fan-in), from an explicit key."""
    matrices = [(name, value) for name, value in _named(model) if value.ndim == 2]
    drawn = []
    for key, (name, value) in zip(mx.random.split(mx.random.key(seed), len(matrices)), matrices, strict=True):
        limit = value.shape[1] ** -0.5
        drawn.append((name, mx.random.uniform(-limit, limit, value.shape, key=key)))
    model.update(tree_unflatten(drawn))


def _named(model: nn.Module) -> list[tuple[str, mx.array]]:
    return list(tree_flatten(model.parameters()))  # type: ignore[arg-type]


def _pretrain(model: nn.Module, tokenizer: Any, known: list[int], seed: int) -> None:
    """AdamW on the right-hand sides, the learning rate rising for 50 updates and falling to 5 % of its peak."""
    optimizer = optimizers.AdamW(learning_rate=PEAK)
    gradient = nn.value_and_grad(model, _loss)
    facts = task.facts(known, seed)
    for update in range(UPDATES):
        optimizer.learning_rate = PEAK * min(1.0, (update + 1) / WARMUP) * (1 - 0.95 * update / UPDATES)
        ids, weights = _batch(tokenizer, [next(facts) for _ in range(ROWS)])
        loss, gradients = gradient(model, ids, weights)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        report_progress(Progress(activity="pretraining", done=update + 1, total=UPDATES, unit="step"))
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


def _loss(model: nn.Module, ids: mx.array, weights: mx.array) -> mx.array:
    losses = nn.losses.cross_entropy(model(ids[:, :-1]), ids[:, 1:])
    return (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()
