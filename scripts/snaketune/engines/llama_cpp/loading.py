"""A GGUF file as a llama.cpp model."""

from __future__ import annotations

from llama_cpp import GGML_TYPE_F32, Llama

from snaketune.engines.interface import LoadOptions
from snaketune.errors import PackageError
from snaketune.files import StrPath


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
