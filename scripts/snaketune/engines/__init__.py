"""Engines: what computes with a model. `interface` says what an engine offers; the functions here find one by its name.

A part of an engine is imported when it is asked for, so a process that renders or reports stays small and no engine
keeps another out. A code digest follows these functions (`ENGINE_PARTS` in runtime/code_digest.py): a module that
imports `get_exporter` from here depends on the module `export` of each engine that has one.

One engine trains, answers and fuses in a run, and `SNAKETUNE_ENGINE` names it to every process of that run. Importing
this package lets PyTorch in where that is the engine (`runtime.step.block_torch`).

CONTRIBUTING.md says how to add an engine.
"""

from __future__ import annotations

import importlib
from typing import Any, cast

from snaketune.engines.interface import (
    AdaptedModel,
    Capabilities,
    Exporter,
    GGUFModel,
    LanguageModel,
    LoadOptions,
    ProductQuantizer,
    Quantizer,
    ServedTokenizer,
    Trainer,
)
from snaketune.files import StrPath
from snaketune.runtime import step
from snaketune.runtime.code_digest import ENGINE_PARTS
from snaketune.runtime.step import no_garbage_collected, selected_engine

if selected_engine() == "torch":
    step.allow_torch()


def load_model(path: StrPath, options: LoadOptions | None = None, *, engine: str | None = None) -> AdaptedModel:
    """Load a model folder, and perhaps an adapter over it; see `interface.ModelLoader`."""
    return cast(AdaptedModel, _part(engine or selected_engine(), "load_model").load(path, options or LoadOptions()))


def load_reference_merge(
    path: StrPath, options: LoadOptions, dtype: str, *, engine: str | None = None
) -> LanguageModel:
    """Load a model with its adapter merged by independent code; see `interface.ReferenceMerger`."""
    return cast(LanguageModel, _part(engine or selected_engine(), "load_reference_merge").load(path, options, dtype))


def load_gguf(path: StrPath, options: LoadOptions) -> GGUFModel:
    """Load a GGUF file with llama.cpp, which is what Ollama runs; see `interface.ModelLoader`."""
    return cast(GGUFModel, _part("llama_cpp", "load_gguf").load(path, options))


def gguf_gpu_layers() -> int:
    """How many layers of a GGUF file are computed on a card here, in the evaluation: all (-1) or none."""
    return int(_part("llama_cpp", "gguf_gpu_layers").gpu_layers())


def get_trainer(engine: str | None = None) -> Trainer:
    """The part that trains."""
    return cast(Trainer, _part(engine or selected_engine(), "get_trainer"))


def get_exporter(engine: str | None = None) -> Exporter:
    """The part that fuses and exports adapters."""
    return cast(Exporter, _part(engine or selected_engine(), "get_exporter"))


def get_quantizer(engine: str | None = None) -> Quantizer:
    """The part that quantizes a base model."""
    return cast(Quantizer, _part(engine or selected_engine(), "get_quantizer"))


def get_product_quantizer() -> ProductQuantizer:
    """The part that quantizes the merge for MLX."""
    return cast(ProductQuantizer, _part("mlx", "get_product_quantizer"))


def load_served_tokenizer(path: StrPath) -> ServedTokenizer:
    """Load the tokenizer of a folder as mlx-lm does."""
    return cast(ServedTokenizer, _part("mlx", "load_served_tokenizer").load(path))


def get_capabilities(engine: str | None = None) -> Capabilities:
    """What the engine can do and what it computes on."""
    return cast(Capabilities, _part(engine or selected_engine(), "get_capabilities"))


def _part(engine: str, function: str) -> Any:
    with no_garbage_collected():
        return importlib.import_module(f"snaketune.engines.{engine}.{ENGINE_PARTS[function]}")
