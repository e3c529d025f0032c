"""One side of a comparison, alone in its process: `python sides.py SIDE FOLDER THREADS` prints one JSON line.

{"tokens": new or scored tokens, "cpu": CPU-seconds without loading, "wall": seconds, "result": answers or scores}
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import workload

NEW = 48
PROMPTS = 64
SHARED = 256
ROWS = 48


def mlx(folder: Path) -> Any:
    from snaketune.engines.mlx import loading

    return loading.load(folder / "model", dtype="float32").model


def llama(folder: Path, threads: int, kind: str) -> Any:
    from snaketune.engines.interface import LoadOptions
    from snaketune.engines.llama_cpp import gguf_model

    return gguf_model.open_gguf(folder / f"{kind}.gguf", LoadOptions(context_length=1024, threads=threads))


def batched(engine: Callable[..., Iterable[tuple[int, list[int], bool]]], model: Any, asked: list[list[int]]) -> Any:
    """Our own way."""
    from snaketune.engines.decoding import Sampling
    from snaketune.engines.interface import GenerationRequest

    requests = [GenerationRequest(prompt, NEW, seed) for seed, prompt in enumerate(asked)]
    found = engine(model, requests, set(), Sampling())
    return [new for _, new, _ in sorted(found, key=lambda it: it[0])]


def one_by_one(model: Any, asked: list[list[int]]) -> list[list[int]]:
    """mlx-lm's generate_step, prompt after prompt."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    return [[int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=NEW)] for prompt in asked]


def llama_cpp_python(model: Any, asked: list[list[int]]) -> list[list[int]]:
    """Llama.generate, prompt after prompt."""
    found = []
    for prompt in asked:
        new: list[int] = []
        for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            new.append(int(token))
            if len(new) == NEW:
                break
        found.append(new)
    return found


def whole_logits(model: Any, rows: list[tuple[list[int], list[bool]]]) -> list[float]:
    """The logits of all positions of a row, then those of the targets."""
    import mlx.core as mx

    found = []
    for ids, targets in rows:
        logits = model(mx.array([ids[:-1]]))[0]
        logs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        said = mx.take_along_axis(logs, mx.array(ids[1:])[:, None], axis=-1)[:, 0]
        found.append(float(mx.sum(said * mx.array(targets[1:])).item()))
    return found


def padded_batches(model: Any, rows: list[tuple[list[int], list[bool]]]) -> list[float]:
    """Batches of 16 rows of like length, padded."""
    import mlx.core as mx

    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    found = [0.0] * len(rows)
    for start in range(0, len(order), 16):
        part = order[start : start + 16]
        longest = max(len(rows[i][0]) for i in part)
        ids = np.zeros((len(part), longest), np.int32)
        mask = np.zeros((len(part), longest), np.float32)
        for k, i in enumerate(part):
            ids[k, : len(rows[i][0])], mask[k, : len(rows[i][0])] = rows[i]
        logits = model(mx.array(ids[:, :-1]))
        logs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        said = mx.take_along_axis(logs, mx.array(ids[:, 1:])[..., None], axis=-1)[..., 0]
        for i, total in zip(part, mx.sum(said * mx.array(mask[:, 1:]), axis=-1).tolist(), strict=True):
            found[i] = total
    return found


def llama_eval(model: Any, rows: list[tuple[list[int], list[bool]]]) -> list[float]:
    """Llama(logits_all=True).eval and its scores."""
    found = []
    for ids, targets in rows:
        model.reset()
        model.eval(ids[:-1])
        logits = model.scores[: len(ids) - 1]
        highest = logits.max(-1)
        normaliser = np.log(np.exp(logits - highest[:, None]).sum(-1)) + highest
        said = logits[np.arange(len(ids) - 1), ids[1:]] - normaliser
        found.append(float(said[np.array(targets[1:])].sum()))
    return found


def main(side: str, folder: Path, threads: int) -> dict[str, Any]:
    what, how = side.split(":")
    shared = SHARED if what.endswith("shared") else 0
    asked, rows = workload.prompts(PROMPTS, shared), workload.rows(ROWS)
    scored = sum(sum(targets) for _, targets in rows)
    if how.startswith("llama"):
        kind = "q8_0" if "q8" in what else "f32"
        if how == "llama-eval":
            from llama_cpp import Llama

            path = str(folder / f"{kind}.gguf")
            model = Llama(path, n_ctx=1024, n_threads=threads, n_threads_batch=threads, logits_all=True, verbose=False)
        else:
            model = llama(folder, threads, kind)
        ways: dict[str, Callable[[], Any]] = {
            "llama-ours": lambda: batched(language_model.generate, model, asked),
            "llama-own": lambda: llama_cpp_python(model, asked),
            "llama-score": lambda: list(language_model.loglikelihoods(model, rows)),
            "llama-eval": lambda: llama_eval(model, rows),
        }
    else:
        from snaketune.engines.mlx import language_model  # type: ignore[assignment]

        if how == "unshared":
            from snaketune.engines import decoding

            decoding.MIN_SHARED_PREFIX = 10**9
        model = mlx(folder)
        ways = {
            "ours": lambda: batched(language_model.generate, model, asked),
            "unshared": lambda: batched(language_model.generate, model, asked),
            "one-by-one": lambda: one_by_one(model, asked),
            "score": lambda: list(language_model.loglikelihoods(model, rows)),
            "whole": lambda: whole_logits(model, rows),
            "padded": lambda: padded_batches(model, rows),
        }
    cpu, wall = time.process_time(), time.perf_counter()
    result = ways[how]()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    tokens = scored if what.startswith("score") else sum(map(len, result))
    return {"tokens": tokens, "cpu": cpu, "wall": wall, "result": result}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
