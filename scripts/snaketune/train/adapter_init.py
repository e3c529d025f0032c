"""What a new adapter begins with, the same in every engine: its layers, and the numbers that are drawn for them.

A matrix is a function of the seed and of its layer's place alone, so two engines begin the same training.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from snaketune.config.schema import did_you_mean
from snaketune.errors import ConfigError


def draw_words(vocabulary: int, seed: int, virtual_ids: range) -> np.ndarray:
    """The ids of the tokens whose vectors prompt tuning begins with, as PEFT's SAMPLE_VOCAB; int64.

    vocabulary: rows of the embedding, of which those beyond the tokenizer's own tokens are nothing.
    """
    digest = hashlib.sha256(f"{seed}:virtual tokens".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return random.integers(0, min(vocabulary, virtual_ids[0]), len(virtual_ids))


def draw_lora_a(shape: tuple[int, ...], seed: int, block: int, path: str) -> np.ndarray:
    """A new matrix A: float32, uniform in +-1 / sqrt(inputs), as mlx-lm draws it.

    shape: (inputs, rank), or (experts, rank, inputs) for a stack of experts; block and path: of the layer.
    """
    digest = hashlib.sha256(f"{seed}:{block}:{path}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    bound = 1 / math.sqrt(shape[0] if len(shape) == 2 else shape[-1])
    return random.uniform(-bound, bound, shape).astype(np.float32)


def chosen_targets(known: list[str], target_modules: str | list[str]) -> list[str]:
    """The paths among `known`, those of a block's linear layers, that get an adapter; sorted.

    target_modules: "all-linear", or short names (`q_proj`) or paths; an unknown one is a ConfigError with the known
    ones.
    """
    if target_modules == "all-linear":
        return known
    chosen: set[str] = set()
    for target in target_modules:
        matches = [path for path in known if path == target or path.rsplit(".", 1)[-1] == target]
        if not matches:
            names = sorted({path.rsplit(".", 1)[-1] for path in known})
            raise ConfigError(
                f'this model has no linear layer "{target}"{did_you_mean(target, names)}',
                where="train.target_modules",
                fix=f"Choose from {', '.join(names)}, or write all-linear",
            )
        chosen.update(matches)
    return sorted(chosen)
