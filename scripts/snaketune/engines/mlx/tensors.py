"""Named tensors: a module's tree as one flat dictionary and back, and safetensors files of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from snaketune.train.checkpoints import validate_safetensors

Tensors = dict[str, mx.array]


def flatten(tree: Any) -> Tensors:
    """The arrays of a tree by their dotted paths."""
    return dict(tree_flatten(tree))


def unflatten(tensors: Tensors) -> Any:
    """The tree with these arrays at these paths."""
    return tree_unflatten(list(tensors.items()))


def load_safetensors(path: Path) -> Tensors:
    """The tensors of a safetensors file, read lazily; raises TrainingError for a broken one."""
    loaded = mx.load(str(validate_safetensors(path)))
    assert isinstance(loaded, dict)
    return loaded


def save_safetensors(path: Path, tensors: Tensors) -> None:
    """`mx.save_safetensors` under any file name, the tensors in the order of their names."""
    with open(path, "wb") as out:
        mx.save_safetensors(out, dict(sorted(tensors.items())))
