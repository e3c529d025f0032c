"""Rows as token ids on disk, read through a memory map: tokenised once, read by every training.

A store is one safetensors file: `ids` (all rows one after another, int32), `loss_mask` (uint8, 1 where the id is a
target), `ends` (int64, where each row ends) and `weights` (float64, how often a row is seen per epoch); for prompt
tuning also `virtual_ids` (int32, the ids of its virtual tokens).
"""

from __future__ import annotations

import json
import mmap
import shutil
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from snaketune.errors import DataError
from snaketune.files import StrPath, replacing
from snaketune.tokens.chat_template import Rendered

DTYPES = {"I32": np.int32, "U8": np.uint8, "I64": np.int64, "F64": np.float64}
ALIGNED = 8  # bytes, of a safetensors header
BLOCK = 1 << 20  # tokens that are looked at together


def write_store(path: StrPath, rows: Iterable[tuple[Rendered, float]], virtual_ids: range = range(0)) -> int:
    """Write rows and their weights; returns how many. What memory holds of a row is its end and its weight."""
    ends, weights, end = array("q"), array("d"), 0
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary, tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        parts = [Path(scratch, name) for name in ("ids", "loss_mask")]
        with open(parts[0], "wb", buffering=1 << 20) as ids, open(parts[1], "wb", buffering=1 << 20) as loss_mask:
            for rendered, weight in rows:
                ids.write(array("i", rendered.ids).tobytes())
                loss_mask.write(bytes(rendered.loss_mask))
                end += len(rendered.ids)
                ends.append(end)
                weights.append(weight)
        with open(temporary, "wb") as out:
            # what is read in eights first, so that everything lies where it can be mapped
            described = {"ends": ("I64", len(ends)), "weights": ("F64", len(ends))}
            described |= {"virtual_ids": ("I32", len(virtual_ids))} if virtual_ids else {}
            out.write(_header(described | {"ids": ("I32", end), "loss_mask": ("U8", end)}))
            out.write(ends)
            out.write(weights)
            out.write(array("i", virtual_ids))
            for part in parts:
                with open(part, "rb") as content:
                    shutil.copyfileobj(content, out, 1 << 20)
    return len(weights)


def _header(tensors: dict[str, tuple[str, int]]) -> bytes:
    """The beginning of a safetensors file; tensors: the type and the length of each, in their order."""
    described, at = {}, 0
    for name, (kind, length) in tensors.items():
        size = length * np.dtype(DTYPES[kind]).itemsize
        described[name] = {"dtype": kind, "shape": [length], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    return len(text).to_bytes(8, "little") + text


class TokenStore:
    """The rows of one split. `lengths` and `num_target_tokens` are int64 arrays of one entry a row.

    virtual_ids: of the virtual tokens of prompt tuning in its rows; empty for other methods.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        tensors = _mapped(self.path)
        self._ids, self._loss_mask = tensors["ids"], tensors["loss_mask"]
        self.virtual_ids = virtual_ids_of(self.path)
        self._ends: np.ndarray = np.concatenate([[0], tensors["ends"]])
        self.weights: np.ndarray = tensors["weights"]
        self.lengths: np.ndarray = np.diff(self._ends)
        self.num_target_tokens: np.ndarray = np.concatenate([np.empty(0, np.int64), *self._counted()])

    def __len__(self) -> int:
        return len(self.lengths)

    def _counted(self) -> Iterator[np.ndarray]:
        """The trained tokens of each row, some rows at a time, so that never more than a block of them is summed up."""
        start = 0
        while start < len(self):
            first = self._ends[start]
            stop = max(start + 1, int(np.searchsorted(self._ends, first + BLOCK, side="right")) - 1)
            inside = self._loss_mask[first : self._ends[stop]]
            before = np.concatenate([[0], np.cumsum(inside, dtype=np.int64)])
            ends = self._ends[start : stop + 1] - first
            yield before[ends[1:]] - before[ends[:-1]]
            start = stop

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids (int32) and the loss mask (bool) of a row, both of its length."""
        start, end = self._ends[number], self._ends[number + 1]
        return self._ids[start:end], self._loss_mask[start:end].astype(bool)


class BaseRows(TokenStore):
    """The rows of a store without their virtual tokens: what the base reads in the place of a prompt-tuned model."""

    def __init__(self, store: TokenStore) -> None:
        self.path, self.store, self.virtual_ids = store.path, store, range(0)
        self.weights, self.num_target_tokens = store.weights, store.num_target_tokens
        self.lengths = np.array([len(self.row(number)[0]) for number in range(len(store))], np.int64)

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids and the loss mask of a row, virtual tokens left out."""
        ids, loss_mask = self.store.row(number)
        virtual = self.store.virtual_ids
        kept = (ids < virtual.start) | (ids >= virtual.stop)
        return ids[kept], loss_mask[kept]


def virtual_ids_of(path: StrPath) -> range:
    """The ids of the virtual tokens of prompt tuning in a store's rows, which are not read for that."""
    ids = _mapped(Path(path)).get("virtual_ids")
    return range(0) if ids is None else range(int(ids[0]), int(ids[-1]) + 1)


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as views on its memory map; raises DataError when it is damaged."""
    try:
        with open(path, "rb") as content:
            mapped = mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ)
        size = int.from_bytes(mapped[:8], "little")
        header = json.loads(mapped[8 : 8 + size])
        tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        return {
            name: np.frombuffer(mapped, DTYPES[it["dtype"]], it["shape"][0], 8 + size + it["data_offsets"][0])
            for name, it in tensors.items()
        }
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"this token store is damaged ({error})", where=str(path), fix="Delete the file and run snakemake again"
        ) from error
