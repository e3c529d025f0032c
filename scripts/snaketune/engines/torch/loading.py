"""Model and adapter folders as transformers models on the device, in the number format that suits the machine.

Adapters are read in mlx-lm's format and in PEFT's. What mlx-lm has quantized in its affine mode is made floats again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from snaketune.contracts.train import AdapterConfig
from snaketune.engines.torch import attention, lora
from snaketune.engines.torch.device import best_device, load_dtype
from snaketune.errors import ModelError, TrainingError
from snaketune.files import StrPath, read_json
from snaketune.model.wrapped import WRAPPER_PREFIX, is_wrapped, text_config
from snaketune.train import peft_format
from snaketune.train.checkpoints import validate_safetensors

logging.set_verbosity_error()
logging.disable_progress_bar()


def load(folder: StrPath, *, dtype: str = "auto") -> PreTrainedModel:
    """Load a model in evaluation mode, without gradients.

    dtype `auto` is float32 on a CPU and the model's own elsewhere. A base that mlx-lm has quantized is dequantized,
    since PyTorch has no kernels for it; of a model of text and pictures the text part is loaded. Raises ModelError when
    the folder cannot be loaded.
    """
    device = best_device()
    with _explaining(folder):
        model = _read(Path(folder), load_dtype(dtype, device))
        model.to(device)  # type: ignore[arg-type]  # its signature is lost in a decorator
    attention.use_fastest(model)
    model.eval()
    return model.requires_grad_(False)


def _read(folder: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    config = read_json(folder / "config.json")
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


def load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, on the CPU; raises TrainingError for a broken one."""
    return load_file(validate_safetensors(path))


def read_adapter(folder: StrPath) -> tuple[dict[str, torch.Tensor], AdapterConfig]:
    """The tensors of an adapter by mlx-lm's names, and its description; from a folder of either format."""
    tensors, config = peft_format.read_adapter(folder)
    return {name: torch.tensor(one) for name, one in tensors.items()}, config


def apply_adapter(model: PreTrainedModel, folder: StrPath, prefix: str = "") -> None:
    """Put an adapter over a model; prefix: what the adapter's names have before those of this model's parts.

    Raises ModelError for one that does not fit.
    """
    try:
        tensors, described = read_adapter(folder)
        if described.fine_tune_type != "full":
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


def is_quantized(config: Mapping[str, object]) -> bool:
    """Whether a config.json is of a model that mlx-lm has quantized."""
    return "quantization" in config


def without_quantization(config: Mapping[str, object]) -> dict[str, object]:
    """The config.json of the dequantized model."""
    return {key: value for key, value in config.items() if key not in ("quantization", "quantization_config")}


def dequantized(weights: dict[str, torch.Tensor], config: Mapping[str, object]) -> dict[str, torch.Tensor]:
    """All weights by name, packed ones as floats of their scales' format; raises ModelError for another mode."""
    settings = cast(Mapping[str, object], config.get("quantization", {}))
    if settings.get("mode", "affine") != "affine":
        raise ModelError(
            f"the torch engine cannot read weights of the mode {settings['mode']}",
            where="model.base",
            why="Only mlx-lm's affine quantization can be made floats again here",
            fix="Set engine: mlx, or name the base that is not quantized",
        )
    found = {}
    for name, weight in weights.items():
        layer, _, part = name.rpartition(".")
        scales, biases = weights.get(f"{layer}.scales"), weights.get(f"{layer}.biases")
        if scales is None or part not in ("weight", "scales", "biases"):
            found[name] = weight
        elif part == "weight" and biases is not None:
            found[name] = _unpacked(weight, scales, biases, group_size(settings, layer))
    return found


def group_size(settings: Mapping[str, object], layer: str) -> int:
    """The group size of a layer; some layers may have one of their own."""
    own = settings.get(layer)
    return int(cast(int, (own if isinstance(own, dict) else settings)["group_size"]))


def _unpacked(packed: torch.Tensor, scales: torch.Tensor, biases: torch.Tensor, group_size: int) -> torch.Tensor:
    """One matrix: rows of bits, lowest first, in 32-bit words; each number is scale * q + bias of its group."""
    columns = scales.shape[1] * group_size
    bits = packed.shape[1] * 32 // columns
    words = packed.view(torch.uint8).reshape(packed.shape[0], -1)
    places = torch.arange(8, dtype=torch.uint8)
    stream = (words[:, :, None] >> places & 1).reshape(packed.shape[0], columns, bits).to(torch.int32)
    numbers = (stream << torch.arange(bits, dtype=torch.int32)).sum(-1).to(torch.float32)
    grouped = numbers.reshape(packed.shape[0], -1, group_size)
    floats = grouped * scales.float()[:, :, None] + biases.float()[:, :, None]
    return floats.reshape(packed.shape[0], columns).to(scales.dtype)
