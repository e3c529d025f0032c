"""The fused folder: the model as everything after the training sees it, and the manifest that names its bytes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snaketune import files
from snaketune.engines import get_exporter
from snaketune.files import StrPath
from snaketune.model.manifest import read_as
from snaketune.package import gemma3_text
from snaketune.package.tokenizer_files import write_model_files
from snaketune.tokens.chat_template import Renderer


def make(*, model: StrPath, adapter: StrPath, config: dict[str, Any], folder: StrPath, manifest: StrPath) -> None:
    """Merge `adapter` (its adapters.safetensors) into the base of the manifest `model`.

    config: {"model": {"chat_template", "dtype"}}. Writes the folder whole or not at all, then the manifest: the base's
    {"base", "revision"}, "folder", "files" with bytes and sha256, "dtype", "parameters", "template" (the name of
    the configuration or null) and "stop_ids".
    """
    base = files.read_json(model)
    settings = read_as(base, config["model"])
    renderer = Renderer(base["folder"], settings.get("chat_template"))
    target = Path(folder)
    with writing_folder(target) as temporary:
        stated = files.read_json(Path(base["folder"]) / "config.json")
        written = get_exporter().fuse(
            base["folder"],
            Path(adapter).parent,
            temporary,
            dtype=settings.get("dtype", "auto"),
            drop_prefix=gemma3_text.PREFIX if gemma3_text.is_wrapped(stated) else "",
        )
        names = written.files + write_model_files(
            base["folder"],
            temporary,
            config=gemma3_text.text_config(stated),
            dtype=written.dtype,
            template=renderer.template,
            stop_ids=renderer.stop_ids,
        )
    facts = {
        "base": base["base"],
        "revision": base.get("revision"),
        "folder": str(folder),
        "dtype": written.dtype,
        "parameters": written.parameters,
        "template": settings.get("chat_template"),
        "stop_ids": sorted(renderer.stop_ids),
        "files": {name: _facts(target / name) for name in sorted(names)},
    }
    files.write_json(manifest, facts)


@contextlib.contextmanager
def writing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; on success it takes the target's place, on failure it is removed."""
    with files.scratch(target) as temporary:
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
