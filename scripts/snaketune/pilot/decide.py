"""From a pilot to a decision: what was measured, held against the criteria, and what the full run would cost."""

from __future__ import annotations

import sys
import time as clock
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snaketune.evaluate.metrics import CHRF
from snaketune.evaluate.sampling import Sampling
from snaketune.files import StrPath, read_json, read_jsonl, write_json
from snaketune.mlx_engine import generation, loading, scoring
from snaketune.mlx_engine.adapter_size import relative_size
from snaketune.model.rendering import Renderer
from snaketune.model.store import TokenStore
from snaketune.pilot import binding, criteria, learning_curve
from snaketune.plan import time
from snaketune.train import subset
from snaketune.train.batches import Visits

SCORED_ROWS = 128  # validation rows whose probabilities are compared
METRIC = "chrF++"
ARTEFACTS = 4  # that are evaluated by default: base, prompted, adapter, the first GGUF


def run(
    *,
    summary: StrPath,
    metrics: StrPath,
    adapter: StrPath,
    model: StrPath,
    train: StrPath,
    valid: StrPath,
    plan: StrPath,
    curve: Sequence[StrPath],
    config: dict[str, Any],
    decision: StrPath,
) -> dict[str, Any]:
    """Write decision.json and return it. The pilot's timing.json and timing.jsonl lie beside its summary.

    config: {"pilot", "train", "model", "evaluate", "package", "seed"}. Never raises for a no-go.
    curve: the summaries of trainings on shares of the pilot's rows, if there are any.
    """
    planned, report = read_json(plan), read_json(summary)
    lines = list(read_jsonl(metrics))
    timing = read_json(Path(summary).with_name("timing.json"))
    updates = list(read_jsonl(Path(summary).with_name("timing.jsonl")))
    rows, full = TokenStore(train), next(iter(planned["experiments"].values()))
    evidence = compare(model, Path(adapter).parent, TokenStore(valid), config)
    forecast = forecast_of(config, planned, full, rows, timing, updates, evidence)
    expected = learning_curve.expected_loss(lines, report["best_validation_loss"], report["updates"], full["updates"])
    forecast |= expected or {}
    seed = config["seed"]
    found = [
        criteria.finite(lines),
        criteria.loss_fell(lines),
        criteria.validation_gain(evidence["base"], evidence["pilot"], evidence["targets"], seed),
        criteria.adapter_size(evidence["adapter_size"]),
        criteria.bound(evidence["own"], evidence["other"], evidence["bound_targets"], seed),
        criteria.score(evidence["base_scores"], evidence["pilot_scores"], METRIC, seed),
        criteria.memory(forecast["memory_bytes"], full["usable_memory"]),
        criteria.time(forecast["hours"], forecast["hours_high"], config["pilot"]["max_hours"]),
    ]
    failed = [one for one in found if one.verdict == "fail"]
    result = {
        "decision": "no-go" if failed else "go",
        "reasons": [f"{one.name}: {one.says}" for one in failed],
        "likely_cause": criteria.likely_cause(found, report["best_update"]),
        "criteria": [one.record() for one in found],
        "forecast": forecast,
        "learning_curve": curve_of([*map(read_json, curve), report]) if curve else None,
        "overridden": bool(failed) and config["pilot"]["on_no_go"] == "continue",
        "sample": evidence["sample"],
    }
    write_json(decision, result)
    if not failed:  # a no-go is told by the gate
        print(f"snaketune: the pilot's decision is go\n{criteria.table(result['criteria'])}", file=sys.stderr)
    return result


def curve_of(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether more data would help, from the summaries of the parts and of the whole pilot."""
    return learning_curve.judge([(one["rows"], one["best_validation_loss"]) for one in summaries])


def compare(model: StrPath, adapter: Path, valid: TokenStore, config: dict[str, Any]) -> dict[str, Any]:
    """What base and pilot make of the same validation rows: probabilities, binding, and a scored sample of answers."""
    manifest = read_json(model)
    chosen = subset.first(valid, SCORED_ROWS, config["seed"])
    rows = [_plain(valid.row(int(row))) for row in chosen]
    swaps = binding.exchanges(valid, chosen, config["seed"])
    asked = chosen[: config["pilot"]["sample"]]
    renderer = Renderer(manifest["folder"], config["model"]["template"])
    pairs = [pair for row in asked if (pair := binding.question_and_answer(valid, int(row))) is not None]
    limit = config["evaluate"]["max_new_tokens"]

    dtype = config["model"]["dtype"]
    base_model = loading.load(manifest["folder"], dtype=dtype).model
    base = list(scoring.log_probabilities(base_model, rows))
    base_answers, _ = _answers(base_model, pairs, limit, renderer)
    del base_model
    pilot_model = loading.load(manifest["folder"], dtype=dtype, adapter=adapter).model
    pilot = list(scoring.log_probabilities(pilot_model, rows))
    own = list(scoring.log_probabilities(pilot_model, [_plain(swap.own) for swap in swaps]))
    other = list(scoring.log_probabilities(pilot_model, [_plain(swap.other) for swap in swaps]))
    pilot_answers, seconds = _answers(pilot_model, pairs, limit, renderer)
    references = [renderer.decode(answer.tolist()) for _, answer in pairs]
    return {
        "base": np.array(base),
        "pilot": np.array(pilot),
        "adapter_size": relative_size(pilot_model),
        "targets": valid.targets[chosen],
        "own": np.array(own),
        "other": np.array(other),
        "bound_targets": np.array([swap.targets for swap in swaps]),
        "base_scores": _scores(base_answers, references),
        "pilot_scores": _scores(pilot_answers, references),
        "seconds_per_answer": seconds,
        "sample": [
            {"prompt": renderer.decode(question.tolist()), "reference": reference, "base": before, "pilot": after}
            for (question, _), reference, before, after in zip(
                pairs, references, base_answers, pilot_answers, strict=True
            )
        ],
    }


def _plain(row: binding.Row) -> tuple[list[int], list[bool]]:
    return row[0].tolist(), row[1].tolist()


def _answers(model: Any, pairs: list[Any], limit: int, renderer: Renderer) -> tuple[list[str], float]:
    """Greedy answers to the questions, and the seconds that one took. None may be far longer than its reference."""
    if not pairs:
        return [], 0.0
    prompts = [question.tolist() for question, _ in pairs]
    limits = [min(limit, 2 * len(answer) + 8) for _, answer in pairs]
    said = [""] * len(pairs)
    started = clock.monotonic()
    for number, ids, _ in generation.answers(model, prompts, limits, renderer.stop_ids, Sampling(), [0] * len(prompts)):
        said[number] = renderer.decode(ids)
    return said, (clock.monotonic() - started) / len(pairs)


def _scores(answers: list[str], references: list[str]) -> np.ndarray:
    """chrF++ (0 to 100) of each answer."""
    return np.array(
        [CHRF.sentence_score(answer, [reference]).score for answer, reference in zip(answers, references, strict=True)]
    )


def forecast_of(
    config: dict[str, Any],
    planned: dict[str, Any],
    full: dict[str, Any],
    rows: TokenStore,
    timing: dict[str, Any],
    updates: list[dict[str, Any]],
    evidence: dict[str, Any],
) -> dict[str, Any]:
    """What the full run would cost: hours by stage with a range, memory and disk."""
    settings = config["train"]
    per_update = settings["batch_size"] * settings["accumulation"]
    chosen = subset.first(rows, config["pilot"]["rows"], config["seed"])
    pilot_visits = Visits(
        rows.lengths[chosen],
        rows.weights[chosen],
        rows_per_update=per_update,
        seed=config["seed"],
        epochs=1,
        updates=config["pilot"]["updates"],
    )
    read = [int((rows.lengths[chosen[pilot_visits.rows(n)]] - 1).sum()) for n in range(1, pilot_visits.updates + 1)]
    speed = time.measured(timing, updates, read)
    tokens = full["rows_seen"] * float((rows.lengths - 1).mean())
    stages = {
        "train": time.training_seconds(speed, tokens, full["updates"], settings["validate_every"]),
        "package": time.packaging_seconds(full["parameters"], config["package"]["gguf"]),
        "evaluate": time.evaluation_seconds(config["evaluate"]["max_rows"], ARTEFACTS, evidence["seconds_per_answer"]),
    }
    total = sum(stages.values()) / criteria.HOUR
    peak = max([timing["peak_memory_bytes"], *(line["peak_memory_bytes"] for line in updates)])
    return {
        "hours": round(total, 4),
        "hours_low": round(total * (1 - min(1.0, speed.share)), 4),
        "hours_high": round(total * (1 + speed.share), 4),
        "seconds": {stage: round(seconds, 1) for stage, seconds in stages.items()},
        "memory_bytes": max(peak, full["memory"]["total"]),
        "pilot_memory_bytes": peak,
        "disk_bytes": planned["disk"]["total"],
    }
