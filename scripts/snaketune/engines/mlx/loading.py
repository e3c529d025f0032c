"""Loads a model folder as an MLX model, in the number format that suits the machine.

`Tensors` is a module's tree as one flat dictionary of names, as safetensors files hold it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import dequantize_model, load_model

from snaketune.engines.mlx import prompt_embedding
from snaketune.errors import ModelError
from snaketune.files import StrPath
from snaketune.train import peft_format
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


DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


@dataclass
class Loaded:
    """An MLX model in evaluation mode and its config.json."""

    model: nn.Module
    config: dict[str, Any]


def load(folder: StrPath, *, dtype: str = "auto", adapter: StrPath | None = None, dequantize: bool = False) -> Loaded:
    """Load a model, and an adapter (or a full fine-tune) over it.

    dtype `auto` is float32 on a CPU, where MLX's half precision goes past the BLAS, and the model's own elsewhere.
    dequantize: a quantized base becomes a plain one, whose products a BLAS can make. Raises ModelError when the folder
    cannot be loaded or the adapter does not fit.
    """
    if dtype == "auto" and mx.default_device() == mx.cpu:
        dtype = "float32"
    loaded = open_lazily(folder, dtype=dtype, adapter=adapter, dequantize=dequantize)
    with _explaining(adapter or folder):
        mx.eval(loaded.model.parameters())
    return loaded


def open_lazily(
    folder: StrPath, *, dtype: str = "auto", adapter: StrPath | None = None, dequantize: bool = False
) -> Loaded:
    """The same with its weights still on the disk: each is read when something is computed from it."""
    with _explaining(adapter or folder):
        model, config = load_model(Path(folder), lazy=True)
        if dtype != "auto":
            model.set_dtype(DTYPES[dtype])
        if dequantize:
            model = dequantize_model(model)
        if adapter is not None:
            model = apply_adapter(model, adapter)
    model.eval()
    return Loaded(model, config)


def apply_adapter(model: nn.Module, adapter: StrPath) -> nn.Module:
    """The model with an adapter over it, from a folder in mlx-lm's format or in PEFT's."""
    folder = Path(adapter)
    tuned = peft_format.prompt_parameters(folder)
    if tuned:
        prompt_embedding.insert(model, tuned)
        return model.load_weights(str(folder / "adapters.safetensors"), strict=False)
    if (folder / "adapters.safetensors").is_file() or not (folder / "adapter_model.safetensors").is_file():
        return load_adapters(model, str(folder))
    with tempfile.TemporaryDirectory() as scratch:
        converted = Path(scratch)
        read = peft_format.read_peft(folder)
        peft_format.save(read, converted / "adapters.safetensors", converted / "adapter_config.json")
        model = load_adapters(model, scratch)
        mx.eval([value for name, value in flatten(model.parameters()).items() if "lora_" in name])
    return model


@contextlib.contextmanager
def _explaining(where: StrPath) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"the model cannot be loaded ({(str(error) or type(error).__name__).splitlines()[0]})",
            where=str(where),
            fix="Check that its config.json and safetensors files are whole and of an architecture that mlx-lm knows",
        ) from error


def dequantized_weight(layer: nn.Module) -> mx.array:
    """The weight of a linear layer or an embedding: float32 if it is quantized, otherwise as it is."""
    if "scales" not in layer:
        return layer.weight
    biases = layer.get("biases")
    plain = mx.dequantize(layer.weight, layer.scales, biases, layer.group_size, layer.bits, layer.mode)
    return plain.astype(mx.float32)
