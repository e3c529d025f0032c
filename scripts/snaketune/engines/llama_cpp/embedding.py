"""How near in meaning two texts are, as an embedding model in a GGUF file sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from llama_cpp import Llama

from snaketune.errors import ModelError


def similarities(model: str | Path, pairs: Sequence[tuple[str, str]], threads: int = 1) -> list[float]:
    """The cosine similarity, -1 to 1, of each pair's embeddings; each text is embedded once, cut at the context."""
    try:
        llama = Llama(str(model), embedding=True, n_ctx=0, n_threads=threads, n_threads_batch=threads, verbose=False)
    except (ValueError, OSError, RuntimeError) as error:
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
