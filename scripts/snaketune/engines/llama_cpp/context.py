"""One sequence of tokens in a llama.cpp context, which computes again only what differs from the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import Llama

from snaketune.errors import EvaluationError


class TokenSequence:
    """The tokens that a llama.cpp model has read, and the logits after any of them."""

    def __init__(self, llama: Llama) -> None:
        self.llama = llama
        self.ctx = llama.ctx
        self.chunk = llama.n_batch
        self.vocabulary = llama.n_vocab()
        self.ids: list[int] = []
        self._memory = llama_cpp.llama_get_memory(self.ctx)
        llama_cpp.llama_memory_clear(self._memory, True)
        self._batch = llama_cpp.llama_batch_init(self.chunk, 0, 1)
        self._tokens = _view(self._batch.token, self.chunk)
        self._places = _view(self._batch.pos, self.chunk)
        self._wanted = _view(self._batch.logits, self.chunk)
        for i in range(self.chunk):
            self._batch.n_seq_id[i] = 1
            self._batch.seq_id[i][0] = 0

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)

    def keep(self, ids: Sequence[int], at_most: int) -> int:
        """Forget what is not a common prefix with `ids`, of at most `at_most` tokens; returns the prefix's length."""
        shared = 0
        for mine, other in zip(self.ids[:at_most], ids, strict=False):
            if mine != other:
                break
            shared += 1
        if shared < len(self.ids) and not llama_cpp.llama_memory_seq_rm(self._memory, 0, shared, -1):
            llama_cpp.llama_memory_clear(self._memory, True)  # recurrent models cannot forget a part
            shared = 0
        del self.ids[shared:]
        return shared

    def read(self, ids: Sequence[int] | np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Read up to a chunk of tokens after those read before; the logits (float32) after each of the `wanted`.

        The array is llama.cpp's own memory, valid until the next read.
        """
        count = len(ids)
        self._tokens[:count] = ids
        self._places[:count] = np.arange(len(self.ids), len(self.ids) + count)
        self._wanted[:count] = wanted
        self._batch.n_tokens = count
        failed = llama_cpp.llama_decode(self.ctx, self._batch)
        if failed:
            raise EvaluationError(
                f"llama.cpp could not read {count} tokens after {len(self.ids)} (code {failed})",
                why="The row could not be scored",
                fix="If memory is short, close other programs; otherwise this is a defect of llama.cpp for this model",
            )
        self.ids.extend(int(i) for i in ids)
        rows = int(np.count_nonzero(wanted))
        if rows == 0:
            return np.empty((0, self.vocabulary), np.float32)
        return _view(llama_cpp.llama_get_logits(self.ctx), rows * self.vocabulary).reshape(rows, self.vocabulary)


def _view(pointer: Any, count: int) -> np.ndarray:
    return np.ctypeslib.as_array(pointer, shape=(count,))
