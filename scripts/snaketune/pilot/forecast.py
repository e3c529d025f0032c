"""What the full run would cost, from what the pilot took: hours by stage with a range, memory and disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from snaketune.files import StrPath, read_json, read_jsonl
from snaketune.pilot import criteria
from snaketune.plan import duration
from snaketune.tokens.token_store import TokenStore
from snaketune.train import subset
from snaketune.train.batches import Visits

TUNED = ("adapter", "fused", "gguf", "pilot", "previous")  # artefacts whose answers are about as long as references


def forecast(
    config: dict[str, Any],
    planned: dict[str, Any],
    rows: TokenStore,
    summary: StrPath,
    converter: float,
    sample: dict[str, Any],
) -> dict[str, Any]:
    """The `forecast` of decision.json.

    config: as decide.run has it; planned: plan.json; rows: the training rows; summary: the pilot's, its timing.json and
    timing.jsonl beside it; converter: seconds that llama.cpp's converter took; sample: decide.compare's record.
    """
    timing = read_json(Path(summary).with_name("timing.json"))
    updates = list(read_jsonl(Path(summary).with_name("timing.jsonl")))
    speed = duration.measured(timing, updates, tokens_of_updates(config, rows))
    full = planned["experiments"][config["experiment"]]
    others = [one for name, one in planned["experiments"].items() if name != config["experiment"]]
    start = duration.START_SECONDS + sample["start_seconds"]
    asks = asked(config["evaluate"], planned["rows"]["test"]["rows"])

    def training(one: dict[str, Any]) -> float:
        size = one["parameters"] / full["parameters"]
        return duration.training_seconds(speed, one["read_tokens"], one["validations"], size)

    stages = {
        "train": training(full),
        "other_experiments": sum(training(one) for one in others),
        "package": duration.packaging_seconds(full["parameters"], config["package"]["gguf"], start, converter),
        "evaluate": sum(answering_seconds(artefact, config, sample, start, asks) for artefact in config["artefacts"]),
    }
    at_once = 1 if planned["machine"]["device"] != "cpu" else max(1, (os.cpu_count() or 1) // config["threads"])
    hours = elapsed(stages, len(others), len(config["artefacts"]), at_once) / criteria.HOUR
    peak = max([timing["peak_memory_bytes"], *(line["peak_memory_bytes"] for line in updates)])
    return {
        "hours": round(hours, 4),
        "hours_low": round(hours * (1 - min(1.0, speed.share)), 4),
        "hours_high": round(hours * (1 + speed.share), 4),
        "seconds": {stage: round(seconds, 1) for stage, seconds in stages.items() if seconds},
        "at_once": at_once,
        "memory_bytes": max(peak, full["memory"]["total"]),
        "pilot_memory_bytes": peak,
        "disk_bytes": planned["disk"]["total"],
    }


def tokens_of_updates(config: dict[str, Any], rows: TokenStore) -> list[int]:
    """The tokens that each of the pilot's updates reads."""
    chosen = subset.first(rows, config["pilot"]["rows"], config["seed"])
    visits = Visits(
        rows.lengths[chosen],
        rows.weights[chosen],
        rows_per_update=config["train"]["batch_size"] * config["train"]["gradient_accumulation_steps"],
        seed=config["seed"],
        epochs=1,
        updates=config["pilot"]["max_steps"],
    )
    return [int((rows.lengths[chosen[visits.rows(n)]] - 1).sum()) for n in range(1, visits.updates + 1)]


def answering_seconds(artefact: str, config: dict[str, Any], sample: dict[str, Any], start: float, rows: int) -> float:
    """Of answering and scoring so many rows with one artefact.

    A tuned model's answers are taken to be as long as the references, the base's as long as in the sample, and the
    prompted base's the longer of the two, since it is shown references.
    """
    tuned = artefact.startswith(TUNED)
    seen = sample["pilot_answers" if tuned else "base_answers"]
    speed = duration.answering(start, seen["alone"], seen["together"], sample["scoring"])
    tokens = {"tuned": sample["reference_tokens"], "base": seen["tokens_each"]}
    longest = max(tokens.values()) if artefact == "prompted" else tokens["tuned" if tuned else "base"]
    return speed.seconds(rows, min(config["evaluate"]["max_new_tokens"], longest), sample["row_tokens"])


def asked(evaluate: dict[str, Any], test_rows: int) -> int:
    """How many rows each artefact answers and scores: of the test split and of the general set."""
    general = evaluate["forgetting"]["rows"]
    others = Path(general).read_bytes().count(b"\n") if general and Path(general).is_file() else 0
    return min(evaluate["max_rows"], test_rows) + min(evaluate["max_rows"], others)


def elapsed(stages: dict[str, float], others: int, artefacts: int, at_once: int) -> float:
    """Seconds by the wall's clock, with so many trainings or answerings at once."""
    trainings = (stages["train"] + stages["other_experiments"]) / min(1 + others, at_once)
    return trainings + stages["package"] + stages["evaluate"] / max(1, min(artefacts, at_once))
