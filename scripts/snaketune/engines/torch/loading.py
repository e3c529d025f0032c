"""Model and adapter folders as transformers models on the device, in the number format that suits the machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface
from transformers.utils import logging

from snaketune.engines.torch import lora, nf4, prompt_embedding
from snaketune.engines.torch.device import best_device, load_dtype
from snaketune.engines.torch.weights import dequantized, is_quantized, read_adapter, without_quantization
from snaketune.errors import ModelError, ResourceError, TrainingError
from snaketune.files import StrPath, read_json
from snaketune.model.manifest import WRAPPER_PREFIX, is_wrapped, stored_dtype, text_config

logging.set_verbosity_error()
logging.disable_progress_bar()

IN_FLOAT32 = "sdpa_in_float32"


def load(folder: StrPath, *, dtype: str = "auto", to_device: bool = True) -> PreTrainedModel:
    """Load a model in evaluation mode, without gradients; not `to_device`, it stays in the machine's memory.

    dtype `auto` is float32 on a CPU and elsewhere the model's own, for float16 another (`device.load_dtype`). A base in
    NF4 stays so on an NVIDIA card, unless float32 or the stored format are asked for. Any other quantized base is
    dequantized, since PyTorch has no kernels for it; of a model of text and pictures the text part is loaded. Raises
    ModelError when the folder cannot be loaded.
    """
    device = best_device()
    with _explaining(folder):
        config = _config(folder)
        if device.type == "cuda" and dtype not in ("float32", "stored") and nf4.is_nf4(config):
            model = _read_nf4(folder, device)
        else:
            model = _read(Path(folder), config, load_dtype(dtype, device, stored_dtype(config)))
            if to_device:
                model.to(device)  # type: ignore[arg-type]  # its signature is lost in a decorator
    _use_fastest_attention(model, device)
    model.eval()
    return model.requires_grad_(False)


def _config(folder: StrPath) -> dict[str, object]:
    described: dict[str, object] = read_json(Path(folder) / "config.json")
    return described


def _read_nf4(folder: StrPath, device: torch.device) -> PreTrainedModel:
    """A model in NF4 as bitsandbytes computes with it; its adapter and what is not quantized are 16 or 32 bits."""
    if find_spec("bitsandbytes") is None:
        raise ResourceError(
            "bitsandbytes is not installed, which computes in NF4",
            where="model.quantize",
            fix="Run `.venv/bin/pip install bitsandbytes==0.50.2`, or leave model.quantize out",
        )
    return AutoModelForCausalLM.from_pretrained(
        folder, device_map={"": device}, local_files_only=True, use_safetensors=True
    )


def _read(folder: Path, config: dict[str, object], dtype: torch.dtype | str) -> PreTrainedModel:
    if not is_wrapped(config) and not is_quantized(config):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)
    weights = {
        name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()
    }
    weights = dequantized(weights, config)
    if is_wrapped(config):
        prefix = WRAPPER_PREFIX
        weights = {name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)}
    return _from_weights(text_config(without_quantization(config)), weights, dtype)


def _from_weights(
    config: Mapping[str, object], weights: dict[str, torch.Tensor], dtype: torch.dtype | str
) -> PreTrainedModel:
    """The model of a config.json with these weights."""
    named = dict(config)
    described = AutoConfig.for_model(str(named.pop("model_type")), **named)
    own = next(iter(weights.values())).dtype if dtype == "auto" else dtype
    model = AutoModelForCausalLM.from_config(described, dtype=own)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    model.tie_weights()
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    if set(missing) - tied or unexpected:
        raise ValueError(f"weights by other names: {sorted({*missing, *unexpected} - tied)[:3]}")
    return model


@contextlib.contextmanager
def _explaining(where: StrPath) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if "out of memory" in str(error).lower():
            raise
        raise ModelError(
            f"the model cannot be loaded ({(str(error) or type(error).__name__).splitlines()[0]})",
            where=str(where),
            fix="Check that its config.json and safetensors files are whole and of an architecture that transformers "
            "knows",
        ) from error


def adapter_prefix(folder: StrPath) -> str:
    """What mlx-lm puts before the names of a model's parts that transformers' text model has without it."""
    return WRAPPER_PREFIX if is_wrapped(read_json(Path(folder) / "config.json")) else ""


def apply_adapter(model: PreTrainedModel, folder: StrPath, prefix: str = "") -> None:
    """Put an adapter over a model; prefix: what the adapter's names have before those of this model's parts.

    Raises ModelError for one that does not fit.
    """
    try:
        tensors, described = read_adapter(folder)
        if described.prompt_parameters:
            prompt_embedding.insert(model, described.prompt_parameters)
        elif described.fine_tune_type != "full":
            lora.insert_layers(model, described)
        _assign(model, {name.removeprefix(prefix): one for name, one in tensors.items()})
    except (OSError, ValueError, KeyError, AttributeError, TrainingError) as error:
        raise ModelError(
            f"the adapter does not fit its base ({(str(error) or type(error).__name__).splitlines()[0]})",
            where=str(folder),
            fix="Run snakemake again; the adapter must come from this very base",
        ) from error
    model.eval()
    model.requires_grad_(False)


@torch.no_grad()
def _assign(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> None:
    """Overwrite parameters by name; raises ValueError for a name or a shape that the model does not have."""
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        if name not in parameters:
            raise ValueError(f"{name} is not in the model")
        if parameters[name].shape != tensor.shape:
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, and {tuple(parameters[name].shape)} there")
        parameters[name].copy_(tensor)


def _use_fastest_attention(model: PreTrainedModel, device: torch.device) -> None:
    """Set how a loaded model computes attention on a device, where PyTorch's own way is not the fastest.

    On a CPU it is slower in 16 bits than in float32, its gradient four times, while the products around it are faster.
    So queries, keys and values are widened for it, and its result is narrowed.
    """
    if device.type != "cpu" or model.dtype == torch.float32 or model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(IN_FLOAT32, _attention_in_float32)
    AttentionMaskInterface.register(IN_FLOAT32, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.set_attn_implementation(IN_FLOAT32)


def _attention_in_float32(
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
