"""A run's folder as the stages leave it, made without running them: for the tests of the report."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

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
    hostile: bool = False,
    text_rows: bool = False,
    sources: tuple[str, ...] = ("data/demo.jsonl",),
    first_row: int = 0,
) -> Path:
    """Write a complete run; gain: share of rows that the tuned model answers rightly; returns its folder."""
    rng = random.Random(seed)
    said = HOSTILE if hostile else ""
    config = _config(folder.name, seed)
    write_json(folder / "config.json", config)
    records = [_record(i, said, text_rows) for i in range(first_row, first_row + rows)]
    write_jsonl(folder / "data/test.jsonl", records)
    _data(folder, rows, said)
    _plan_and_pilot(folder)
    for number, name in enumerate(experiments):
        _training(folder, name, number)
    write_json(
        folder / "train/selection.json",
        {"experiment": experiments[0], "reasons": [f"{experiments[0]} has the lowest validation loss, 1.412"]},
    )
    _model(folder, config)
    for name in artefacts:
        lines = [_prediction(record, name, gain, rng) for record in records]
        write_jsonl(folder / f"evaluation/{name}/predictions.jsonl", lines)
        write_json(folder / f"evaluation/{name}/scores.json", _scores(lines))
    _provenance(folder, config, sources)
    return folder


def _config(name: str, seed: int) -> dict[str, Any]:
    return {
        "run": name,
        "seed": seed,
        "compare_with": None,
        "model": {"base": "demo", "revision": "main", "template": None},
        "data": {"sources": [{"path": "data/demo.jsonl"}], "max_length": 128},
        "pilot": {"rows": 100, "on_no_go": "stop", "max_hours": 10},
        "train": {"method": "lora", "rank": 8, "alpha": 16, "epochs": 3, "learning_rate": 0.005},
        "package": {"gguf": ["q8_0"], "ollama": {"temperature": 0.8, "top_p": 0.9}},
        "evaluate": {"max_rows": 200, "max_new_tokens": 64},
    }


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
        "prompt": f"<s>[INST] {question} [/INST]",
        "reference": reference,
        "answer": answer,
        "category": record["category"],
        "logprob": per_token * 12,
        "targets": 12,
        "bytes": len(reference.encode()),
        "new_tokens": len(answer.split()),
        "stopped": right or rng.random() < 0.5,
    }


def _scores(lines: list[dict[str, Any]]) -> dict[str, Any]:
    each = [-line["logprob"] / line["targets"] for line in lines]
    mean = sum(each) / len(each)
    margin = 1.96 * math.sqrt(sum((x - mean) ** 2 for x in each) / len(each) / len(each))
    metrics = {
        "perplexity": _interval(*(math.exp(mean + by) for by in (0, -margin, margin))),
        "bits_per_byte": _interval(*((mean + by) * 12 / 30 / math.log(2) for by in (0, -margin, margin))),
    }
    if "answer" in lines[0]:
        exact = sum(line["answer"] == line["reference"] for line in lines) / len(lines)
        spread = 1.96 * math.sqrt(exact * (1 - exact) / len(lines))
        metrics["exact_match"] = _interval(exact, max(0, exact - spread), min(1, exact + spread))
        metrics["chrf"] = _interval(100 * exact, max(0, 100 * (exact - spread)), min(100, 100 * (exact + spread)))
    return {"rows": len(lines), "metrics": metrics}


def _interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


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
    write_json(folder / "data/split.json", {"train": 500 - 2 * rows, "valid": rows, "test": rows})
    write_json(folder / "data/leaks.json", {"passed": True, "pairs": []})


def _plan_and_pilot(folder: Path) -> None:
    write_json(folder / "plan.json", {"warnings": ["each row is seen 3 times"], "updates": 75})
    criteria = [
        {"name": "loss fell", "value": 0.81, "threshold": 0, "passed": True},
        {"name": "validation better than base", "value": 0.6, "threshold": 0, "passed": True},
    ]
    write_json(
        folder / "pilot/decision.json",
        {
            "decision": "go",
            "reasons": ["every criterion was met"],
            "criteria": criteria,
            "forecast": {"seconds": {"value": 30.0, "low": 24.0, "high": 37.0}},
        },
    )


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
            "stopped": "all updates done",
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
    write_text(folder / "model/Modelfile", f"FROM ./{folder.name}-q8_0.gguf\n")
    write_text(folder / "model/README.md", "# card\n")
    write_json(folder / "model/fidelity.json", {"passed": True, "steps": []})


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
