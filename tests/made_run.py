"""A run's folder as the stages leave it, made without a model: for the tests of the report.

Scores, comparison and selection come from the library's own code; answers, curves and measurements are invented.
"""

from __future__ import annotations

import functools
import json
import math
import random
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from snaketune.config.schema import canonical, complete
from snaketune.evaluate import compare, selection, step_config
from snaketune.evaluate import score as scoring
from snaketune.files import write_json, write_jsonl, write_text

HOSTILE = (
    "<script>document.title='owned'</script> </style></script><img src=x onerror=\"document.title='owned'\"> "
    "{{ 7*7 }} {% raw %} ]]> <!-- \u202eevil\u202c \u200f\u2067שלום\u2069 &amp; ' \" $x^2$ \x00\x07"
)
WORDS = "river stone morning letter window garden winter bridge paper lantern harbor copper".split()


def make_run(
    folder: Path,
    *,
    rows: int = 40,
    seed: int = 1,
    gain: float = 0.8,
    experiments: tuple[str, ...] = ("default",),
    artefacts: tuple[str, ...] = ("base", "prompted", "adapter", "gguf-q8_0"),
    compared: bool = True,
    more: dict[str, Any] | None = None,
    hostile: bool = False,
    text_rows: bool = False,
    sources: tuple[str, ...] = ("data/demo.jsonl",),
    first_row: int = 0,
) -> Path:
    """Write a complete run and return its folder.

    gain: share of rows that the tuned model answers rightly; more: sections of the configuration.
    """
    rng = random.Random(seed)
    said = HOSTILE if hostile else ""
    config = _config(folder.name, seed, more or {})
    write_json(folder / "config.json", config)
    records = [_record(i, said, text_rows) for i in range(first_row, first_row + rows)]
    write_jsonl(folder / "data/test.jsonl", records)
    _data(folder, rows, said)
    _plan_and_pilot(folder, said)
    for number, name in enumerate(experiments):
        _training(folder, name, number)
    summaries = {name: selection.read_summary(folder / f"train/{name}/summary.json") for name in experiments}
    chosen = msgspec.to_builtins(selection.select(summaries, 0.001))
    for number, entry in enumerate(sorted(chosen["experiments"], key=lambda it: experiments.index(it["experiment"]))):
        entry["settings"] = {"rank": 8 + number, "note": said} if len(experiments) > 1 else {}
    write_json(folder / "train/selection.json", chosen)
    _model(folder, config)
    for name in artefacts:
        lines = [_prediction(record, name, gain, rng) for record in records]
        write_jsonl(folder / f"evaluation/{name}/predictions.jsonl", lines)
        general = [_general(i, name, rng) for i in range(12)]
        write_jsonl(folder / f"evaluation/{name}/general.jsonl", general)
    _scores(folder, artefacts, config, compared)
    _provenance(folder, config, sources)
    return folder


def _config(name: str, seed: int, more: dict[str, Any]) -> dict[str, Any]:
    return complete(
        {"run": name, "seed": seed, "package": {"gguf": ["q8_0"]}, "train": {"rank": 8, "alpha": 16}} | more
    )


def _record(number: int, said: str, text_rows: bool) -> dict[str, Any]:
    words = " ".join(random.Random(number).sample(WORDS, 4))
    record: dict[str, Any] = {"id": f"row-{number:03d}", "source": "data/demo.jsonl", "line": number + 1}
    if text_rows:
        return record | {"text": f"{words}. {said}"}
    turns = [
        {"role": "user", "content": f"Write these in capitals: {words} {said}"},
        {"role": "assistant", "content": words.upper()},
    ]
    return record | {"messages": turns, "category": ["short", "long"][number % 2]}


def _prediction(record: dict[str, Any], artefact: str, gain: float, rng: random.Random) -> dict[str, Any]:
    right_share = {"base": 0.05, "prompted": 0.15}.get(artefact, gain)
    per_token = {"base": -1.9, "prompted": -1.6}.get(artefact, -1.9 + 1.6 * gain) + rng.gauss(0, 0.15)
    if "text" in record:
        text = record["text"]
        return {
            "id": record["id"],
            "prompt": "",
            "reference": text,
            "logprob": per_token * 12,
            "targets": 12,
            "bytes": len(text.encode()),
        }
    question, reference = (turn["content"] for turn in record["messages"])
    right = rng.random() < right_share
    answer = reference if right else " ".join(reference.split()[: rng.randint(0, 3)]) + " something else"
    if "script" in question:
        answer += HOSTILE
    return {
        "id": record["id"],
        "prompt": question,
        "reference": reference,
        "answer": answer,
        "category": record["category"],
        "logprob": per_token * 12,
        "targets": 12,
        "bytes": len(reference.encode()),
        "new_tokens": len(answer.split()),
        "stopped": right or rng.random() < 0.5,
    }


def _general(number: int, artefact: str, rng: random.Random) -> dict[str, Any]:
    """A plain text of the general set, of which the tuned model has forgotten a little."""
    text = " ".join(random.Random(1000 + number).sample(WORDS, 8))
    per_token = -2.0 + (0 if artefact in ("base", "prompted") else -0.1) + rng.gauss(0, 0.01)
    line = {"id": f"general-{number}", "prompt": "", "reference": text, "logprob": per_token * 16, "targets": 16}
    return line | {"bytes": len(text.encode())}


def _scores(folder: Path, artefacts: tuple[str, ...], config: dict[str, Any], compared: bool) -> None:
    """The library's own scores and comparison; equal answers are scored once for all tests."""
    evaluation = folder / "evaluation"
    texts = tuple(
        (evaluation / name / file).read_text(encoding="utf-8")
        for name in artefacts
        for file in ("predictions.jsonl", "general.jsonl")
    )
    made = _evaluated(artefacts, texts, canonical(config))
    for name in artefacts:
        write_text(evaluation / name / "scores.json", made[name])
    if compared:
        write_text(evaluation / "comparison.json", made["comparison"])


@functools.lru_cache(maxsize=64)
def _evaluated(artefacts: tuple[str, ...], texts: tuple[str, ...], config: str) -> dict[str, str]:
    given = json.loads(config)
    with tempfile.TemporaryDirectory() as folder:
        predictions = [Path(folder, name, "predictions.jsonl") for name in artefacts]
        scores = [Path(folder, name, "scores.json") for name in artefacts]
        general = [Path(folder, name, "general.jsonl") for name in artefacts]
        for path, score, other, text, more in zip(predictions, scores, general, texts[::2], texts[1::2], strict=True):
            write_text(path, text)
            write_text(other, more)
            scoring.run(predictions=path, scores=score, config=step_config.scoring(given))
        comparison = Path(folder, "comparison.json")
        compare.run(
            predictions=predictions,
            scores=scores,
            general=general,
            comparison=comparison,
            config=step_config.comparing(given),
        )
        found = {name: path.read_text(encoding="utf-8") for name, path in zip(artefacts, scores, strict=True)}
        return found | {"comparison": comparison.read_text(encoding="utf-8")}


def _data(folder: Path, rows: int, said: str) -> None:
    write_json(
        folder / "data/report.json",
        {
            "read": 520,
            "kept": 500,
            "rejected": 12,
            "duplicates": 6,
            "near_duplicates": 2,
            "reasons": {"empty": 7, "invalid-json": 5},
            "examples": {"empty": ["data/demo.jsonl:3: the answer is empty"]},
            "sources": [_source("data/demo.jsonl", 500), _source(f"data/odd {said}.jsonl", 20)],
            "near_duplicate_examples": [["data/demo.jsonl:90", "data/demo.jsonl:12"]],
            "same_prompt": {"prompts": 1, "rows": 2, "examples": ["data/demo.jsonl:7", "data/demo.jsonl:8"]},
            "clusters": {"count": 12, "rows": 31, "largest": 5},
            "groups": 0,
            "categories": {"short": 250, f"long {said}": 250},
            "characters": {
                "asked": {"unit": "characters", "bounds": [0, 16, 32, 64], "counts": [10, 300, 180, 10], "median": 30},
                "answered": {"unit": "characters", "bounds": [0, 16, 32], "counts": [100, 300, 100], "median": 22},
            },
            "shortest": ["data/demo.jsonl:40"],
            "longest": ["data/demo.jsonl:41"],
            "advice": ["500 usable rows are enough for a task; domain knowledge wants 1,000 or more."],
        },
    )
    write_jsonl(
        folder / "data/rejected.jsonl",
        [
            {
                "source": "data/demo.jsonl",
                "line": 3 + i,
                "reason": "empty" if i < 7 else "invalid-json",
                "detail": "the answer is empty",
                "row": f'{{"prompt": "a {said}", "response": ""}}',
            }
            for i in range(12)
        ],
    )
    write_json(
        folder / "data/split.json",
        {
            "rows": {"train": 500 - 2 * rows, "valid": rows, "test": rows},
            "shares": {"train": 0.8, "valid": 0.1, "test": 0.1},
            "seed": 1,
            "clusters": 12,
            "declared": 0,
        },
    )
    write_json(
        folder / "data/leaks.json",
        {
            "pairs": 0,
            "rows": {"train": 80, "valid": 10, "test": 10},
            "affected": {"train": 0, "valid": 0, "test": 0},
            "by": {},
            "action": "fail",
            "listed": [],
        },
    )
    write_json(
        folder / "data/tokens/demo/tokens.json",
        {
            "splits": {"train": {"rows": 420, "kept": 418, "cut": 1, "dropped": 1}},
            "verdicts": [
                {
                    "id": "row-900",
                    "source": "data/demo.jsonl",
                    "line": 901,
                    "action": "drop",
                    "reason": "special-token",
                    "detail": f"it contains <s> {said}",
                    "tokens": 0,
                }
            ],
        },
    )


def _source(name: str, rows: int) -> dict[str, Any]:
    return {"source": name, "read": rows, "kept": rows, "rejected": 0, "duplicates": 0, "near_duplicates": 0}


def _plan_and_pilot(folder: Path, said: str) -> None:
    write_json(
        folder / "plan.json",
        {
            "machine": {"usable_memory": 6_400_000_000, "memory_source": "80 % of the memory"},
            "rows": {"train": 420},
            "experiments": {
                "main": {
                    "steps": 75,
                    "rows_per_step": 16,
                    "rows_seen": 1260,
                    "times_each_row_is_seen": 3.0,
                    "num_target_tokens": 22500,
                    "parameters": 1_000_000,
                    "trainable_parameters": 41_000,
                    "memory": {"weights": 4_000_000, "activations": 380_000_000, "total": 430_000_000},
                    "warnings": ["75 steps are few: lower train.gradient_accumulation_steps, or raise train.epochs"],
                }
            },
            "disk": {"total": 2_100_000_000, "base": 4_000_000},
        },
    )
    write_json(
        folder / "pilot/decision.json",
        {
            "decision": "go",
            "reasons": [],
            "criteria": [
                _criterion("finite", 0, 0, "pass", "every loss and gradient norm was finite"),
                _criterion("loss fell", 0.81, 0.1, "pass", "training loss went from 1.900 to 1.090"),
                _criterion("score not worse than base", None, None, "unknown", "4 scored answers are too few to tell"),
            ],
            "forecast": {
                "hours": 0.0201,
                "hours_low": 0.017,
                "hours_high": 0.024,
                "seconds": {"train": 30.0, "package": 12.0, "evaluate": 30.0},
                "memory_bytes": 430_000_000,
                "pilot_memory_bytes": 400_000_000,
                "disk_bytes": 2_100_000_000,
                "validation_loss": 0.8,
                "validation_loss_low": 0.7,
                "validation_loss_high": 1.1,
            },
            "piloted": {"experiment": "main", "of": 1},
            "likely_cause": None,
            "learning_curve": {
                "points": [{"rows": 50, "validation_loss": 1.4}, {"rows": 100, "validation_loss": 1.2}],
                "per_doubling": 0.2,
                "more_data_helps": "likely",
                "message": "each doubling of the rows lowered the validation loss by 0.200: more data is likely",
            },
            "overridden": False,
            "sample": [{"prompt": f"Write this {said}", "reference": "THIS", "base": "this", "pilot": "THIS"}],
        },
    )
    for step, seconds in (("fuse_adapter", 2.5), ("quantize_gguf-q8_0", 4.5), ("generate_answers-base", 21.0)):
        write_text(folder / f"benchmarks/{step}.tsv", f"s\th:m:s\tmax_rss\n{seconds}\t0:00:02\t312.5\n")


def _criterion(name: str, value: float | None, threshold: float | None, result: str, message: str) -> dict[str, Any]:
    return {"name": name, "value": value, "threshold": threshold, "result": result, "message": message}


def _training(folder: Path, name: str, number: int) -> None:
    lines: list[dict[str, Any]] = [{"update": 0, "validation_loss": 1.95}]
    for update in range(1, 76):
        loss = 1.9 * math.exp(-update / 30) + 0.5 + 0.02 * number
        lines.append(
            {
                "update": update,
                "epoch": update / 25,
                "loss": loss,
                "learning_rate": 0.005 * (1 - update / 80),
                "gradient_norm": 1.0 / (1 + update / 20),
                "trained_tokens": update * 300,
                "padding": 0.03,
            }
        )
        if update % 25 == 0:
            lines.append({"update": update, "validation_loss": loss + 0.1})
    write_jsonl(folder / f"train/{name}/metrics.jsonl", lines)
    write_json(
        folder / f"train/{name}/summary.json",
        {
            "updates": 75,
            "rows_seen": 1260,
            "trained_tokens": 22500,
            "epochs": 3.0,
            "base_validation_loss": 1.95,
            "best_validation_loss": lines[-1]["validation_loss"],
            "best_update": 75,
            "validation_tokens": 900,
            "stopped": "completed",
            "trainable_parameters": 41_000,
            "total_parameters": 1_041_000,
        },
    )
    write_json(folder / f"train/{name}/adapter_config.json", {"lora_parameters": {"rank": 8 + number, "scale": 2.0}})
    write_json(
        folder / f"train/{name}/timing.json",
        {"seconds": 28.4, "tokens_per_second": 792.0, "peak_memory_bytes": 412_000_000, "cpu_seconds": 51.0},
    )


def _model(folder: Path, config: dict[str, Any]) -> None:
    write_json(folder / "model/fused.json", {"folder": "model/fused", "files": {}, "base": "demo"})
    for kind in config["package"]["gguf"]:
        write_text(folder / f"model/{folder.name}-{kind}.gguf", "not really a model")
    made = f"# ollama create snaketune:{folder.name} -f {folder.as_posix()}/model/Modelfile"
    write_text(folder / "model/Modelfile", f"{made}\nFROM ./{folder.name}-q8_0.gguf\n")
    write_text(folder / "model/README.md", "# card\n")
    write_json(folder / "model/fidelity.json", _fidelity())
    served = {
        "passed": True,
        "message": "it served 16 answers",
        "prompts": 8,
        "same_sequential": 8,
        "same_concurrent": 7,
    }
    write_json(folder / "model/served.json", {"file": f"{folder.name}-q8_0.gguf", **served})
    times = {"first_token_seconds": 0.04, "p50_seconds": 0.31, "p95_seconds": 0.52, "tokens_per_second": 148.2}
    both = {"sequential": times, "concurrent": times | {"tokens_per_second": 391.0}}
    write_json(folder / "model/timing.json", {"load_seconds": 1.4, "memory_bytes": 98_000_000, **both})


def _fidelity() -> dict[str, Any]:
    far = {"max_dlogp": 0.004, "mean_dlogp": 0.0003, "kl": 1e-6, "top1": 0.9991, "positions": 2048, "not_finite": 0}
    tokens = {"texts": 60, "differences": 0, "examples": []}
    return {
        "rows": 40,
        "prompts": 20,
        "answer_tokens": 480,
        "variants": {
            "base": {"answer_logprob": -912.0},
            "adapter": {"answer_logprob": -298.0},
            "fused": {
                "answer_logprob": -298.1,
                "baseline": "adapter",
                **far,
                "greedy_same": 20,
                "greedy_total": 20,
                "divergence_margin": None,
            },
            "gguf-q8_0": {
                "bytes": 1_180_000,
                "tensor_types": {"Q8_0": 30, "F32": 11},
                "tokens": tokens,
                "answer_logprob": -299.9,
                "baseline": "fused",
                **far,
                "max_dlogp": 0.21,
                "greedy_same": 19,
                "greedy_total": 20,
                "greedy_as_adapter": 18,
                "divergence_margin": 0.0123,
            },
        },
        "checks": [
            {
                "check": "numbers",
                "variant": "fused",
                "value": 0.004,
                "limit": 0.05,
                "passed": True,
                "message": "the largest difference of a log-probability to adapter is 0.0040",
            },
            {
                "check": "gain",
                "variant": "gguf-q8_0",
                "value": 0.997,
                "limit": 0.9,
                "passed": True,
                "message": "99.7 % of the adapter's gain of 1.279 nats a token is kept",
            },
        ],
        "passed": True,
    }


def _provenance(folder: Path, config: dict[str, Any], sources: tuple[str, ...]) -> None:
    write_json(
        folder / "run.json",
        {
            "run": config["run"],
            "seed": config["seed"],
            "config_sha256": "c" * 64,
            "code": {"commit": "1" * 40, "changed": False, "digest": "d" * 64},
            "sources": [{"path": path, "bytes": 61_000, "sha256": "a" * 64} for path in sources],
            "model": {"base": "demo", "revision": None, "files": {}, "template_sha256": "e" * 64},
            "products": [],
            "llama_cpp": {"binding": "0.3.36", "converter": None, "converter_sha256": "f" * 64},
            "versions": {"python": "3.11.2", "mlx": "0.32.4"},
            "platform": {"system": "Linux", "architecture": "x86_64", "cores": 2, "memory_bytes": 8_000_000_000},
        },
    )
