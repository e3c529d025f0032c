"""Every configuration that imports also passes the plan, on a small base and with rows of the layout that it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import families
import msgspec
import pytest
import yaml
from snaketune.config import schema
from snaketune.contracts.data import SPLITS
from snaketune.engines import get_capabilities
from snaketune.files import write_json
from snaketune.importers import command
from snaketune.model.manifest import plain_key, tokens_key
from snaketune.plan import plan
from snaketune.run_definition import define_run
from snaketune.runtime.machine import this_machine
from snaketune.tokens.tokenize import TokenizeConfig, tokenize_splits
from tiny_models import manifest_of
from unit.data.data_steps import divided, validated
from unit.importers.configurations import AXOLOTL, LLAMA_FACTORY, MLX_LM, REGISTRY, Case

CASES = [case for case in (*AXOLOTL, *LLAMA_FACTORY, *MLX_LM) if not case.refused]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: families.build(folder / name, name) for name in ("llama-bpe", "qwen2")}


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
        source |= {"path": path, "hub": None}
        rows = [row(source, 100 * number + count) for count in range(60)]
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
        "model": {"chat_template": experiment.model.chat_template},
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_imported_configuration_passes_the_plan(
    case: Case, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lf").mkdir()
    write_json(tmp_path / "lf" / "dataset_info.json", REGISTRY)
    (tmp_path / "theirs.yaml").write_text(
        yaml.safe_dump(case.keys | ({"dataset_dir": "lf"} if "stage" in case.keys else {}))
    )
    settings = schema.read(command.run("theirs.yaml", "mine").configuration or "")
    base = bases["qwen2" if settings["model"]["chat_template"] == "chatml" else "llama-bpe"]
    found = plan_of(with_small_rows(settings, base), base)
    (planned,) = found.experiments.values()
    expected = settings["train"]["max_steps"]
    assert planned.steps == expected if expected else planned.steps >= 1
    assert planned.validations >= 2
    assert found.rows["train"] > 0
    assert found.rows["valid"] > 0
