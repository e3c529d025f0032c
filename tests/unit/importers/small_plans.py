"""An imported configuration on a base and on rows that are here, and its plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from snaketune.config import schema
from snaketune.contracts.data import SPLITS
from snaketune.engines import get_capabilities
from snaketune.files import write_json
from snaketune.model.manifest import plain_key, tokens_key
from snaketune.plan import plan
from snaketune.run_definition import define_run
from snaketune.runtime.machine import this_machine
from snaketune.tokens.tokenize import TokenizeConfig, tokenize_splits
from tiny_models import manifest_of
from unit.data.data_steps import divided, validated


def row(source: dict[str, Any], number: int) -> dict[str, Any]:
    """A row of the layout that a source's settings describe."""
    fields = source.get("fields", {})
    if "segments" in source["path"]:
        return {"segments": [{"label": False, "text": f"what is {number}? "}, {"label": True, "text": "this"}]}
    if "text" in fields:
        return {fields["text"]: f"the story of {number} and the river"}
    if "prompt" in fields:
        made = {fields["prompt"]: f"what is {number}?", fields["response"]: f"it is {number}."}
        if "history" in fields:
            made[fields["history"]] = [["hello", "well"]]
        return made | ({"input": "say it twice"} if number % 2 and "input" in (source.get("template") or "") else {})
    inside = source.get("turn_fields") or {}
    role, content = inside.get("role", "role"), inside.get("content", "content")
    names = {ours: (source.get("roles") or {}).get(ours, [ours])[0] for ours in ("user", "assistant")}
    turns = [(names["user"], f"what is {number}?"), (names["assistant"], f"it is {number}.")]
    return {fields.get("messages", "messages"): [{role: who, content: text} for who, text in turns]}


def with_small_rows(settings: dict[str, Any], base: Path) -> dict[str, Any]:
    """The imported settings on a base and on files that are here."""
    for number, source in enumerate(settings["data"]["sources"]):
        path = f"{'segments' if 'pieces' in str(source.get('path')) else 'rows'}-{number}.jsonl"
        share = source.get("limit")
        some = round(60 / share) if isinstance(share, float) and share < 1 else 60
        source |= {"path": path, "hub": None}
        rows = [row(source, 1000 * number + count) for count in range(some)]
        Path(path).write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    settings["model"] |= {"base": str(base), "revision": "main"}
    return schema.complete(settings)


def plan_of(settings: dict[str, Any], base: Path) -> plan.Plan:
    """What `snakemake plan` does, step by step."""
    run = define_run(settings)
    folder = Path("results")
    validated(folder, settings["data"])
    divided(folder, settings["data"])
    (experiment,) = run.experiments.values()
    manifest = folder / f"{plain_key(experiment.model)}.config.json"
    write_json(manifest, manifest_of(base))
    tokens = folder / "tokens" / tokens_key(experiment.model)
    tokens.mkdir(parents=True)
    stores = {split: str(tokens / f"{split}.safetensors") for split in SPLITS}
    config = {
        "model": {"chat_template": experiment.model.chat_template, "num_virtual_tokens": 0},
        "data": {key: settings["data"][key] for key in ("max_length", "on_too_long")},
    }
    rows = {split: str(folder / f"{split}.jsonl") for split in SPLITS}
    tokenize_splits(rows, manifest, msgspec.convert(config, TokenizeConfig), stores, tokens / "tokens.json")
    return plan.run(
        plan.PlanSettings(
            experiments=[experiment],
            max_length=settings["data"]["max_length"],
            max_lost=settings["data"]["max_lost"],
            seed=settings["seed"],
            gguf=["q8_0"],
            adapter=False,
        ),
        models=[manifest],
        stores=[stores["train"]],
        tokens=[tokens / "tokens.json"],
        machine=this_machine(get_capabilities().describe_device()),
        plan=folder / "plan.json",
    )
