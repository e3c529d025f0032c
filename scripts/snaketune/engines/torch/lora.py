"""What is trained: LoRA and DoRA layers over transformers' linear layers, the model's own weights, or a soft prompt.

Names and shapes are mlx-lm's: `lora_a` (inputs, rank), `lora_b` (rank, outputs), and for DoRA `m` (outputs). So an
adapter of one engine is an adapter of the other.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from snaketune.config.sections import TrainConfig
from snaketune.contracts.train import AdapterConfig
from snaketune.engines.torch import prompt_embedding
from snaketune.errors import ConfigError
from snaketune.train import adapter_init
from snaketune.train.checkpoints import ParameterCounts


class _LowRankSum(torch.autograd.Function):
    """x W^T + (d A) B of a frozen W, where d is x, or x after dropout, as few passes over memory as there can be.

    The gradient at x takes one matrix product and one low-rank one that adds to it in place; PyTorch's own rules would
    make a temporary for each product, scaling and sum.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        weight: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(weight.dtype)
        low_rows = rows if dropped is None else dropped.reshape(-1, x.shape[-1]).to(weight.dtype)
        a, b = a.to(weight.dtype), b.to(weight.dtype)
        low = low_rows @ a
        y = rows @ weight.T
        y.addmm_(low, b)
        ctx.save_for_backward(low_rows, low, weight, a, b)
        ctx.dtype, ctx.shape, ctx.is_dropped = x.dtype, x.shape, dropped is not None
        return y.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        low_rows, low, weight, a, b = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, weight.shape[0]).to(weight.dtype)
        of_low = gradient @ b.T
        of_a = (low_rows.T @ of_low).float() if ctx.needs_input_grad[3] else None
        of_b = (low.T @ gradient).float() if ctx.needs_input_grad[4] else None
        of_x = of_dropped = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ weight
            if not ctx.is_dropped:
                of_x.addmm_(of_low, a.T)
            of_x = of_x.view(ctx.shape).to(ctx.dtype)
        if ctx.is_dropped and ctx.needs_input_grad[1]:
            of_dropped = (of_low @ a.T).view(ctx.shape).to(ctx.dtype)
        return of_x, of_dropped, None, of_a, of_b


class LoRALinear(nn.Module):
    """A frozen linear layer with a low-rank correction: y = W x + scale B A x; not `enabled`, without it."""

    enabled = True

    def __init__(self, linear: nn.Module, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        inputs, outputs = linear_shape(linear)
        device = next(iter(linear.parameters())).device
        self.linear, self.scale, self.dropout = linear, scale, dropout
        self.lora_a = nn.Parameter(torch.zeros(inputs, rank, device=device))
        self.lora_b = nn.Parameter(torch.zeros(rank, outputs, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.enabled:
            return cast(torch.Tensor, self.linear(x))
        dropped = functional.dropout(x, self.dropout) if self.training and self.dropout else None
        if type(self.linear) is nn.Linear:
            y: torch.Tensor = cast(Any, _LowRankSum).apply(  # typed in some versions of torch only
                x, dropped, self.linear.weight, self.lora_a, self.scale * self.lora_b
            )
            return y if self.linear.bias is None else y + self.linear.bias
        y = self.linear(x)  # a quantized layer
        low = (x if dropped is None else dropped).to(self.lora_a.dtype) @ self.lora_a
        return y + (self.scale * (low @ self.lora_b)).to(y.dtype)

    def merged_weight(self) -> torch.Tensor:
        """The float32 weight of a plain layer that computes the same."""
        update = self.lora_b.float().T @ self.lora_a.float().T
        return dense_weight(self.linear) + update.mul_(self.scale)


class DoRALinear(LoRALinear):
    """The same with a trained length `m` for each row of the corrected weight; its own length takes no gradient."""

    def __init__(self, linear: nn.Module, rank: int, scale: float, dropout: float) -> None:
        super().__init__(linear, rank, scale, dropout)
        self.m = nn.Parameter(torch.linalg.vector_norm(dense_weight(linear), dim=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        if not self.enabled:
            return y
        bias = getattr(self.linear, "bias", None)
        if bias is not None:
            y = y - bias
        with torch.no_grad():
            lengths = torch.linalg.vector_norm(super().merged_weight(), dim=1)
        y = (self.m / lengths).to(y.dtype) * y
        return y if bias is None else y + bias

    def merged_weight(self) -> torch.Tensor:
        weight = super().merged_weight()
        return weight * (self.m.float() / torch.linalg.vector_norm(weight, dim=1))[:, None]


LAYERS = {"lora": LoRALinear, "dora": DoRALinear}


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, perhaps one that bitsandbytes has quantized."""
    return isinstance(module, nn.Linear)


def linear_shape(linear: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear layer; a quantized one's weight has another shape."""
    return cast(int, linear.in_features), cast(int, linear.out_features)


def dense_weight(linear: nn.Module) -> torch.Tensor:
    """The float32 weight (outputs, inputs) of a linear layer, dequantized where it is quantized."""
    weight = linear.weight
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state).float()
    return weight.detach().float()


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The model's transformer blocks."""
    return cast(nn.ModuleList, model.base_model.layers)


def add_adapter(model: PreTrainedModel, config: TrainConfig, seed: int, virtual_ids: range = range(0)) -> AdapterConfig:
    """Prepare what is trained and return the adapter_config.json that describes it.

    New matrices are drawn from `seed`, the same ones as in every engine. virtual_ids: of the tokens of prompt tuning,
    whose vectors begin as those of words.
    """
    if config.method == "prompt":
        described = AdapterConfig.of_prompt(virtual_ids)
        assert described.prompt_parameters is not None
        prompt = prompt_embedding.insert(model, described.prompt_parameters)
        words = adapter_init.draw_words(len(prompt.weight), seed, virtual_ids)
        prompt.prompt.data.copy_(prompt.weight.data[torch.from_numpy(words).to(prompt.weight.device)])
        return described
    if config.method == "full":
        described = AdapterConfig.of_layers(config, None)
        _unfreeze(model, described.num_layers)
        return described
    described = AdapterConfig.of_layers(config, resolve_target_modules(model, config.target_modules))
    for (block, path), layer in insert_layers(model, described).items():
        drawn = adapter_init.draw_lora_a(tuple(layer.lora_a.shape), seed, block, path)
        layer.lora_a.data.copy_(torch.from_numpy(drawn))
    return described


def insert_layers(model: PreTrainedModel, described: AdapterConfig) -> dict[tuple[int, str], LoRALinear]:
    """Replace the linear layers that an adapter_config.json names, in the last `num_layers` blocks.

    Returns the new layers by the number of their block and their path in it.
    """
    settings, kind = described.lora_parameters, LAYERS[described.fine_tune_type]
    inserted: dict[tuple[int, str], LoRALinear] = {}
    numbered = list(enumerate(blocks(model)))
    for number, block in numbered if described.num_layers == -1 else numbered[-described.num_layers :]:
        keys = settings.keys or [path for path, part in block.named_modules() if is_linear(part)]
        for key in keys:
            parent, _, last = key.rpartition(".")
            holder = block.get_submodule(parent)
            layer = kind(getattr(holder, last), settings.rank or 0, settings.scale or 0.0, settings.dropout or 0.0)
            setattr(holder, last, layer)
            inserted[number, key] = layer
    return inserted


def adapter_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The LoRA and DoRA layers of a model by name."""
    return {name: part for name, part in model.named_modules() if isinstance(part, LoRALinear)}


def _unfreeze(model: PreTrainedModel, num_layers: int) -> None:
    if getattr(model, "is_quantized", False):
        raise ConfigError(
            "full training needs a base that is not quantized",
            where="train.method",
            fix="Use lora or dora, or a 16-bit base",
        )
    trained: list[nn.Module] = [model] if num_layers == -1 else list(blocks(model))[-num_layers:]
    for part in trained:
        part.requires_grad_(True)


def resolve_target_modules(model: PreTrainedModel, target_modules: str | list[str]) -> list[str]:
    """The paths inside a block (`self_attn.q_proj`) of its linear layers that get an adapter, sorted.

    target_modules: "all-linear", or short names (`q_proj`) or paths; an unknown one is a ConfigError with the known
    ones.
    """
    known = sorted({path for block in blocks(model) for path, part in block.named_modules() if is_linear(part)})
    return adapter_init.chosen_targets(known, target_modules)


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Trainable and total parameters; those of a quantized layer are counted as the numbers they stand for."""
    trainable = sum(one.numel() for one in model.parameters() if one.requires_grad)
    sizes: dict[int, int] = {}
    for part in model.modules():
        for name, one in part.named_parameters(recurse=False):
            sizes[id(one)] = math.prod(linear_shape(part)) if is_linear(part) and name == "weight" else one.numel()
    return ParameterCounts(trainable, sum(sizes.values()))
