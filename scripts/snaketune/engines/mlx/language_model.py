"""A language model of MLX behind `engines.interface.AdaptedModel`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import mlx.nn as nn
import numpy as np

from snaketune.engines.interface import Completion, GenerationRequest, LoadOptions, LoglikelihoodRequest
from snaketune.engines.mlx import generation, loading, next_token, reference_merge, streaming
from snaketune.engines.mlx import loglikelihood as scoring
from snaketune.engines.mlx.adapter_size import relative_update_norm
from snaketune.engines.sampling import Sampling
from snaketune.files import StrPath


def load(path: StrPath, options: LoadOptions = LoadOptions()) -> MLXModel | StreamedModel:  # noqa: B008  frozen
    """Load a model folder; see `engines.interface.ModelLoader`."""
    dtype = "float32" if options.exact else options.dtype
    if options.layer_by_layer:
        return StreamedModel(loading.open_lazily(path, dtype=dtype, adapter=options.adapter).model, options.merged_as)
    model = loading.load(path, dtype=dtype, adapter=options.adapter).model
    if options.merged_as:
        reference_merge.merge(model, options.merged_as)
    return MLXModel(model)


class MLXModel:
    """A model whose weights are in memory."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._batched = generation.supports_ragged_prefill(model)

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
        """The log-probability of each row's masked tokens, in nats."""
        return scoring.loglikelihoods(self.model, requests)

    def generate(
        self, requests: Sequence[GenerationRequest], *, stop_ids: Set[int], sampling: Sampling
    ) -> Iterator[Completion]:
        """Completions as they end."""
        return generation.generate(self.model, requests, stop_ids, sampling, batched=self._batched)

    def next_token_logprobs(
        self, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """For each row, ln p(next token) after each of its positions."""
        for ids, wanted in zip(rows, positions, strict=True):
            yield next_token.next_token_logprobs(self.model, ids, wanted)

    def relative_update_norm(self) -> float | None:
        """The size of the adapter's update, relative to the weights that it changes."""
        return relative_update_norm(self.model)

    def close(self) -> None:
        """Drop the weights, which frees their memory."""
        del self.model


class StreamedModel:
    """A model that is read from the disk block by block, for one pass over all rows: it does not generate."""

    def __init__(self, model: nn.Module, merged_as: str | None) -> None:
        self.model = model
        if merged_as:
            reference_merge.merge(model, merged_as)

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
        """Not offered: each row would read the whole model."""
        raise NotImplementedError

    def generate(
        self, requests: Sequence[GenerationRequest], *, stop_ids: Set[int], sampling: Sampling
    ) -> Iterator[Completion]:
        """Not offered: each token would read the whole model."""
        raise NotImplementedError

    def next_token_logprobs(
        self, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """For each row, ln p(next token) after each of its positions; all rows pass together, and only once."""
        yield from streaming.next_token_logprobs(self.model, rows, positions)

    def relative_update_norm(self) -> float | None:
        """Not offered: the weights are on the disk."""
        raise NotImplementedError

    def close(self) -> None:
        """Drop what is left in memory."""
        del self.model
