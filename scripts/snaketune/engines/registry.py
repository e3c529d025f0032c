"""Finds an engine's parts by the engine's name and imports them only when they are asked for.

Importing this module imports no engine, so a process that renders or reports stays small and no engine keeps another
out. A code digest follows these functions (`ENGINE_PARTS` in runtime/code_digest.py): a module that imports
`get_exporter` depends on the module `export` of each engine that has one.
"""

from __future__ import annotations

import importlib
from typing import Any, cast

from snaketune.engines.interface import AdaptedModel, Device, Exporter, GGUFModel, LoadOptions
from snaketune.files import StrPath
from snaketune.runtime.code_digest import ENGINE_PARTS

DEFAULT_ENGINE = "mlx"
"""The engine that trains where no other is named."""


def load_model(path: StrPath, options: LoadOptions | None = None, *, engine: str = DEFAULT_ENGINE) -> AdaptedModel:
    """Load a model folder, and perhaps an adapter over it; see `ModelLoader.load`."""
    return cast(AdaptedModel, _part(engine, "load_model").load(path, options or LoadOptions()))


def load_gguf(path: StrPath, options: LoadOptions) -> GGUFModel:
    """Load a GGUF file with llama.cpp, which is what Ollama runs; see `ModelLoader.load`."""
    return cast(GGUFModel, _part("llama_cpp", "load_gguf").load(path, options))


def get_exporter(engine: str = DEFAULT_ENGINE) -> Exporter:
    """The part that fuses, exports and quantizes."""
    return cast(Exporter, _part(engine, "get_exporter"))


def get_device(engine: str = DEFAULT_ENGINE) -> Device:
    """The part that says what the engine computes on."""
    return cast(Device, _part(engine, "get_device"))


def _part(engine: str, function: str) -> Any:
    return importlib.import_module(f"snaketune.engines.{engine}.{ENGINE_PARTS[function]}")
