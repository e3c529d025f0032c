"""Batched generation with a GGUF: each step decodes one token of every completion that is being generated."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

import llama_cpp
import numpy as np
from llama_cpp import Llama

from snaketune.engines.decoding import Sampling, sample_token, shared_prefix
from snaketune.engines.interface import Completion, GenerationRequest
from snaketune.errors import EvaluationError

BATCH = 16  # completions generated at once
MAX_KV_TOKENS = 16_384  # tokens of all of them together, which bounds the memory of keys and values
CHUNK = 512  # tokens decoded in one step


def generate(
    llama: Llama, requests: Sequence[GenerationRequest], stop_ids: Set[int], sampling: Sampling
) -> Iterator[Completion]:
    """Completions as they end; see `engines.interface.LanguageModel.generate`.

    A prefix that all prompts share is computed once.
    """
    if not requests:
        return
    shared = shared_prefix([request.prompt_ids for request in requests])
    waiting = [
        _Sequence(i, list(requests[i].prompt_ids), requests[i].max_new_tokens, np.random.default_rng(requests[i].seed))
        for i in sorted(range(len(requests)), key=lambda i: (-len(requests[i].prompt_ids), i))
    ]
    longest = max(len(request.prompt_ids) + request.max_new_tokens for request in requests)
    count = max(1, min(BATCH, MAX_KV_TOKENS // longest, len(requests)))
    context = _Context(llama, slots=count + 1, kv_tokens=len(shared) + count * (longest - len(shared)))
    try:
        context.prefill(shared)
        free, active = list(range(1, count + 1)), dict[int, _Sequence]()
        while waiting or active:
            while free and waiting:
                slot = free.pop()
                active[slot] = waiting.pop()
                context.fork(slot, len(shared))
                active[slot].num_decoded = len(shared)
            for slot, logits in context.step(active):
                sequence = active[slot]
                if sequence.append(sample_token(logits, sequence.ids, sampling, sequence.rng), stop_ids):
                    yield sequence.completion()
                    context.free(slot)
                    del active[slot]
                    free.append(slot)
    finally:
        context.close()


def stream(llama: Llama, request: GenerationRequest, stop_ids: Set[int], sampling: Sampling) -> Iterator[int]:
    """The tokens of one completion as they are drawn; see `engines.interface.LanguageModel.stream`."""
    sequence = _Sequence(0, list(request.prompt_ids), request.max_new_tokens, np.random.default_rng(request.seed))
    context = _Context(llama, slots=2, kv_tokens=len(request.prompt_ids) + request.max_new_tokens)
    try:
        has_ended = False
        while not has_ended:
            for _, logits in context.step({1: sequence}):
                has_ended = sequence.append(sample_token(logits, sequence.ids, sampling, sequence.rng), stop_ids)
                if not sequence.stopped:
                    yield sequence.ids[-1]
    finally:
        context.close()


@dataclass
class _Sequence:
    """A completion that is being generated: `ids` are its prompt and the new tokens; `num_decoded` of them are read."""

    index: int
    ids: list[int]
    max_new_tokens: int
    rng: np.random.Generator
    num_decoded: int = 0
    stopped: bool = False
    prompt_length: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_length = len(self.ids)

    def append(self, token: int, stop_ids: Set[int]) -> bool:
        """Take the next token, unless it is a stop token; returns whether the completion has ended."""
        self.stopped = token in stop_ids
        if not self.stopped:
            self.ids.append(token)
        return self.stopped or len(self.ids) - self.prompt_length == self.max_new_tokens

    def completion(self) -> Completion:
        return Completion(self.index, self.ids[self.prompt_length :], self.stopped)


class _Context:
    """A llama.cpp context with several sequences in one memory; the sequence in slot 0 is the shared prefix."""

    def __init__(self, llama: Llama, slots: int, kv_tokens: int) -> None:
        self.vocab_size = llama.n_vocab()
        settings = llama_cpp.llama_context_params.from_buffer_copy(llama.context_params)
        settings.n_ctx = kv_tokens
        settings.n_batch = settings.n_ubatch = min(CHUNK, kv_tokens)
        settings.n_seq_max = slots
        settings.kv_unified = True
        self.chunk = settings.n_batch
        self.ctx = llama_cpp.llama_init_from_model(llama.model, settings)
        if not self.ctx:
            raise EvaluationError(
                f"llama.cpp has no memory for {kv_tokens} tokens",
                fix="Lower evaluate.max_new_tokens, or close other programs",
            )
        if llama._lora_adapter is not None:  # private; tests/unit/llama_engine/test_against_llama_cpp.py holds it
            one = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(llama._lora_adapter)  # type: ignore[misc]
            llama_cpp.llama_set_adapters_lora(self.ctx, one, 1, (ctypes.c_float * 1)(llama.lora_scale))
        self.memory = llama_cpp.llama_get_memory(self.ctx)
        self.batch = llama_cpp.llama_batch_init(self.chunk, 0, 1)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.ctx)

    def prefill(self, ids: Sequence[int]) -> None:
        """Read these tokens into slot 0."""
        for start in range(0, len(ids), self.chunk):
            for position, token in enumerate(ids[start : start + self.chunk], start):
                self._add(token, position, 0, with_logits=False)
            self._decode()

    def fork(self, slot: int, length: int) -> None:
        """Begin the sequence in a slot with the shared prefix."""
        if length:
            llama_cpp.llama_memory_seq_cp(self.memory, 0, slot, 0, length)

    def free(self, slot: int) -> None:
        """Forget the sequence in a slot."""
        llama_cpp.llama_memory_seq_rm(self.memory, slot, -1, -1)

    def step(self, active: dict[int, _Sequence]) -> list[tuple[int, np.ndarray]]:
        """Decode as many unread tokens as fit; returns (slot, logits) of the sequences that are now read whole."""
        complete = []
        for slot, sequence in active.items():
            room = self.chunk - self.batch.n_tokens
            until = min(len(sequence.ids), sequence.num_decoded + room)
            for position in range(sequence.num_decoded, until):
                self._add(sequence.ids[position], position, slot, with_logits=position == len(sequence.ids) - 1)
                sequence.num_decoded = position + 1
            if room and sequence.num_decoded == len(sequence.ids):
                complete.append((slot, self.batch.n_tokens - 1))
        self._decode()
        return [(slot, self._logits(row)) for slot, row in complete]

    def _add(self, token: int, position: int, slot: int, with_logits: bool) -> None:
        row = self.batch.n_tokens
        self.batch.token[row], self.batch.pos[row] = token, position
        self.batch.n_seq_id[row], self.batch.seq_id[row][0] = 1, slot
        self.batch.logits[row] = with_logits
        self.batch.n_tokens = row + 1

    def _decode(self) -> None:
        count, failed = self.batch.n_tokens, llama_cpp.llama_decode(self.ctx, self.batch)
        self.batch.n_tokens = 0
        if failed:
            raise EvaluationError(
                f"llama.cpp could not read {count} tokens (code {failed})",
                why="The prompts could not be answered",
                fix="If memory is short, close other programs; otherwise this is a defect of llama.cpp for this model",
            )

    def _logits(self, row: int) -> np.ndarray:
        """float32 [vocabulary], in llama.cpp's own memory."""
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.ctx, row), shape=(self.vocab_size,))
