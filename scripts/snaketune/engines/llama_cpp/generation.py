"""Answers from a GGUF, several at a time: each step reads one token of every answer in the making."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

import llama_cpp
import numpy as np
from llama_cpp import Llama

from snaketune.engines.context_window import shared_prefix
from snaketune.engines.sampling import Sampling, pick
from snaketune.errors import EvaluationError

BATCH = 16  # answers in the making at once
HELD = 16_384  # tokens of all of them together, which bounds the memory of keys and values
CHUNK = 512  # tokens read in one step


def answers(
    llama: Llama,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stop_ids: Set[int],
    sampling: Sampling,
    seeds: Sequence[int],
) -> Iterator[tuple[int, list[int], bool]]:
    """Answers as they end: (which prompt, the new ids without the stop token, whether it stopped by itself).

    limits: for each prompt the most new tokens, at least 1; seeds: for each prompt the seed of its draws. What all
    prompts begin with is computed once.
    """
    if not prompts:
        return
    longest = max(len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True))
    count = max(1, min(BATCH, HELD // longest, len(prompts)))
    shared = shared_prefix(prompts)
    waiting = [
        _Answer(number, list(prompts[number]), limits[number], np.random.default_rng(seeds[number]))
        for number in sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    ]
    context = _Context(llama, places=count + 1, held=len(shared) + count * (longest - len(shared)))
    try:
        context.read(shared)
        free, making = list(range(1, count + 1)), dict[int, _Answer]()
        while waiting or making:
            while free and waiting:
                place = free.pop()
                making[place] = waiting.pop()
                context.branch(place, len(shared))
                making[place].known = len(shared)
            for place, logits in context.step(making):
                answer = making[place]
                token = pick(logits, answer.ids, sampling, answer.rng)
                stopped = token in stop_ids
                if not stopped:
                    answer.ids.append(token)
                if stopped or answer.new == answer.limit:
                    yield answer.number, answer.ids[answer.asked :], stopped
                    context.forget(place)
                    del making[place]
                    free.append(place)
    finally:
        context.close()


@dataclass
class _Answer:
    """An answer in the making: `ids` are its prompt and what is said so far, of which `known` have been read."""

    number: int
    ids: list[int]
    limit: int
    rng: np.random.Generator
    known: int = 0
    asked: int = field(init=False)

    def __post_init__(self) -> None:
        self.asked = len(self.ids)

    @property
    def new(self) -> int:
        return len(self.ids) - self.asked


class _Context:
    """A llama.cpp context with several sequences in one memory; sequence 0 is what all begin with."""

    def __init__(self, llama: Llama, places: int, held: int) -> None:
        self.vocabulary = llama.n_vocab()
        settings = llama_cpp.llama_context_params.from_buffer_copy(llama.context_params)
        settings.n_ctx = held
        settings.n_batch = settings.n_ubatch = min(CHUNK, held)
        settings.n_seq_max = places
        settings.kv_unified = True
        self.chunk = settings.n_batch
        self.ctx = llama_cpp.llama_init_from_model(llama.model, settings)
        if not self.ctx:
            raise EvaluationError(
                f"llama.cpp has no memory for {held} tokens",
                fix="Lower evaluate.max_new_tokens, or close other programs",
            )
        if llama._lora_adapter is not None:
            one = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(llama._lora_adapter)  # type: ignore[misc]
            llama_cpp.llama_set_adapters_lora(self.ctx, one, 1, (ctypes.c_float * 1)(llama.lora_scale))
        self.memory = llama_cpp.llama_get_memory(self.ctx)
        self.batch = llama_cpp.llama_batch_init(self.chunk, 0, 1)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.ctx)

    def read(self, ids: Sequence[int]) -> None:
        """Put these tokens into sequence 0."""
        for start in range(0, len(ids), self.chunk):
            for place, token in enumerate(ids[start : start + self.chunk], start):
                self._add(token, place, 0, wanted=False)
            self._decode()

    def branch(self, place: int, length: int) -> None:
        """Begin a sequence with what all begin with."""
        if length:
            llama_cpp.llama_memory_seq_cp(self.memory, 0, place, 0, length)

    def forget(self, place: int) -> None:
        llama_cpp.llama_memory_seq_rm(self.memory, place, -1, -1)

    def step(self, making: dict[int, _Answer]) -> list[tuple[int, np.ndarray]]:
        """Read what fits of all that is unread; the logits after each answer that is now read to its end."""
        ended = []
        for place, answer in making.items():
            room = self.chunk - self.batch.n_tokens
            for at in range(answer.known, min(len(answer.ids), answer.known + room)):
                self._add(answer.ids[at], at, place, wanted=at == len(answer.ids) - 1)
                answer.known = at + 1
            if room and answer.known == len(answer.ids):
                ended.append((place, self.batch.n_tokens - 1))
        self._decode()
        return [(place, self._logits(row)) for place, row in ended]

    def _add(self, token: int, at: int, place: int, wanted: bool) -> None:
        row = self.batch.n_tokens
        self.batch.token[row], self.batch.pos[row] = token, at
        self.batch.n_seq_id[row], self.batch.seq_id[row][0] = 1, place
        self.batch.logits[row] = wanted
        self.batch.n_tokens = row + 1

    def _decode(self) -> None:
        count, failed = self.batch.n_tokens, llama_cpp.llama_decode(self.ctx, self.batch)
        self.batch.n_tokens = 0
        if failed:
            raise EvaluationError(
                f"llama.cpp could not read {count} tokens (code {failed})",
                why="The questions could not be answered",
                fix="If memory is short, close other programs; otherwise this is a defect of llama.cpp for this model",
            )

    def _logits(self, row: int) -> np.ndarray:
        """float32 [vocabulary], in llama.cpp's own memory."""
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.ctx, row), shape=(self.vocabulary,))
