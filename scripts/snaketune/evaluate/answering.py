"""A model's answers to the test rows, and how probable it finds theirs: one line a row in predictions.jsonl."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snaketune.errors import EvaluationError
from snaketune.evaluate.items import Item, chosen, items
from snaketune.evaluate.windows import context_of, fitted, pieces
from snaketune.files import StrPath, read_json, read_jsonl, write_jsonl
from snaketune.model.rendering import Renderer

Row = tuple[list[int], list[bool]]


@dataclass(frozen=True)
class Engine:
    """What an evaluation asks of a loaded model: see `log_probabilities` and `answers` of the two engines."""

    log_probabilities: Callable[[Sequence[Row]], Iterator[float]]
    answers: Callable[[Sequence[list[int]], Sequence[int], Set[int]], Iterator[tuple[int, list[int], bool]]]


def run(
    *,
    artefact: str,
    rows: StrPath,
    model: StrPath,
    config: dict[str, Any],
    predictions: StrPath,
    adapter: StrPath | None = None,
    fused: StrPath | None = None,
    gguf: StrPath | None = None,
    threads: int = 1,
) -> None:
    """Answer and score at most `evaluate.max_rows` of the test rows with one artefact.

    artefact: base, adapter, fused or gguf-<type>; model and fused: manifests; config: sections `evaluate` and `model`
    and the seed. Rows and prompts that exceed the context are cut on the left, and their lines say so.
    """
    settings = config["evaluate"]
    folder = Path(read_json(model)["folder"])
    renderer = Renderer(folder, config["model"]["template"])
    context = context_of(folder)
    asked = [
        item
        for record in chosen(list(read_jsonl(rows)), settings["max_rows"], config["seed"])
        for item in items(record, renderer)
    ]
    if not asked:
        raise EvaluationError(
            "there is no test row to answer",
            where=str(rows),
            why="Without one nothing can be measured",
            mend="Give data.split a larger test share, or add rows",
        )
    prompts = {i: fitted(item.prompt, context, settings["max_new_tokens"]) for i, item in _with_prompt(asked)}
    longest = max(
        max(min(len(item.ids), context) for item in asked),
        max((len(ids) + limit for ids, limit, _ in prompts.values()), default=0),
    )
    engine = _engine(artefact, folder, config, adapter, fused, gguf, longest, threads)
    lines = list(_lines(asked, prompts, engine, renderer, context))
    cut = sum(1 for line in lines if line.get("cut"))
    if cut:
        print(
            f"snaketune: {cut} of {len(lines)} prompts were cut on the left to fit a context of {context} tokens",
            file=sys.stderr,
        )
    write_jsonl(predictions, lines)


def _with_prompt(asked: Iterable[Item]) -> Iterator[tuple[int, Any]]:
    return ((i, item) for i, item in enumerate(asked) if item.prompt is not None)


def _lines(
    asked: Sequence[Item],
    prompts: dict[int, tuple[list[int], int, int]],
    engine: Engine,
    renderer: Renderer,
    context: int,
) -> Iterator[dict[str, Any]]:
    """The predictions, in the order of the items."""
    parts = [(i, piece) for i, item in enumerate(asked) for piece in pieces(item.ids, item.targets, context)]
    sums = dict.fromkeys(range(len(asked)), 0.0)
    for (i, _), total in zip(parts, engine.log_probabilities([piece for _, piece in parts]), strict=True):
        sums[i] += total
    numbers = sorted(prompts)
    answered = {}
    wanted = [prompts[i][0] for i in numbers], [prompts[i][1] for i in numbers]
    for place, new, stopped in engine.answers(*wanted, renderer.stop_ids):
        answered[numbers[place]] = new, stopped
    for i, item in enumerate(asked):
        line: dict[str, Any] = {"id": item.id, "prompt": item.shown, "reference": item.reference}
        if item.category is not None:
            line["category"] = item.category
        if i in answered:
            new, stopped = answered[i]
            line |= {"answer": renderer.decode(new), "new_tokens": len(new), "stopped": stopped}
            if prompts[i][2]:
                line["cut"] = prompts[i][2]
        yield line | {
            "logprob": sums[i],
            "targets": sum(item.targets),
            "bytes": len(item.reference.encode("utf-8", "replace")),
        }


def _engine(
    artefact: str,
    folder: Path,
    config: dict[str, Any],
    adapter: StrPath | None,
    fused: StrPath | None,
    gguf: StrPath | None,
    context: int,
    threads: int,
) -> Engine:
    """The artefact, loaded once."""
    if artefact.startswith("gguf"):
        assert gguf is not None
        return _llama_engine(gguf, context, threads)
    if artefact == "fused":
        assert fused is not None
        folder = Path(read_json(fused)["folder"])
    return _mlx_engine(folder, config["model"]["dtype"], adapter if artefact == "adapter" else None)


def _mlx_engine(folder: Path, dtype: str, adapter: StrPath | None) -> Engine:
    from snaketune.mlx_engine import generation, loading, scoring

    model = loading.load(folder, dtype=dtype, adapter=Path(adapter).parent if adapter else None).model
    return Engine(
        lambda rows: scoring.log_probabilities(model, rows),
        lambda prompts, limits, stop_ids: generation.answers(model, prompts, limits, stop_ids),
    )


def _llama_engine(gguf: StrPath, context: int, threads: int) -> Engine:
    from snaketune.llama_engine import generation, loading, scoring

    llama = loading.open_gguf(Path(gguf), context=context, threads=threads)
    return Engine(
        lambda rows: scoring.log_probabilities(llama, rows),
        lambda prompts, limits, stop_ids: generation.answers(llama, prompts, limits, stop_ids),
    )
