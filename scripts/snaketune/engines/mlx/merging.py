"""Adds an adapter to its base, tensor by tensor in float32.

Nothing is computed before it is needed, and what was taken is forgotten: memory holds one tensor, not the model. A
quantized base is dequantized and never quantized again here: requantizing would round small updates away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import dequantize_model, load_model

from snaketune.engines.mlx import loading, prompt_embedding
from snaketune.engines.sixteen_bit import SAMPLED_ROWS, MergedNumbers, Sample
from snaketune.errors import ModelError
from snaketune.files import StrPath
from snaketune.train import peft_format

EXPERT_STACK = ".switch_mlp."
MIXTRAL_NAMES = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
SIXTEEN_BIT = {"float16": mx.float16, "bfloat16": mx.bfloat16}
KEPT_BYTES = 512 << 20  # of freed memory that MLX keeps, so that the next tensor is not given new pages by the system


@dataclass
class Merged:
    """The tensors of a merged model by name, not yet computed.

    dtype: the 16-bit format that most of the base has (float16 for one in float32). tensors: float32 where they were
    changed or dequantized, else as they are in the base. before: what the adapter's matrices were without it.
    config: what config.json must say otherwise than the base's.
    """

    dtype: str
    tensors: dict[str, mx.array]
    before: dict[str, mx.array]
    config: dict[str, object] = field(default_factory=dict)

    def take(self, name: str) -> tuple[mx.array, Sample]:
        """Compute a tensor and forget it here; the sample is some rows of it, with and without the adapter."""
        value, before = self.tensors.pop(name), self.before.pop(name, None)
        rows = slice(None, None, max(1, value.shape[0] // SAMPLED_ROWS))
        sampled = value[rows].astype(mx.float32)
        unchanged = None if before is None else before[rows].astype(mx.float32)
        mx.eval(value, sampled, *([] if unchanged is None else [unchanged]))
        return value, Sample(np.array(sampled), None if unchanged is None else np.array(unchanged))

    def numbers(self, name: str, dtype: str) -> MergedNumbers:
        """The same for writing in a 16-bit format: what has it already is given as it is, the rest in float32."""
        value, sample = self.take(name)
        kept = value.dtype == SIXTEEN_BIT[dtype]
        flat = value.reshape(-1)
        return MergedNumbers(np.array(flat.view(mx.uint16) if kept else flat.astype(mx.float32), copy=False), sample)


def merge(base: StrPath, adapter: StrPath, drop_prefix: str = "") -> Merged:
    """Open the base folder with the adapter folder added; drop_prefix: is left out of the tensors' names.

    Raises ModelError for a base that cannot be loaded and for an adapter that does not fit.
    """
    mx.set_cache_limit(KEPT_BYTES)
    model, own = _open(base)
    plain = loading.flatten(model.parameters())
    try:
        model.set_dtype(mx.float32)
        vectors = loading.load_safetensors(Path(adapter) / "adapters.safetensors")
        tuned = peft_format.prompt_parameters(adapter)
        model = model if tuned else load_adapters(model, str(adapter))
        changed = set(vectors)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the adapter does not fit its base ({str(error).splitlines()[0]})",
            where=str(adapter),
            fix="Run snakemake again; the adapter must come from this very base",
        ) from error
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "fuse")}
    changed |= {f"{name}.weight" for name in adapted}
    before = {f"{name}.weight": _inner_weight(module) for name, module in adapted.items()}
    model.update_modules(tree_unflatten([(name, module.fuse(dequantize=True)) for name, module in adapted.items()]))
    model = dequantize_model(model)
    whole = {
        name: value if name in changed or plain[name].dtype == mx.uint32 else plain[name]
        for name, value in loading.flatten(model.parameters()).items()
    }
    described: dict[str, object] = {}
    if tuned:
        whole, described = prompt_embedding.merged_tensors(whole, vectors, tuned)
    tensors = {
        name.removeprefix(drop_prefix): in_hub_layout(name, value) for name, value in unstack_experts(whole).items()
    }
    return Merged(own, tensors, {name.removeprefix(drop_prefix): one for name, one in before.items()}, described)


def _inner_weight(module: nn.Module) -> mx.array:
    inner: nn.Module = module["linear"] if "linear" in module else module["embedding"]
    return loading.dequantized_weight(inner)


def _open(base: StrPath) -> tuple[nn.Module, str]:
    """The base with weights still on disk, and the 16-bit format that suits it."""
    try:
        model, _ = load_model(Path(base), lazy=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"the base cannot be loaded ({str(error).splitlines()[0]})", where=str(base), fix="Fetch it again"
        ) from error
    sizes: dict[Any, int] = {}
    for value in loading.flatten(model.parameters()).values():
        sizes[value.dtype] = sizes.get(value.dtype, 0) + value.size
    bfloat = sizes.get(mx.bfloat16, 0) > sizes.get(mx.float16, 0)
    return model, "bfloat16" if bfloat else "float16"


def in_hub_layout(name: str, value: mx.array) -> mx.array:
    """Turn a convolution over single channels (channels, width, 1), as mlx-lm holds it, into (channels, 1, width)."""
    is_convolution = value.ndim == 3 and value.shape[-1] == 1 and name.endswith((".conv.weight", ".conv1d.weight"))
    return value.moveaxis(2, 1) if is_convolution else value


def unstack_experts(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Cut every stack of experts (experts, outputs, inputs) into one matrix (outputs, inputs) for each expert.

    Other programs have a name for each expert, where mlx-lm has a stack.
    """
    found: dict[str, mx.array] = {}
    for name, value in weights.items():
        block, stacked, part = name.partition(EXPERT_STACK)
        if not stacked:
            found[name] = value
            continue
        layer, _, kind = part.rpartition(".")
        layer = MIXTRAL_NAMES[layer] if block.endswith("block_sparse_moe") else layer
        found |= {f"{block}.experts.{number}.{layer}.{kind}": value[number] for number in range(value.shape[0])}
    return found
