"""Rows as token ids on disk, read through a memory map: tokenised once, read by every training.

A store is one safetensors file: `ids` (all rows one after another, int32), `trained` (uint8, 1 where the id is a
target), `ends` (int64, where each row ends) and `weights` (float64, how often a row is seen per epoch).
"""

from __future__ import annotations

import json
import mmap
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from snaketune.errors import DataError
from snaketune.files import StrPath, replacing
from snaketune.model.rendering import Rendered

DTYPES = {"I32": np.int32, "U8": np.uint8, "I64": np.int64, "F64": np.float64}


def write_store(path: StrPath, rows: Iterable[tuple[Rendered, float]]) -> int:
    """Write rows and their weights; returns how many."""
    ids, trained, ends, weights = array("i"), array("B"), array("q"), array("d")
    for rendered, weight in rows:
        ids.extend(rendered.ids)
        trained.extend(rendered.trained)
        ends.append(len(ids))
        weights.append(weight)
    with replacing(path) as temporary:
        save_file(
            {
                "ids": np.array(ids, np.int32),
                "trained": np.array(trained, np.uint8),
                "ends": np.array(ends, np.int64),
                "weights": np.array(weights, np.float64),
            },
            temporary,
        )
    return len(weights)


class TokenStore:
    """The rows of one split. `lengths` and `targets` (trained tokens) are int64 arrays of one entry a row."""

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        tensors = _mapped(self.path)
        self._ids, self._trained = tensors["ids"], tensors["trained"]
        self._ends: np.ndarray = np.concatenate([[0], tensors["ends"]])
        self.weights: np.ndarray = tensors["weights"]
        self.lengths: np.ndarray = np.diff(self._ends)
        before = np.concatenate([[0], np.cumsum(self._trained, dtype=np.int64)])
        self.targets: np.ndarray = before[self._ends[1:]] - before[self._ends[:-1]]

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids (int32) and the mask of targets (bool) of a row, both of its length."""
        start, end = self._ends[number], self._ends[number + 1]
        return self._ids[start:end], self._trained[start:end].astype(bool)


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
            f"this token store is damaged ({error})", where=str(path), mend="Delete the file and run snakemake again"
        ) from error
