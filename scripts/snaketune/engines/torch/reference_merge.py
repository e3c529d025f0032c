"""The merge of an adapter computed a second time, by other means, to check the fused file against."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from snaketune.engines.interface import LoadOptions
from snaketune.engines.torch import language_model, lora
from snaketune.engines.torch.device import DTYPES
from snaketune.files import StrPath


def load(path: StrPath, options: LoadOptions, dtype: str) -> language_model.TorchModel:
    """Load a model folder with the adapter of `options` merged and all weights rounded to `dtype`, in float32.

    It is merged in the loaded model, where `Exporter.fuse` adds tensors from files.
    layer_by_layer: each block when it computes.
    """
    loaded = language_model.load(path, options)
    merge(loaded.model, dtype, layer_by_layer=options.layer_by_layer)
    return loaded


def merge(model: PreTrainedModel, dtype: str, *, layer_by_layer: bool) -> None:
    """Add the adapter to the weights that it corrects, and round every weight to a 16-bit `dtype`, kept as float32.

    layer_by_layer: a block is read from the file, made float32, merged, and dropped again.
    """
    later = language_model.ids_in_blocks(model) if layer_by_layer else set()
    if layer_by_layer:
        for block in lora.blocks(model):
            block.register_forward_pre_hook(partial(_merge_block, dtype))
    else:
        _add_adapter(model)
    for parameter in model.parameters():
        if id(parameter) not in later:
            _round(parameter, dtype)


def _merge_block(dtype: str, block: nn.Module, *_: object) -> None:
    """Merge a block that was just made float32; what it held before is put back after it has computed."""
    _add_adapter(block)
    for parameter, stored in language_model.stored_weights(block).items():
        if parameter.data_ptr() == stored.data_ptr():  # it was float32 before, and is merged again in the next pass
            parameter.data = parameter.data.clone()
        _round(parameter, dtype)


@torch.no_grad()
def _add_adapter(module: nn.Module) -> None:
    for layer in lora.adapter_layers(module).values():
        layer.linear.weight.data = layer.merged_weight()
        layer.enabled = False


def _round(parameter: nn.Parameter, dtype: str) -> None:
    parameter.data.copy_(parameter.data.to(DTYPES[dtype]))  # in place: each block of a large model is rounded anew
