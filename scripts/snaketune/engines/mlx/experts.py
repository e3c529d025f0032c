"""A mixture's experts by the names that other programs have for them: a matrix each, where mlx-lm has a stack."""

from __future__ import annotations

import mlx.core as mx

STACK = ".switch_mlp."
MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def unstacked(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """The arrays with every stack of experts (experts, outputs, inputs) cut into one matrix (outputs, inputs) each."""
    found: dict[str, mx.array] = {}
    for name, value in weights.items():
        block, stacked, part = name.partition(STACK)
        if not stacked:
            found[name] = value
            continue
        layer, _, kind = part.rpartition(".")
        layer = MIXTRAL[layer] if block.endswith("block_sparse_moe") else layer
        found |= {f"{block}.experts.{number}.{layer}.{kind}": value[number] for number in range(value.shape[0])}
    return found
