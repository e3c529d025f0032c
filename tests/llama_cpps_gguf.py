"""llama.cpp's own package for GGUF files, which comes with its converters: what ours is held against."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from snaketune.engines.llama_cpp import convertible


def package() -> ModuleType:
    """The module `gguf` of the llama.cpp that is set up."""
    folder = str(convertible.LLAMA_CPP / "gguf-py")
    if folder not in sys.path:
        sys.path.append(folder)
    import gguf

    return gguf


def value(path: Path, key: str) -> Any:
    """One value of a file's header, a list too."""
    return package().GGUFReader(path).fields[key].contents()
