"""A GGUF file in llama.cpp behind `engines.interface.GGUFModel`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import llama_cpp
import numpy as np
from llama_cpp import GGML_TYPE_F32, Llama

from snaketune.engines.interface import Completion, GenerationRequest, LoadOptions, LoglikelihoodRequest
from snaketune.engines.llama_cpp import generation
from snaketune.engines.llama_cpp import loglikelihood as scoring
from snaketune.engines.sampling import Sampling
from snaketune.errors import PackageError
from snaketune.files import StrPath


def load(path: StrPath, options: LoadOptions) -> LlamaModel:
    """Load a GGUF file; see `engines.interface.ModelLoader`. Raises PackageError when llama.cpp refuses it."""
    return LlamaModel(open_gguf(path, options))


class LlamaModel:
    """A model in llama.cpp, read in one sequence for scores and in several for completions."""

    def __init__(self, llama: Llama) -> None:
        self.llama = llama

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
        """The log-probability of each row's masked tokens, in nats."""
        return scoring.loglikelihoods(self.llama, requests)

    def generate(
        self, requests: Sequence[GenerationRequest], *, stop_ids: Set[int], sampling: Sampling
    ) -> Iterator[Completion]:
        """Completions as they end."""
        return generation.generate(self.llama, requests, stop_ids, sampling)

    def next_token_logprobs(
        self, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """For each row, ln p(next token) after each of its positions."""
        return scoring.next_token_logprobs(self.llama, rows, positions)

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


def open_gguf(path: StrPath, options: LoadOptions) -> Llama:
    """Load a GGUF, quietly, with room for `options.context_length` tokens.

    Raises PackageError when llama.cpp refuses the file.
    """
    try:
        return Llama(
            str(path),
            n_ctx=options.context_length,
            n_batch=min(options.context_length, 512),
            n_threads=options.threads,
            n_threads_batch=options.threads,
            lora_path=str(options.adapter) if options.adapter else None,
            logits_all=False,
            verbose=False,
            seed=0,
            type_k=GGML_TYPE_F32 if options.exact else None,
            type_v=GGML_TYPE_F32 if options.exact else None,
        )
    except (ValueError, OSError, RuntimeError) as error:
        raise PackageError(
            f"llama.cpp cannot load this file ({error})",
            where=str(path),
            why="Ollama and llama.cpp would refuse it too",
            fix="Delete it and run snakemake again; if it comes back, the conversion's log says why",
        ) from error
