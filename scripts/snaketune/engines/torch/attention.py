"""Attention of a 16-bit model on a CPU, computed in float32.

PyTorch's attention on a CPU is slower in 16 bits than in float32, its gradient four times, while the products around it
are faster. So queries, keys and values are widened for it, and its result is narrowed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

NAME = "sdpa_in_float32"


def use_fastest(model: PreTrainedModel) -> None:
    """Set how a loaded model computes attention, where PyTorch's own way is not the fastest."""
    if model.device.type != "cpu" or model.dtype == torch.float32 or model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, attention_in_float32)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.set_attn_implementation(NAME)


def attention_in_float32(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The function that transformers calls in each layer; the shapes are those of its `sdpa_attention_forward`."""
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    wide = (query.float(), key.float(), value.float())
    output, _ = sdpa_attention_forward(module, *wide, attention_mask, **options)
    return output.to(query.dtype), None
