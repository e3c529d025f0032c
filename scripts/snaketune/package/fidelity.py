"""The proof that the files handed over are the model that was trained.

Adapter, fused model and every GGUF read the same conversations: tokens, distributions over the vocabulary, greedy
answers and the log-probability of the reference answers are compared along the chain, all in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snaketune import files
from snaketune.errors import PackageError
from snaketune.files import StrPath
from snaketune.model.base import read_manifest
from snaketune.model.rendering import Renderer
from snaketune.package import gguf_file, parity, verdicts
from snaketune.package.comparison import Distance

LONGEST = 512  # tokens of a row that are read
MEMORY = 256 << 20  # bytes of distributions kept to compare with
MOST_PLACES = 2048


@dataclass
class Sample:
    """What every model is asked: rows of ids, the places after which its distribution is wanted, and prompts.

    targets[i] are the positions in rows[i] of the ids to predict, kept[i] those of `places` whose whole distribution
    is compared; a distribution at place p predicts the id at p + 1.
    """

    rows: list[list[int]]
    targets: list[list[int]]
    kept: list[list[int]]
    prompts: list[list[int]]
    texts: list[str]
    conversations: list[list[dict[str, Any]]]

    def answer_tokens(self) -> int:
        return sum(len(targets) for targets in self.targets)


@dataclass
class Reading:
    """What one model said: distributions at the kept places, each row's answer, and the greedy continuations."""

    kept: np.ndarray
    answer_logprob: float
    answers: list[list[int]]


def sample(renderer: Renderer, rows: Sequence[dict[str, Any]], *, count: int, prompts: int, vocabulary: int) -> Sample:
    """Take `count` rows evenly from the test rows, at most LONGEST tokens of each, and the first turns as prompts."""
    chosen = [rows[i * len(rows) // count] for i in range(count)] if len(rows) > count else list(rows)
    rendered = [renderer.record(row) for row in chosen]
    ids = [one.ids[:LONGEST] for one in rendered]
    targets = [[i for i, hit in enumerate(one.trained[:LONGEST]) if hit and i] for one in rendered]
    spoken = [row["messages"] for row in chosen if "messages" in row]
    texts = [renderer.conversation_text(messages) for messages in spoken]
    texts += [row["text"] for row in chosen if "text" in row]
    asked = [renderer.prompt(_question(messages))[-LONGEST:] for messages in spoken[:prompts]]
    return Sample(ids, targets, _kept(ids, vocabulary), asked, texts, spoken)


def _question(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation up to its last answer."""
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    return messages[:last]


def _kept(rows: list[list[int]], vocabulary: int) -> list[list[int]]:
    """Places spread evenly over all rows, as many as MEMORY holds distributions."""
    total = sum(len(row) for row in rows)
    budget = min(MOST_PLACES, max(1, MEMORY // (4 * vocabulary)), total)
    wanted = {i * total // budget for i in range(budget)}
    kept, start = [], 0
    for row in rows:
        kept.append([i for i in range(len(row)) if start + i in wanted])
        start += len(row)
    return kept


def read(
    distributions: Callable[[Sequence[int], Sequence[int]], np.ndarray],
    answers: Callable[[Sequence[Sequence[int]]], list[list[int]]],
    asked: Sample,
) -> Reading:
    """Put the sample to one model, given as two functions."""
    kept, total = [], 0.0
    for ids, targets, places in zip(asked.rows, asked.targets, asked.kept, strict=True):
        before = [target - 1 for target in targets]
        wanted = sorted({*before, *places})
        if not wanted:
            continue
        found = distributions(ids, wanted)
        at = {place: row for row, place in enumerate(wanted)}
        total += float(sum(found[at[place], ids[place + 1]] for place in before))
        kept.append(found[[at[place] for place in places]])
    return Reading(np.concatenate(kept), total, answers(asked.prompts))


def compare(reference: Reading, other: Reading) -> dict[str, Any]:
    """How far `other` is from `reference`: Distance's record and the share of prompts answered alike."""
    distance = Distance()
    distance.add(reference.kept, other.kept)
    same = sum(a == b for a, b in zip(reference.answers, other.answers, strict=True))
    return distance.record() | {"greedy_same": same, "greedy_of": len(reference.answers)}


def run(
    *,
    model: StrPath,
    adapter: StrPath,
    manifest: StrPath,
    ggufs: Sequence[StrPath],
    rows: StrPath,
    config: dict[str, Any],
    fidelity: StrPath,
    threads: int = 1,
) -> None:
    """Measure the chain base, adapter, fused, each GGUF on test rows and write the record with its verdicts.

    config: {"model": {"template"}, "package": {"min_gain_kept", "fidelity": {"rows", "prompts", "max_new_tokens"}}}.
    The first of `ggufs` is the 16-bit one, compared with the fused model; so are the others. A failed check does not
    raise: `require` does, on the written record.
    """
    base, fused = read_manifest(model), read_manifest(manifest)
    settings = config["package"]["fidelity"]
    limit = settings["max_new_tokens"]
    renderer = Renderer(base["folder"], config["model"]["template"])
    asked = sample(
        renderer,
        list(files.read_jsonl(rows)),
        count=settings["rows"],
        prompts=settings["prompts"],
        vocabulary=len(renderer.tokenizer),
    )
    checks: list[dict[str, Any]] = []
    found = {
        "base": _mlx(base["folder"], None, asked, renderer, limit),
        "adapter": _mlx(base["folder"], Path(adapter).parent, asked, renderer, limit),
        "fused": _mlx(fused["folder"], None, asked, renderer, limit),
    }
    against = "adapter"
    if fused["dtype"] == "bfloat16":
        against = "rounded"
        found[against] = _mlx(base["folder"], Path(adapter).parent, asked, renderer, limit, rounded="bfloat16")
    measured: dict[str, dict[str, Any]] = {
        name: {"answer_logprob": round(reading.answer_logprob, 6)} for name, reading in found.items()
    }
    measured["fused"] |= {"against": "adapter"} | compare(found["adapter"], found["fused"])
    checks.append(verdicts.numbers("fused", against, compare(found[against], found["fused"])))
    for path in ggufs:
        name = f"gguf-{gguf_type(path)}"
        reading, facts, verdicts_of_file = _gguf(path, name, asked, renderer, limit, threads)
        checks += verdicts_of_file
        measured[name] = facts
        if reading is None:
            continue
        found[name] = reading
        facts |= {"answer_logprob": round(reading.answer_logprob, 6), "against": "fused"}
        facts |= compare(found["fused"], reading)
        if gguf_type(path) in ("f32", "f16", "bf16"):
            checks.append(verdicts.numbers(name, "fused", facts))
    least = config["package"]["min_gain_kept"]
    sums = {name: reading.answer_logprob for name, reading in found.items()}
    for name in ["fused", *(name for name in found if name.startswith("gguf-"))]:
        checks.append(verdicts.gain_kept(name, sums["base"], sums["adapter"], sums[name], asked.answer_tokens(), least))
    record = {
        "rows": len(asked.rows),
        "prompts": len(asked.prompts),
        "answer_tokens": asked.answer_tokens(),
        "artefacts": measured,
        "checks": checks,
        "passed": all(check["passed"] for check in checks),
    }
    files.write_json(fidelity, record)


def gguf_type(path: StrPath) -> str:
    """The type in a file's name, `<run>-<type>.gguf`."""
    return Path(path).stem.rpartition("-")[2]


def _mlx(
    folder: StrPath, adapter: Path | None, asked: Sample, renderer: Renderer, limit: int, rounded: str | None = None
) -> Reading:
    """What a model of mlx-lm says in float32; rounded: a 16-bit format that its merged weights are rounded to."""
    from snaketune.mlx_engine import generation, loading, logits, merging

    model = loading.load(folder, dtype="float32", adapter=adapter).model
    if rounded:
        merging.merge(model, rounded)

    def answers(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        said = generation.answers(model, prompts, [limit] * len(prompts), renderer.stop_ids)
        return [new for _, new, _ in sorted(said)]

    return read(lambda ids, places: logits.distributions(model, ids, places), answers, asked)


def _gguf(
    path: StrPath, name: str, asked: Sample, renderer: Renderer, limit: int, threads: int
) -> tuple[Reading | None, dict[str, Any], list[dict[str, Any]]]:
    from snaketune.llama_engine import generation, loading, logits
    from snaketune.llama_engine.sequence import TokenSequence

    longest = max([1, *map(len, asked.rows), *(len(prompt) + limit for prompt in asked.prompts)])
    try:
        head = gguf_file.read(path)
        llama = loading.open_gguf(path, context=(longest + 255) // 256 * 256, threads=threads)
    except PackageError as error:
        return None, {"bytes": Path(path).stat().st_size}, [verdicts.loads(name, str(error))]
    facts: dict[str, Any] = {
        "bytes": Path(path).stat().st_size,
        "tensor_types": head.tensor_types(),
        "tokens": parity.token_differences(llama, renderer, [*asked.texts, *parity.probes(renderer)]),
    }
    different = parity.template_differences(head.template(), renderer, asked.conversations)
    checks = [
        verdicts.loads(name, None),
        verdicts.tokens(name, facts["tokens"], parity.begin_token(llama, renderer)),
        verdicts.template(name, different, len(asked.conversations)),
    ]
    sequence = TokenSequence(llama)
    try:
        reading = read(
            lambda ids, places: logits.distributions(sequence, ids, places),
            lambda prompts: [
                new
                for _, new, _ in sorted(generation.answers(llama, prompts, [limit] * len(prompts), renderer.stop_ids))
            ],
            asked,
        )
    finally:
        sequence.close()
        llama.close()
    return reading, facts, checks


def require(fidelity: StrPath) -> str:
    """The gate: a short text for a record that passed; raises PackageError with the failed checks otherwise."""
    record = files.read_json(fidelity)
    failed = [check for check in record["checks"] if not check["passed"]]
    if failed:
        lines = [f"  {check['artefact']}: {check['says']} (allowed: {check['limit']})" for check in failed]
        raise PackageError(
            f"{len(failed)} of {len(record['checks'])} fidelity checks failed; the first step that lost the model "
            f"is {failed[0]['artefact']}",
            where=str(fidelity),
            why="\n".join(["", *lines, ""]),
            mend="docs/packaging.md says what each check means and what to do",
        )
    return f"{len(record['checks'])} fidelity checks passed\n"
