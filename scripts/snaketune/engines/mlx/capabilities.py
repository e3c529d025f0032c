"""What MLX's engine can do and what it computes on: the part `engines.interface.Capabilities`.

The numbers stand here, and not where they are used, so that a forecast can read them without importing MLX.

On a Linux CPU, MLX's wheel bundles the reference BLAS (6 GFLOP/s a core where OpenBLAS reaches 100). libmlx calls three
of its functions, so a library that defines them, loaded into the global namespace before MLX, takes their place. Set-up
builds one over scipy-openblas32 (setup/blas_shim.c); the system's libopenblas does as well.
"""

from __future__ import annotations

import ast
import ctypes
import ctypes.util
import functools
import importlib.util
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from snaketune.engines.interface import FourBitBase, ModelLibrary
from snaketune.errors import ConfigError, ModelError, ResourceError
from snaketune.files import StrPath
from snaketune.model.manifest import NF4, foreign_format, is_mixture
from snaketune.runtime.machine import DeviceInfo

SHIM = Path(__file__).resolve().parents[4] / "vendor" / "libblas_shim.so"
WARNING = (
    "snaketune: no fast BLAS found, so MLX uses its reference one on this CPU: training is 6 to 16 times slower. "
    "Run `make setup`, or install libopenblas."
)


@functools.cache
def preload() -> str:
    """Put a fast BLAS in front of MLX's own; returns its name, or why none was needed or found.

    Has no effect once `mlx.core` is loaded, so it runs when this package is first imported.
    """
    if sys.platform != "linux":
        return "the platform's own"
    if importlib.util.find_spec("mlx_cuda") or importlib.util.find_spec("mlx_cuda13"):
        return "not needed with CUDA"
    for name in (_bundled(), ctypes.util.find_library("openblas")):
        if name:
            try:
                ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
                return Path(name).name
            except OSError:
                continue
    print(WARNING, file=sys.stderr)
    return "MLX's reference BLAS"


def _bundled() -> str | None:
    """Path of the set-up's shim, with the OpenBLAS it forwards to already loaded; None where it is not built."""
    found = importlib.util.find_spec("scipy_openblas32")
    if not SHIM.is_file() or found is None or found.origin is None:
        return None
    library = next((Path(found.origin).parent / "lib").glob("libscipy_openblas*.so"), None)
    if library is None:
        return None
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return str(SHIM)


LOSS_SLICE_BYTES = 64 << 20
"""float32 logits that the loss computes at once."""
FLAT_CHUNK = 1 << 19
"""Weights in one vector of the optimizer: a step holds ten temporary copies of a vector, rather than of all weights."""
COMPLETION_BATCH = 32
"""Completions that are generated at once."""
ATTENTION_IN_TILES = False
"""The gradient of MLX's attention needs them whole."""
FUSABLE_MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe")
"""Mixtures of experts whose stacked weights `export.unstack_experts` can name, by config.json's model_type."""


def check_fusable(config: dict[str, Any], folder: StrPath) -> None:
    """Raise ModelError for a mixture of experts whose weights cannot be named as llama.cpp reads them.

    And for a base of bitsandbytes, whose formats mlx-lm does not read.
    """
    if is_mixture(config) and config.get("model_type") not in FUSABLE_MIXTURES:
        raise ModelError(
            f"mixtures of experts of the type {config.get('model_type')} cannot be fused",
            where=str(folder),
            why="mlx-lm holds their experts under other names than llama.cpp reads",
            fix=f"Choose one of another type ({', '.join(FUSABLE_MIXTURES)}), or a model without experts",
        )
    stored = foreign_format(config)
    if stored and (stored == NF4 or "bitsandbytes" in stored):
        raise ModelError(
            f"MLX cannot read a base that is quantized to {stored}",
            where=str(folder),
            why="It is a format of bitsandbytes, and mlx-lm would not find the weights that it looks for",
            fix=("Set engine: torch, which reads it; or name" if stored == NF4 else "Name")
            + " the base that is not quantized: model.quantize: {bits: 4} holds it in 4 bits",
        )


def keeps_quantized(mode: str, _device: str) -> bool:
    """Whether such a base stays as it is: MLX computes in all of its own modes, everywhere."""
    return mode != "nf4"


def four_bit_base(_device: str, /) -> FourBitBase:
    """MLX's own format, on any device."""
    return FourBitBase("a 4-bit base: model.quantize {bits: 4}, or one of mlx-community's", "affine")


def model_library() -> ModelLibrary:
    """mlx-lm, its model types read from its source: importing it would import MLX."""
    found = importlib.util.find_spec("mlx_lm")
    if found is None:
        raise ResourceError("mlx-lm is not installed", where="engine: mlx", fix="Run `make setup`")
    return ModelLibrary("mlx-lm", version("mlx-lm"), model_types_in(Path(str(found.origin)).parent))


def model_types_in(package: Path) -> frozenset[str]:
    """The model types that the source of an mlx-lm knows; package: the folder mlx_lm of that version."""
    types = {path.stem for path in (package / "models").glob("*.py") if "class ModelArgs" in path.read_text("utf-8")}
    for node in ast.parse((package / "utils.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "MODEL_REMAPPING":
            types |= set(ast.literal_eval(node.value))
    return frozenset(types)


def check_shardable(quantized: bool) -> None:
    """Raise ConfigError: MLX has no such thing."""
    raise ConfigError(
        "the MLX engine does not spread a base over workers",
        where="train.fsdp",
        why="Each of its processes holds the whole base" + (", here in few bits" if quantized else ""),
        fix="Set engine: torch, or quantize the base (model.quantize), or set train.fsdp: false",
    )


def describe_device() -> DeviceInfo:
    """The device that MLX computes on."""
    import mlx.core as mx

    info: dict[str, Any] = dict(mx.device_info())
    name = info.get("device_name")
    if mx.default_device() == mx.cpu:
        return DeviceInfo(device="cpu", name=name)
    if mx.metal.is_available():
        working_set = info.get("max_recommended_working_set_size")
        return DeviceInfo(device="metal", name=name, memory=info.get("memory_size"), working_set=working_set)
    return DeviceInfo(device="cuda", name=name, memory=info.get("total_memory"))
