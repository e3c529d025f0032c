"""Whether a base can be trained and handed over: whether both its library and llama.cpp's converter know it.

They are asked before anything is trained: what one of them does not know could not be trained, or not be handed over.
No version is named that would know it, since both pins are the newest releases there were when they were chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from snaketune.config.schema import did_you_mean
from snaketune.engines import get_capabilities
from snaketune.engines.interface import ModelLibrary
from snaketune.engines.llama_cpp.convertible import architecture_names, check_tokenizer
from snaketune.errors import ModelError
from snaketune.files import StrPath, read_json


def check_base(folder: Path) -> None:
    """Raise ModelError for a base that could not be trained, fused or made into a GGUF file."""
    config = read_json(folder / "config.json")
    capabilities = get_capabilities()
    check_architecture(config, folder, capabilities.model_library())
    check_tokenizer(folder)
    capabilities.check_fusable(config, folder)


def check_architecture(config: Mapping[str, object], folder: StrPath, library: ModelLibrary) -> None:
    """Raise ModelError where the converter or the engine's library does not know the model of a config.json."""
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else "none"
    model_type = str(config.get("model_type"))
    trains, converts = model_type in library.model_types, architecture in architecture_names()
    if trains and converts:
        return
    converter = f"llama.cpp's converter (of llama-cpp-python {version('llama-cpp-python')})"
    unknowing = [name for name, knows in ((library.name, trains), (converter, converts)) if not knows]
    consequences = {
        library.name: "it could not be trained",
        converter: "the trained model could not be made into a GGUF file",
    }
    meant = did_you_mean(architecture, architecture_names()) if trains else ""
    raise ModelError(
        f"{' and '.join(unknowing)} {'does' if len(unknowing) == 1 else 'do'} not know the architecture {architecture} "
        f"(model_type {model_type}){meant}",
        where=str(folder),
        why=f"So {', and '.join(consequences[name] for name in unknowing)}",
        fix="Choose a base of one of the families in docs/packaging.md. A newer version may know it: `make upgrade` "
        "tries the newest ones",
    )
