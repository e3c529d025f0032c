"""A GGUF file as a llama.cpp model."""

from __future__ import annotations

from llama_cpp import GGML_TYPE_F32, Llama

from snaketune.errors import PackageError
from snaketune.files import StrPath


def open_gguf(
    path: StrPath, *, context: int, threads: int, adapter: StrPath | None = None, exact: bool = False
) -> Llama:
    """Load a GGUF, quietly, with room for `context` tokens; `adapter` is a GGUF LoRA over it.

    exact: keep what was read in float32 instead of float16, which alone moves log-probabilities by up to 0.2 where a
    model is very sure of itself.
    Raises PackageError when llama.cpp refuses the file.
    """
    try:
        return Llama(
            str(path),
            n_ctx=context,
            n_batch=min(context, 512),
            n_threads=threads,
            n_threads_batch=threads,
            lora_path=str(adapter) if adapter else None,
            logits_all=False,
            verbose=False,
            seed=0,
            type_k=GGML_TYPE_F32 if exact else None,
            type_v=GGML_TYPE_F32 if exact else None,
        )
    except (ValueError, OSError, RuntimeError) as error:
        raise PackageError(
            f"llama.cpp cannot load this file ({error})",
            where=str(path),
            why="Ollama and llama.cpp would refuse it too",
            fix="Delete it and run snakemake again; if it comes back, the conversion's log says why",
        ) from error
