"""The variants of a model that are evaluated, and how each is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from snaketune.config.products import MLX
from snaketune.contracts.data import ReadAs
from snaketune.engines import load_gguf, load_model
from snaketune.engines.interface import LanguageModel, LoadOptions
from snaketune.errors import EvaluationError
from snaketune.evaluate.step_config import UNTRAINED
from snaketune.files import StrPath, read_json, sha256


@dataclass(frozen=True)
class ModelVariant:
    """A variant's name and the files that it consists of.

    name: base, prompted, adapter, pilot, fused, previous, gguf-<type> or mlx-<type>; model and fused: manifests of
    model folders, fused that of a quantized one too; adapter: the adapter's weights, with adapter_config.json in the
    same folder. `previous` is another run's fused model.
    """

    name: str
    model: StrPath
    adapter: StrPath | None = None
    fused: StrPath | None = None
    gguf: StrPath | None = None

    def __post_init__(self) -> None:
        needed = {"adapter": "adapter", "pilot": "adapter", "fused": "fused", "previous": "fused"}.get(self.name)
        needed = "gguf" if self.name.startswith("gguf") else "fused" if self.name.startswith(MLX) else needed
        if needed and getattr(self, needed) is None:
            raise EvaluationError(f"the model {self.name} needs a file: {needed}", where=f"evaluation/{self.name}")

    @property
    def folder(self) -> Path:
        """The model folder whose tokenizer, chat template and context length it is evaluated with.

        All variants of a run share those of its base, so that they see the same ids; another run's model has its own.
        """
        return _folder(self.fused if self.name == "previous" and self.fused else self.model)

    def read_as(self, chosen: ReadAs) -> ReadAs:
        """How its rows are rendered: as the experiment was trained, without virtual tokens where nothing was trained.

        Another run's model is rendered by what is in its own folder.
        """
        if self.name == "previous":
            return ReadAs(chat_template=None, dtype=chosen.dtype)
        return msgspec.structs.replace(chosen, num_virtual_tokens=0) if self.name in UNTRAINED else chosen

    def fingerprint(self) -> list[Any]:
        """What distinguishes this variant from another one of its name.

        A GGUF is known by its size and time, because hashing it would read it twice.
        """
        parts: list[Any] = [self.name, read_json(self.model).get("files")]
        if self.fused:
            parts.append(read_json(self.fused).get("files"))
        if self.adapter:
            parts += [sha256(self.adapter), sha256(Path(self.adapter).with_name("adapter_config.json"))]
        if self.gguf:
            stat = Path(self.gguf).stat()
            parts.append([stat.st_size, stat.st_mtime_ns])
        return parts

    def load(self, *, dtype: str, context_length: int, threads: int) -> LanguageModel:
        """Load it; context_length: tokens of the longest prompt and completion that it will have to hold."""
        if self.gguf:
            return load_gguf(self.gguf, LoadOptions(context_length=context_length, threads=threads))
        folder = _folder(self.fused) if self.fused else self.folder
        return load_model(folder, LoadOptions(dtype=dtype, adapter=Path(self.adapter).parent if self.adapter else None))


def _folder(manifest: StrPath) -> Path:
    return Path(read_json(manifest)["folder"]).expanduser()
