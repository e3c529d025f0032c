"""The merge of an adapter computed a second time, by other means, to check the fused file against."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from snaketune.engines.interface import LoadOptions
from snaketune.engines.torch import language_model, lora
from snaketune.engines.torch.device import DTYPES
from snaketune.files import StrPath


def load(path: StrPath, options: LoadOptions, dtype: str) -> language_model.TorchModel:
    """Load a model folder with the adapter of `options` merged and all weights rounded to `dtype`, in float32.

    The adapter's layers are replaced in the loaded model, where `Exporter.fuse` adds tensors from files.
    layer_by_layer: the blocks stay in `dtype`, and are float32 while they compute.
    """
    loaded = language_model.load(path, options)
    merge(loaded.model, dtype, layer_by_layer=options.layer_by_layer)
    return loaded


@torch.no_grad()
def merge(model: PreTrainedModel, dtype: str, *, layer_by_layer: bool) -> None:
    """Replace adapter layers by plain ones and round every weight to a 16-bit `dtype`.

    What is rounded is float32 again; not so layer_by_layer, where a block is made float32 when it computes.
    """
    for name, layer in lora.adapter_layers(model).items():
        parent, _, last = name.rpartition(".")
        inputs, outputs = lora.linear_shape(layer.linear)
        plain = nn.Linear(inputs, outputs, bias=False, device="meta")
        plain.weight = nn.Parameter(layer.merged_weight().to(DTYPES[dtype]), requires_grad=False)
        plain.register_parameter("bias", getattr(layer.linear, "bias", None))
        setattr(model.get_submodule(parent), last, plain)
    narrow = language_model.ids_in_blocks(model) if layer_by_layer else set()
    for parameter in model.parameters():
        rounded = parameter.data.to(DTYPES[dtype])
        parameter.data = rounded if id(parameter) in narrow else rounded.float()
