"""The proof that the files handed over are the model that was trained.

Adapter, fused model and every GGUF read the same conversations: tokens, distributions over the vocabulary, greedy
answers and the log-probability of the reference answers are compared along the chain, all in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snaketune import files
from snaketune.errors import PackageError
from snaketune.evaluate.sampling import Sampling
from snaketune.files import StrPath
from snaketune.model.base import read_manifest
from snaketune.model.rendering import Renderer
from snaketune.package import gguf_file, parity, verdicts
from snaketune.package.asking import Reading, Sample, compare, in_order, read, sample

GREEDY = Sampling()


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
        count = len(prompts)
        return in_order(generation.answers(model, prompts, [limit] * count, renderer.stop_ids, GREEDY, [0] * count))

    return read(lambda ids, places: logits.distributions(model, ids, places), answers, asked)


def _gguf(
    path: StrPath, name: str, asked: Sample, renderer: Renderer, limit: int, threads: int
) -> tuple[Reading | None, dict[str, Any], list[dict[str, Any]]]:
    from snaketune.llama_engine import generation, loading, logits
    from snaketune.llama_engine.sequence import TokenSequence

    longest = max([1, *map(len, asked.rows), *(len(prompt) + limit for prompt in asked.prompts)])
    try:
        head = gguf_file.read(path)
        llama = loading.open_gguf(path, context=(longest + 255) // 256 * 256, threads=threads, exact=True)
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

    def answers(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        count = len(prompts)
        return in_order(generation.answers(llama, prompts, [limit] * count, renderer.stop_ids, GREEDY, [0] * count))

    try:
        reading = read(lambda ids, places: logits.distributions(sequence, ids, places), answers, asked)
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
