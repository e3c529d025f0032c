"""What prompt tuning asks of a base, and what it costs: the learned vectors are rows of the embedding when it is fused.

A head that is the embedding's matrix would then say the virtual tokens, so it becomes a matrix of its own. llama.cpp
does not read one in every architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from snaketune.config.sections import TrainConfig
from snaketune.errors import ModelError
from snaketune.plan.architecture import Architecture
from snaketune.plan.resources import gguf_bytes

PROVEN = ("llama", "mistral", "qwen2", "qwen3", "gemma3", "gemma3_text", "phi3", "qwen2_moe", "qwen3_moe", "mixtral")
"""Model types that tests have taken through the whole chain."""
WITHOUT_HEAD = ("gemma", "gemma2")
"""Model types of which llama.cpp takes the embedding for the head, whatever is in the file."""
LOW_LEARNING_RATE = 1e-3


def check(model: Architecture, folder: Path) -> None:
    """Raise ModelError for a base whose learned vectors could not be handed over."""
    if model.model_type in PROVEN:
        return
    if model.model_type in WITHOUT_HEAD:
        why = "llama.cpp takes its embedding for the head, so the learned vectors would be words that it says"
    else:
        why = f"It is proven for {', '.join(PROVEN)} alone"
    raise ModelError(
        f"prompt tuning cannot be handed over for models of the type {model.model_type}",
        where=str(folder),
        why=why,
        fix="Set train.method: lora, or choose a base of another type",
    )


def deployed(model: Architecture, num_virtual_tokens: int) -> Architecture:
    """The model that is handed over: more tokens, and a head of its own."""
    if not num_virtual_tokens:
        return model
    return replace(model, vocab_size=model.vocab_size + num_virtual_tokens, tie_word_embeddings=False)


def notes(model: Architecture, train: TrainConfig, gguf: Sequence[str]) -> list[str]:
    """What a person should know of prompt tuning before it starts, as sentences; none of another method."""
    if train.method != "prompt":
        return []
    found = []
    if model.tie_word_embeddings:
        larger = deployed(model, train.virtual_tokens)
        costs = []
        for kind in gguf:
            more = gguf_bytes(larger, kind) - gguf_bytes(model, kind)
            costs.append(f"{kind} by {more / 1e9:.2g} GB ({more / gguf_bytes(model, kind):.0%})")
        found.append(f"prompt tuning stores the vocabulary's matrix twice, which enlarges {', '.join(costs)}")
    if train.learning_rate < LOW_LEARNING_RATE:
        found.append(f"train.learning_rate {train.learning_rate:g} is low for prompt tuning: it wants 0.001 to 0.1")
    return found
