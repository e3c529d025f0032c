"""A GGUF file in llama.cpp behind `engines.interface.GGUFModel`: log-probabilities, generation, and embeddings.

Token ids go in, so no second tokenizer is involved.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import GGML_TYPE_F32, Llama

from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import Completion, GenerationRequest, LoadOptions, LoglikelihoodRequest
from snaketune.engines.llama_cpp import generation
from snaketune.errors import EvaluationError, ModelError, PackageError
from snaketune.files import StrPath

REFUSALS = (ValueError, OSError, RuntimeError)
"""What llama-cpp-python raises where llama.cpp does not load a file, for any reason."""
NO_ROOM = (
    "snaketune: {} could not be loaded onto the NVIDIA card, most likely for want of free memory there (nvidia-smi "
    "lists what takes it), so it is computed on the CPU, which is slower"
)


def similarities(model: str | Path, pairs: Sequence[tuple[str, str]], threads: int = 1) -> list[float]:
    """The cosine similarity, -1 to 1, of each pair's embeddings; each text is embedded once, cut at the context."""
    try:
        llama = Llama(str(model), embedding=True, n_ctx=0, n_threads=threads, n_threads_batch=threads, verbose=False)
    except REFUSALS as error:
        raise ModelError(
            f"the embedding model cannot be loaded ({error})",
            where="evaluate.similarity",
            fix="Give the path of a GGUF embedding model, or null",
        ) from error
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    found = {text: _embedded(llama, text) for text in texts}
    return [float(found[one] @ found[other]) for one, other in pairs]


def _embedded(llama: Llama, text: str) -> np.ndarray:
    """A unit vector; of a model that embeds each token, their mean."""
    vector = np.asarray(llama.embed(text or " ", normalize=False, truncate=True), float)
    vector = vector.mean(axis=0) if vector.ndim == 2 else vector
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


SLICE = 64  # rows of logits that are exponentiated at once


def loglikelihoods(llama: Llama, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
    """The loglikelihood of each row, in nats; see `engines.interface.LanguageModel.loglikelihood`."""
    sequence = TokenSequence(llama)
    try:
        for ids, loss_mask in requests:
            yield _loglikelihood(sequence, np.asarray(ids, np.int32), np.asarray(loss_mask, bool))
    finally:
        sequence.close()


def _loglikelihood(sequence: TokenSequence, ids: np.ndarray, loss_mask: np.ndarray) -> float:
    inputs, labels, is_target = ids[:-1], ids[1:], loss_mask[1:]
    if not is_target.any():
        return 0.0
    target_positions = np.flatnonzero(is_target)
    last = int(target_positions[-1]) + 1
    start = sequence.reuse_prefix(inputs.tolist(), at_most=int(target_positions[0]))
    total = 0.0
    while start < last:
        end = min(start + sequence.chunk, last)
        logits = sequence.decode(inputs[start:end], is_target[start:end])
        chosen = labels[start:end][is_target[start:end]]
        for first in range(0, len(chosen), SLICE):
            total += _sum_of_log_softmax(logits[first : first + SLICE], chosen[first : first + SLICE])
        start = end
    return total


def _sum_of_log_softmax(logits: np.ndarray, ids: np.ndarray) -> float:
    """Sum over rows of log softmax(logits)[id]; logits [rows, vocabulary]."""
    highest = logits.max(axis=-1, keepdims=True)
    normalizer = np.log(np.exp(logits - highest).sum(axis=-1, dtype=np.float64)) + highest[:, 0]
    return float((logits[np.arange(len(ids)), ids] - normalizer).sum())


def next_token_logprobs(
    llama: Llama, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
) -> Iterator[np.ndarray]:
    """For each row ln p(next token | ids up to and including a position): float32 of shape (positions, vocabulary).

    positions: for each row ascending. What a row shares with the one before it is not computed again.
    """
    sequence = TokenSequence(llama)
    try:
        for ids, wanted in zip(rows, positions, strict=True):
            yield _row_logprobs(sequence, ids, wanted)
    finally:
        sequence.close()


def _row_logprobs(sequence: TokenSequence, ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    end = max(positions) + 1
    is_wanted = np.zeros(end, bool)
    is_wanted[list(positions)] = True
    start = sequence.reuse_prefix(ids[:end], at_most=min(positions))
    parts: list[np.ndarray] = []
    while start < end:
        until = min(start + sequence.chunk, end)
        parts.append(_log_softmax(sequence.decode(ids[start:until], is_wanted[start:until])))
        start = until
    return np.concatenate(parts)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)


class TokenSequence:
    """One sequence in a llama.cpp context; what it shares with the sequence before it is not computed again."""

    def __init__(self, llama: Llama) -> None:
        self.llama = llama
        self.ctx = llama.ctx
        self.chunk = llama.n_batch
        self.vocab_size = llama.n_vocab()
        self.ids: list[int] = []
        self._memory = llama_cpp.llama_get_memory(self.ctx)
        llama_cpp.llama_memory_clear(self._memory, True)
        self._batch = llama_cpp.llama_batch_init(self.chunk, 0, 1)
        self._tokens = _view(self._batch.token, self.chunk)
        self._positions = _view(self._batch.pos, self.chunk)
        self._with_logits = _view(self._batch.logits, self.chunk)
        for i in range(self.chunk):
            self._batch.n_seq_id[i] = 1
            self._batch.seq_id[i][0] = 0

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)

    def reuse_prefix(self, ids: Sequence[int], at_most: int) -> int:
        """Forget all but the common prefix with `ids`, of at most `at_most` tokens; returns the prefix's length."""
        shared = 0
        for known, new in zip(self.ids[:at_most], ids, strict=False):
            if known != new:
                break
            shared += 1
        if shared < len(self.ids) and not llama_cpp.llama_memory_seq_rm(self._memory, 0, shared, -1):
            llama_cpp.llama_memory_clear(self._memory, True)  # recurrent models cannot forget a part
            shared = 0
        del self.ids[shared:]
        return shared

    def decode(self, ids: Sequence[int] | np.ndarray, with_logits: np.ndarray) -> np.ndarray:
        """Read at most `chunk` further tokens; returns the logits (float32) after each one marked in `with_logits`.

        The array is llama.cpp's own memory, valid until the next call.
        """
        count = len(ids)
        self._tokens[:count] = ids
        self._positions[:count] = np.arange(len(self.ids), len(self.ids) + count)
        self._with_logits[:count] = with_logits
        self._batch.n_tokens = count
        failed = llama_cpp.llama_decode(self.ctx, self._batch)
        if failed:
            raise EvaluationError(
                f"llama.cpp could not read {count} tokens after {len(self.ids)} (code {failed})",
                why="The row could not be scored",
                fix="If memory is short, close other programs; otherwise this is a defect of llama.cpp for this model",
            )
        self.ids.extend(int(i) for i in ids)
        rows = int(np.count_nonzero(with_logits))
        if rows == 0:
            return np.empty((0, self.vocab_size), np.float32)
        return _view(llama_cpp.llama_get_logits(self.ctx), rows * self.vocab_size).reshape(rows, self.vocab_size)


def _view(pointer: Any, count: int) -> np.ndarray:
    return np.ctypeslib.as_array(pointer, shape=(count,))


def load(path: StrPath, options: LoadOptions) -> LlamaModel:
    """Load a GGUF file; see `engines.interface.ModelLoader`. Raises PackageError when llama.cpp refuses it."""
    return LlamaModel(open_gguf(path, options))


class LlamaModel:
    """A model in llama.cpp, read in one sequence for scores and in several for completions."""

    def __init__(self, llama: Llama) -> None:
        self.llama = llama

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
        """The log-probability of each row's masked tokens, in nats."""
        return loglikelihoods(self.llama, requests)

    def generate(
        self, requests: Sequence[GenerationRequest], *, stop_ids: Set[int], sampling: Sampling
    ) -> Iterator[Completion]:
        """Completions as they end."""
        return generation.generate(self.llama, requests, stop_ids, sampling)

    def stream(self, request: GenerationRequest, *, stop_ids: Set[int], sampling: Sampling) -> Iterator[int]:
        """The tokens of one completion as they are drawn."""
        return generation.stream(self.llama, request, stop_ids, sampling)

    def next_token_logprobs(
        self, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """For each row, ln p(next token) after each of its positions."""
        return next_token_logprobs(self.llama, rows, positions)

    def tokenize(self, text: str, *, add_bos: bool) -> list[int]:
        """The ids of a text, special tokens by their names."""
        return list(self.llama.tokenize(text.encode(), add_bos=add_bos, special=True))

    def bos_token(self) -> int:
        """The id that is put before a text."""
        return self.llama.token_bos()

    def ends_generation(self, token: int) -> bool:
        """Whether llama.cpp stops at this token."""
        return bool(llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(self.llama.model), token))

    def close(self) -> None:
        """Free the file and its context."""
        self.llama.close()


def gpu_layers() -> int:
    """How many layers of a GGUF an NVIDIA card computes: all (-1) where llama.cpp is built for one, else none.

    Where a result must be exact it is computed on the CPU, as the models that it is compared with are.
    """
    return -1 if sys.platform == "linux" and llama_cpp.llama_supports_gpu_offload() else 0


def open_gguf(path: StrPath, options: LoadOptions) -> Llama:
    """Load a GGUF, quietly, with room for `options.context_length` tokens; on the CPU where the card has no room.

    Raises PackageError when llama.cpp refuses the file.
    """
    layers = 0 if options.exact else gpu_layers()
    if layers:
        with contextlib.suppress(*REFUSALS):
            return _open(path, options, layers)
    try:
        llama = _open(path, options, 0, on_cpu_alone=bool(layers) or options.exact)
    except REFUSALS as error:
        raise PackageError(
            f"llama.cpp cannot load this file ({error})",
            where=str(path),
            why="Ollama and llama.cpp would refuse it too",
            fix="Delete it and run snakemake again; if it comes back, the conversion's log says why",
        ) from error
    if layers:
        print(NO_ROOM.format(Path(path).name), file=sys.stderr)
    return llama


def _open(path: StrPath, options: LoadOptions, layers: int, *, on_cpu_alone: bool = False) -> Llama:
    """Load a GGUF with so many layers on a card; on_cpu_alone: none of its large products are made there either."""
    return Llama(
        str(path),
        n_ctx=options.context_length,
        n_batch=min(options.context_length, 512),
        n_threads=options.threads,
        n_threads_batch=options.threads,
        n_gpu_layers=layers,
        op_offload=False if on_cpu_alone else None,
        lora_path=str(options.adapter) if options.adapter else None,
        logits_all=False,
        verbose=False,
        seed=0,
        type_k=GGML_TYPE_F32 if options.exact else None,
        type_v=GGML_TYPE_F32 if options.exact else None,
    )
