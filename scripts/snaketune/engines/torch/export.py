"""What the torch engine writes for other programs: the part `engines.interface.Exporter`.

`fuse` reads base and adapter tensor by tensor from their files, so it needs no model and holds one tensor in memory.
A quantized base is dequantized and not quantized again: that would round small updates away.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from snaketune.contracts.train import AdapterConfig
from snaketune.engines import sixteen_bit
from snaketune.engines.interface import FusedWeights, MergedTensor, PeftAdapter
from snaketune.engines.sixteen_bit import SAMPLED_ROWS, SHARD, MergedNumbers, Sample
from snaketune.engines.torch import nf4, prompt_embedding
from snaketune.engines.torch.nf4 import quantize_base as quantize_base
from snaketune.engines.torch.weights import dequantized, group_size, read_adapter
from snaketune.errors import ModelError, TrainingError
from snaketune.files import StrPath, read_json
from snaketune.train import peft_format

SIXTEEN_BIT = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def fuse(
    base: StrPath, adapter: StrPath, target: StrPath, *, dtype: str = "auto", drop_prefix: str = "", shard: int = SHARD
) -> FusedWeights:
    """Write the weights of `base` with the adapter folder merged in as safetensors into the folder `target`.

    dtype `auto` (and `float32`) keeps a 16-bit base's own format and makes a 32-bit one float16. drop_prefix: is left
    out of the tensors' names, and tensors without it, those of pictures, are left out themselves.
    """
    merged = _merger(base, adapter)
    kind = dtype if dtype in sixteen_bit.FORMATS else merged.weights.sixteen_bit_format()
    names = [name for name in merged.names() if name.startswith(drop_prefix)]
    shapes = {name.removeprefix(drop_prefix): merged.shape(name) for name in names}
    written = sixteen_bit.write(
        Path(target), kind, shapes, lambda name: merged.numbers(drop_prefix + name, kind), shard
    )
    return dataclasses.replace(written, config=merged.config())


def merge(base: StrPath, adapter: StrPath, *, drop_prefix: str = "") -> dict[str, MergedTensor]:
    """The tensors that `fuse` writes, before they are rounded."""
    merged = _merger(base, adapter)
    return {
        name.removeprefix(drop_prefix): MergedTensor(
            merged.shape(name),
            lambda name=name: merged(name).numpy(),  # type: ignore[misc]
        )
        for name in merged.names()
        if name.startswith(drop_prefix)
    }


def _merger(base: StrPath, adapter: StrPath) -> _Merger:
    weights = _BaseWeights(Path(base))
    try:
        tensors, described = read_adapter(adapter)
        if described.prompt_parameters:
            return _PromptMerger(weights, tensors, described, described.prompt_parameters.first_id)
        return _Merger(weights, tensors, described)
    except (OSError, ValueError, KeyError, TrainingError) as error:
        raise ModelError(
            f"the adapter does not fit its base ({str(error).splitlines()[0]})",
            where=str(adapter),
            fix="Run snakemake again; the adapter must come from this very base",
        ) from error


class _BaseWeights:
    """The tensors of a base folder by name, read one at a time."""

    def __init__(self, folder: Path) -> None:
        try:
            self.config = read_json(folder / "config.json")
            self._files = [safe_open(path, "pt", backend="pread") for path in sorted(folder.glob("*.safetensors"))]
            self._file_of = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the base cannot be loaded ({str(error).splitlines()[0]})", where=str(folder), fix="Fetch it again"
            ) from error

    def names(self) -> list[str]:
        """Names of whole weights: of a quantized one neither its scales nor its biases."""
        return sorted(name for name in self._file_of if not self._belongs_to_quantized(name))

    def read(self, name: str) -> torch.Tensor:
        """A weight as it is stored; a quantized one in the format of its scales."""
        layer = name.rpartition(".")[0]
        parts = [name, f"{layer}.scales", f"{layer}.biases"] if self._is_quantized(layer) else [name]
        parts += [f"{name}.{part}" for part in nf4.PARTS] if self._is_nf4(name) else []
        tensors = {part: self._file_of[part].get_tensor(part) for part in parts}
        return dequantized(tensors, self.config)[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a weight; of a quantized one that of the numbers it stands for."""
        layer = name.rpartition(".")[0]
        if self._is_nf4(name):
            return nf4.shape_of(self._file_of[f"{name}.{nf4.STATE}"].get_tensor(f"{name}.{nf4.STATE}"))
        if not self._is_quantized(layer):
            return self._stored_shape(name)
        rows, groups = self._stored_shape(f"{layer}.scales")
        return rows, groups * group_size(self.config["quantization"], layer)

    def sixteen_bit_format(self) -> str:
        """The 16-bit format that most of the weights are in; float16 for a 32-bit base."""
        kinds: Counter[str] = Counter()
        for name, file in self._file_of.items():
            kinds[file.get_slice(name).get_dtype()] += math.prod(self._stored_shape(name))
        return "bfloat16" if kinds["BF16"] > kinds["F16"] else "float16"

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file_of[name].get_slice(name).get_shape())

    def _is_quantized(self, layer: str) -> bool:
        return f"{layer}.scales" in self._file_of

    def _is_nf4(self, name: str) -> bool:
        return f"{name}.{nf4.STATE}" in self._file_of

    def _belongs_to_quantized(self, name: str) -> bool:
        layer, _, part = name.rpartition(".")
        return name.endswith(nf4.PARTS) or (part in ("scales", "biases") and self._is_quantized(layer))


class _Merger:
    """Gives the base's weights with an adapter merged in, in float32."""

    def __init__(self, weights: _BaseWeights, tensors: dict[str, torch.Tensor], described: AdapterConfig) -> None:
        self.weights, self._tensors, self._config = weights, tensors, described
        self._full = self._config.fine_tune_type == "full"
        self._scale = self._config.lora_parameters.scale or 0.0
        known = set(weights.names())
        owners = {name if self._full else _weight_of(name) for name in self._tensors}
        if owners - known:
            raise ValueError(f"{min(owners - known)} is not in the base")

    def names(self) -> list[str]:
        """The names of the merged weights."""
        return self.weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a merged weight."""
        return self.weights.shape(name)

    def config(self) -> dict[str, object]:
        """What the merged model's config.json says otherwise than the base's."""
        return {}

    def numbers(self, name: str, dtype: str) -> MergedNumbers:
        """A merged weight for writing in a 16-bit format, and a sample of it with and without the adapter."""
        before = self.weights.read(name)
        changed = self._changes(name)
        merged = self._merged(name, before) if changed else before
        rows = slice(None, None, max(1, before.shape[0] // SAMPLED_ROWS))
        unchanged = before[rows].float().numpy() if f"{name.removesuffix('.weight')}.lora_a" in self._tensors else None
        return _numbers(merged, Sample(merged[rows].float().numpy(), unchanged), dtype)

    def __call__(self, name: str) -> torch.Tensor:
        """A merged weight in float32."""
        before = self.weights.read(name)
        return self._merged(name, before) if self._changes(name) else before.float()

    def _changes(self, name: str) -> bool:
        layer = name.removesuffix(".weight")
        return name in self._tensors if self._full else name.endswith(".weight") and f"{layer}.lora_a" in self._tensors

    def _merged(self, name: str, before: torch.Tensor) -> torch.Tensor:
        if self._full:
            return self._tensors[name].float()
        layer = name.removesuffix(".weight")
        a, b = self._tensors[f"{layer}.lora_a"].float(), self._tensors[f"{layer}.lora_b"].float()
        weight = before.to(torch.float32, copy=True).addmm_(b.T, a.T, alpha=self._scale)
        lengths = self._tensors.get(f"{layer}.m")
        if lengths is not None:  # DoRA
            weight *= (lengths.float() / torch.linalg.vector_norm(weight, dim=1))[:, None]
        return weight


class _PromptMerger(_Merger):
    """Gives the base's weights with the vectors of prompt tuning as rows of the embedding, and a head of its own."""

    def __init__(
        self, weights: _BaseWeights, tensors: dict[str, torch.Tensor], described: AdapterConfig, first_id: int
    ) -> None:
        super().__init__(weights, tensors, described)
        ((name, self._vectors),) = tensors.items()
        self._embedding, self._first = _weight_of(name), first_id
        self._head = self._embedding.replace(prompt_embedding.EMBEDDING, prompt_embedding.HEAD)

    def names(self) -> list[str]:
        return sorted({*self.weights.names(), self._head})

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in (self._embedding, self._head):
            return self.weights.shape(name)
        rows, width = self.weights.shape(self._embedding)
        return max(rows, self._first + len(self._vectors)), width

    def config(self) -> dict[str, object]:
        return {"vocab_size": self.shape(self._embedding)[0], "tie_word_embeddings": False}

    def numbers(self, name: str, dtype: str) -> MergedNumbers:
        merged = self(name) if name in (self._embedding, self._head) else self.weights.read(name)
        rows = slice(None, None, max(1, merged.shape[0] // SAMPLED_ROWS))
        return _numbers(merged, Sample(merged[rows].float().numpy(), None), dtype)

    def __call__(self, name: str) -> torch.Tensor:
        if name not in (self._embedding, self._head):
            return self.weights.read(name).float()
        source = name if name in self.weights.names() else self._embedding
        weight = self.weights.read(source).float()
        if name == self._embedding:
            return prompt_embedding.with_rows(weight, self._vectors.float(), self._first)
        silent = prompt_embedding.silent_rows(weight, len(self._vectors))
        return prompt_embedding.with_rows(weight, silent, self._first)


def _numbers(merged: torch.Tensor, sample: Sample, dtype: str) -> MergedNumbers:
    """A weight for writing in a 16-bit format; one that is in it already is not rounded."""
    kept = merged.dtype == SIXTEEN_BIT[dtype]
    flat = merged.contiguous().view(-1)
    return MergedNumbers(flat.view(torch.int16).numpy().view(np.uint16) if kept else flat.float().numpy(), sample)


def _weight_of(name: str) -> str:
    """The weight that a tensor of an adapter changes."""
    return f"{name.rpartition('.')[0]}.weight"


def peft_adapter(adapter: StrPath) -> PeftAdapter:
    """An adapter folder in PEFT's layout; see `train.peft_format`."""
    return PeftAdapter(*peft_format.export_peft(adapter))
