"""From a pilot to a decision: what was measured, held against the criteria, and what the full run would cost."""

from __future__ import annotations

import sys
import time as clock
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snaketune.engines import load_model
from snaketune.engines.interface import GenerationRequest, LanguageModel, LoadOptions, LoglikelihoodRequest
from snaketune.engines.sampling import Sampling
from snaketune.evaluate.metrics import METRICS
from snaketune.files import StrPath, read_json, read_jsonl, write_json
from snaketune.pilot import criteria, dry_run, learning_curve, prompt_dependence
from snaketune.pilot import forecast as outlook
from snaketune.tokens.chat_template import Renderer
from snaketune.tokens.token_store import TokenStore
from snaketune.train import subset

SCORED_ROWS = 128  # validation rows whose probabilities are compared
METRIC = "chrF++"


def run(
    *,
    summary: StrPath,
    metrics: StrPath,
    adapter: StrPath,
    model: StrPath,
    train: StrPath,
    valid: StrPath,
    plan: StrPath,
    tried: StrPath,
    curve: Sequence[StrPath],
    config: dict[str, Any],
    decision: StrPath,
    start: float = 0.0,
) -> dict[str, Any]:
    """Write decision.json and return it. The pilot's timing.json and timing.jsonl lie beside its summary.

    config: {"experiment", "pilot", "train", "model", "evaluate", "artefacts", "package", "threads", "seed"}, where
    `experiment` names the one that the pilot trained, and `train` and `model` are its settings; tried: the dry run's
    report; curve: the summaries of trainings on shares of the pilot's rows, if there are any; start: seconds that this
    process took until here. Never raises for a no-go.
    """
    planned, report = read_json(plan), read_json(summary)
    lines = list(read_jsonl(metrics))
    piloted = config["experiment"]
    full = planned["experiments"][piloted]
    evidence = compare(model, Path(adapter).parent, TokenStore(valid), config)
    evidence["start_seconds"] += start
    converter = read_json(dry_run.timing(tried))["converter_seconds"]
    forecast = outlook.forecast(config, planned, TokenStore(train), summary, converter, evidence)
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
        "piloted": {"experiment": piloted, "of": len(planned["experiments"])},
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
        words = f"the pilot's decision{criteria.tried(result['piloted'])} is go"
        print(f"snaketune: {words}\n{criteria.table(result['criteria'])}", file=sys.stderr)
    return result


def curve_of(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether more data would help, from the summaries of the parts and of the whole pilot."""
    return learning_curve.judge([(one["rows"], one["best_validation_loss"]) for one in summaries])


def compare(model: StrPath, adapter: Path, valid: TokenStore, config: dict[str, Any]) -> dict[str, Any]:
    """What base and pilot make of the same validation rows: probabilities, binding, and a scored sample of answers."""
    manifest = read_json(model)
    chosen = subset.first(valid, SCORED_ROWS, config["seed"])
    rows = [_request(valid.row(int(row))) for row in chosen]
    swaps = prompt_dependence.exchanges(valid, chosen, config["seed"])
    asked = chosen[: config["pilot"]["sample"]]
    renderer = Renderer(manifest["folder"], config["model"]["chat_template"])
    pairs = [pair for row in asked if (pair := prompt_dependence.question_and_answer(valid, int(row))) is not None]
    limit = config["evaluate"]["max_new_tokens"]

    dtype = config["model"]["dtype"]
    before = _of_base(manifest["folder"], dtype, rows, pairs, limit, renderer)
    pilot_model = load_model(manifest["folder"], LoadOptions(dtype=dtype, adapter=adapter))
    pilot = list(pilot_model.loglikelihood(rows))
    own = list(pilot_model.loglikelihood([_request(swap.own) for swap in swaps]))
    other = list(pilot_model.loglikelihood([_request(swap.other) for swap in swaps]))
    pilot_answers, pilot_timing = _answers(pilot_model, pairs, limit, renderer)
    references = [renderer.decode(answer.tolist()) for _, answer in pairs]
    return {
        "base": np.array(before["probabilities"]),
        "pilot": np.array(pilot),
        "adapter_size": pilot_model.relative_update_norm(),
        "targets": valid.targets[chosen],
        "own": np.array(own),
        "other": np.array(other),
        "bound_targets": np.array([swap.targets for swap in swaps]),
        "base_scores": _scores(before["said"], references),
        "pilot_scores": _scores(pilot_answers, references),
        "start_seconds": before["load_seconds"],
        "scoring": before["scoring"],
        "row_tokens": float(np.mean([len(ids) for ids, _ in rows])),
        "base_answers": before["answers"],
        "pilot_answers": pilot_timing,
        "reference_tokens": float(np.mean([len(answer) for _, answer in pairs])) if pairs else 0.0,
        "sample": [
            {"prompt": renderer.decode(question.tolist()), "reference": reference, "base": before, "pilot": after}
            for (question, _), reference, before, after in zip(
                pairs, references, before["said"], pilot_answers, strict=True
            )
        ],
    }


def _of_base(
    folder: StrPath, dtype: str, rows: list[Any], pairs: list[Any], limit: int, renderer: Renderer
) -> dict[str, Any]:
    """What the base makes of the rows, and what that took; it has left the memory when this returns."""
    load_seconds, model = _timed(lambda: load_model(folder, LoadOptions(dtype=dtype)))
    seconds, probabilities = _timed(lambda: list(model.loglikelihood(rows)))
    said, answers = _answers(model, pairs, limit, renderer)
    return {
        "probabilities": probabilities,
        "said": said,
        "answers": answers,
        "load_seconds": load_seconds,
        "scoring": (seconds, sum(len(ids) for ids, _ in rows)),
    }


def _request(row: prompt_dependence.Row) -> LoglikelihoodRequest:
    return LoglikelihoodRequest(row[0].tolist(), row[1].tolist())


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that the work took, and its result."""
    started = clock.monotonic()
    result = work()
    return clock.monotonic() - started, result


def _answers(
    model: LanguageModel, pairs: list[Any], limit: int, renderer: Renderer
) -> tuple[list[str], dict[str, Any]]:
    """Greedy answers to the questions, none far longer than its reference, and what outlook makes a forecast of.

    That is, as (seconds, new tokens) and (seconds, new tokens, steps), the first answer `alone` and all `together`,
    and `tokens_each` that answers would have in the mean, those that did not stop going on to the limit.
    """
    if not pairs:
        return [], {"alone": (0.0, 0), "together": (0.0, 0, 0), "tokens_each": 0.0}
    requests = [GenerationRequest(question.tolist(), min(limit, 2 * len(answer) + 8)) for question, answer in pairs]

    def answered(count: int) -> list[Any]:
        return sorted(model.generate(requests[:count], stop_ids=renderer.stop_ids, sampling=Sampling()))

    together, found = _timed(lambda: answered(len(requests)))
    alone, _ = _timed(lambda: answered(1))
    lengths = [len(ids) + stopped for _, ids, stopped in found]  # the token that stops is generated too
    ends = [length if stopped else limit for length, (_, _, stopped) in zip(lengths, found, strict=True)]
    timing = {
        "alone": (alone, lengths[0]),
        "together": (together, sum(lengths), max(lengths)),
        "tokens_each": float(np.mean(ends)),
    }
    return [renderer.decode(ids) for _, ids, _ in found], timing


def _scores(answers: list[str], references: list[str]) -> np.ndarray:
    """chrF++ (0 to 100) of each answer."""
    pairs = zip(answers, references, strict=True)
    return METRICS["chrf"].row_scores([{"answer": answer, "reference": reference} for answer, reference in pairs])
