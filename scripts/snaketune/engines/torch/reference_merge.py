"""The merge of an adapter computed a second time, by other means, to check the fused file against."""

from __future__ import annotations

import torch
from torch import nn

from snaketune.engines.interface import LoadOptions
from snaketune.engines.torch import language_model, lora
from snaketune.engines.torch.device import DTYPES
from snaketune.files import StrPath


def load(path: StrPath, options: LoadOptions, dtype: str) -> language_model.TorchModel:
    """Load a model folder with the adapter of `options` merged and all weights rounded to `dtype`, in float32.

    The adapter's layers are replaced in the loaded model, where `Exporter.fuse` adds tensors from files.
    """
    loaded = language_model.load(path, options)
    merge(loaded.model, dtype)
    return loaded


@torch.no_grad()
def merge(model: nn.Module, dtype: str) -> None:
    """Replace adapter layers by plain ones and round every weight to a 16-bit `dtype`, kept as float32."""
    for name, layer in lora.adapter_layers(model).items():
        parent, _, last = name.rpartition(".")
        inputs, outputs = lora.linear_shape(layer.linear)
        plain = nn.Linear(inputs, outputs, bias=False, device=layer.lora_a.device)
        plain.weight = nn.Parameter(layer.merged_weight(), requires_grad=False)
        plain.register_parameter("bias", getattr(layer.linear, "bias", None))
        setattr(model.get_submodule(parent), last, plain)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(DTYPES[dtype]).float()
