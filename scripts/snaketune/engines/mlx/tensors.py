"""Named arrays: a module's tree as one flat dictionary and back, and safetensors files of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from snaketune.train.checkpoints import checked

Weights = dict[str, mx.array]


def flat(tree: Any) -> Weights:
    """The arrays of a tree by their dotted paths."""
    return dict(tree_flatten(tree))


def nested(weights: Weights) -> Any:
    """The tree of which these are the paths and arrays."""
    return tree_unflatten(list(weights.items()))


def read(path: Path) -> Weights:
    """The arrays of a safetensors file, not yet read; raises TrainingError for a broken one."""
    loaded = mx.load(str(checked(path)))
    assert isinstance(loaded, dict)
    return loaded


def write(path: Path, weights: Weights) -> None:
    """`mx.save_safetensors` under any file name, the arrays in the order of their names."""
    with open(path, "wb") as out:
        mx.save_safetensors(out, dict(sorted(weights.items())))
