"""The same rows and settings in LLaMA-Factory itself and by the configuration imported from it.

Token ids and masks are equal but for what the page of the import names, learning rates are ours one step later, as the
page says, and the validation loss by our scorer is within the spread of the seeds once these are taken out. Needs
LLaMA-Factory's environment, .trainers/llama-factory.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import families
import msgspec
import pytest
import tiny_tokenizers
import yaml
from snaketune.config import schema
from snaketune.config.sections import TrainConfig
from snaketune.contracts.train import TrainingJob, TrainingOutputs
from snaketune.files import read_jsonl, write_json
from snaketune.importers import command
from snaketune.tokens.chat_template import Rendered, Renderer
from snaketune.tokens.token_store import write_store
from snaketune.train.batches import schedule_from
from tiny_models import manifest_of
from unit.data.data_steps import validated

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".trainers" / "llama-factory" / "bin" / "python"
SIDE = Path(__file__).with_name("llama_factory_side.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="needs .trainers/llama-factory"),
]

WORDS = tiny_tokenizers.WORDS
TOOL = {
    "name": "lookup",
    "description": "Looks up.",
    "parameters": {"type": "object", "properties": {"w": {"type": "string"}}},
}
SETTINGS = {
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 8,
    "lora_target": "all",
    "cutoff_len": 1024,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "learning_rate": 5e-3,
    "num_train_epochs": 4,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "bf16": False,
    "report_to": "none",
    "overwrite_cache": True,
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_gradient_checkpointing": True,
}


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    found = set()
    while len(found) < count:
        one, other = draw.choice(WORDS), draw.choice(WORDS)
        found.add((f"what is {one} and {other}?", f"the {one} is {other} and the {other} is {one}."))
    return sorted(found)


def alpaca(count: int, seed: int) -> list[dict[str, Any]]:
    return [
        {
            "instruction": asks,
            "input": "say it twice" if number % 3 else "",
            "output": says,
            "history": [["hello", "well"]][: number % 2],
        }
        for number, (asks, says) in enumerate(pairs(count, seed))
    ]


def sharegpt(count: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    for number, (asks, says) in enumerate(pairs(count, seed)):
        turns = [{"from": "human", "value": asks}, {"from": "gpt", "value": says}]
        turns += [{"from": "human", "value": "again"}, {"from": "gpt", "value": says}] if number % 2 else []
        rows.append({"conversations": turns, "system": "be brief" if number % 3 else ""})
    return rows


def tools(count: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    for asks, says in pairs(count, seed):
        call = json.dumps({"name": "lookup", "arguments": {"w": asks.split()[2], "ö": [1, True]}}, ensure_ascii=False)
        turns = [("human", asks), ("function_call", call), ("observation", '{"found": 1}'), ("gpt", says)]
        turns = [{"from": who, "value": text} for who, text in turns]
        rows.append({"conversations": turns, "tools": json.dumps([TOOL])})
    return rows


NUM_ROWS = {"alpaca": 96, "sharegpt": 96, "tools": 16}  # those with tools are seven times as long
# so that there are two dozen steps all the same
FEWER_A_STEP = {"tools": {"per_device_train_batch_size": 2, "num_train_epochs": 6}}
# what the page names of the learning rates, a step's shift and the rounding of the warm-up, is taken out
EVERY_STEP_ALIKE = {"lr_scheduler_type": "constant", "warmup_ratio": 0.0}
KINDS = {"alpaca": alpaca, "sharegpt": sharegpt, "tools": tools}
REGISTRY = {
    "alpaca": {"columns": {"prompt": "instruction", "query": "input", "response": "output", "history": "history"}},
    "sharegpt": {"formatting": "sharegpt", "columns": {"messages": "conversations", "system": "system"}},
    "tools": {"formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}},
}


class Side:
    """A folder in which both sides work on the same rows."""

    def __init__(self, folder: Path, family: str, template: str, kind: str) -> None:
        self.folder = folder
        self.base = families.build(folder / "base", family, dtype="float32")
        self.kind = kind
        registry = {}
        for split, count, seed in (("train", NUM_ROWS[kind], 1), ("valid", 24 if kind != "tools" else 8, 2)):
            write_json(folder / f"{split}.json", KINDS[kind](count, seed))
            registry[split] = {"file_name": f"{split}.json", **REGISTRY[kind]}
        write_json(folder / "dataset_info.json", registry)
        self.theirs = (
            SETTINGS
            | FEWER_A_STEP.get(kind, {})
            | {
                "model_name_or_path": str(self.base),
                "template": template,
                "dataset": "train",
                "dataset_dir": str(folder),
                "output_dir": str(folder / "out"),
            }
        )

    def run(self, task: str, out: Path, **changed: Any) -> None:
        """Let LLaMA-Factory do its part."""
        config = self.folder / f"{task}-config.json"
        write_json(config, self.theirs | changed)
        quiet = {
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_HOME": str(self.folder / "hf"),
            "PYTHONPATH": "",
        }
        quiet |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DISABLE_VERSION_CHECK": "1"}
        done = subprocess.run(
            [str(PYTHON), str(SIDE), task, str(config), str(out)],
            env=os.environ | quiet,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def imported(self) -> dict[str, Any]:
        """The configuration of ours, with all rows of theirs in the splits that they have there."""
        path = self.folder / "theirs.yaml"
        path.write_text(yaml.safe_dump(self.theirs | {"eval_dataset": "valid", "eval_strategy": "epoch"}))
        made = command.run(str(path), "mine", folder=self.folder)
        assert made.configuration, [one.effect for one in made.draft.refused]
        settings = schema.read(made.configuration)
        settings["data"]["split"] = {"train": 1.0, "valid": 0.0, "test": 0.0}
        return schema.complete(settings)

    def rendered_there(self) -> list[Rendered]:
        """The training rows as LLaMA-Factory renders them."""
        self.run("render", self.folder / "rendered.json")
        rows = json.loads((self.folder / "rendered.json").read_text())
        return [Rendered(ids, [label != -100 for label in labels]) for ids, labels in rows]

    def rendered(self, settings: dict[str, Any]) -> dict[str, list[Rendered]]:
        """Our rows by split, in the order of their files."""
        validated(self.folder / "ours", settings["data"])
        renderer = Renderer(self.base, settings["model"]["chat_template"])
        found: dict[str, list[Rendered]] = {"train": [], "valid": []}
        for record in read_jsonl(self.folder / "ours" / "records.jsonl"):
            found[record.get("split", "train")].append(renderer.record(record))
        return found


def as_qwen_writes_tools(side: Side) -> None:
    """Give the base the chat template that Qwen's models bring, whose words for tools LLaMA-Factory has too."""
    side.run("words", side.folder / "words.json")
    words = json.loads((side.folder / "words.json").read_text())
    before, after = (json.dumps(part) for part in words.split("@"))
    text = families.TEMPLATES["qwen25-tools"]
    start, end = text.index("{%- if tools -%}"), text.index("{{- '<|im_end|>\\n' -}}")
    each = "{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}"
    ours = f"{{%- if tools -%}}{{{{- {before} -}}}}{each}{{{{- {after} -}}}}{{%- endif -%}}"
    path = side.base / "tokenizer_config.json"
    write_json(path, json.loads(path.read_text()) | {"chat_template": text[:start] + ours + text[end:]})


@pytest.fixture
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Side:
    family, template, kind = request.param
    made = Side(tmp_path, family, template, kind)
    if kind == "tools":
        as_qwen_writes_tools(made)
    return made


LLAMA = [("llama-bpe", "llama3", kind) for kind in ("alpaca", "sharegpt")]
QWEN = [("qwen2", "qwen", kind) for kind in ("tools",)]


@pytest.mark.parametrize("side", [*LLAMA, *QWEN], indirect=True, ids=lambda one: "-".join(one))
def test_ids_and_masks_are_those_of_llama_factory_but_for_what_the_page_names(side: Side) -> None:
    theirs = side.rendered_there()
    settings = side.imported()
    ours = side.rendered(settings)["train"]
    assert [row.ids for row in ours] == [row.ids for row in theirs]
    tokenizer = Renderer(side.base).tokenizer
    extra = set()
    for row, other in zip(ours, theirs, strict=True):
        for token, is_ours, is_theirs in zip(row.ids, row.loss_mask, other.loss_mask, strict=True):
            if is_ours != is_theirs:
                assert not is_ours, "we train what they do not"
                extra.add(tokenizer.decode([token]))
    page = (side.folder / "mine.import.md").read_text(encoding="utf-8")
    if extra:
        assert extra == {"\n"}
        assert "is trained in one only" in page
    else:
        assert "are the same tokens in both, with the same ones trained" in page


@pytest.mark.parametrize("side", LLAMA[:1], indirect=True, ids=lambda one: "-".join(one))
def test_its_learning_rates_are_ours_one_step_later_and_its_warm_up_is_rounded_up(side: Side) -> None:
    steps = 12
    side.theirs |= {"max_steps": steps}
    config = msgspec.convert(side.imported()["train"], TrainConfig)
    side.run("train", side.folder / "merged")
    lines = read_jsonl(side.folder / "out" / "trainer_log.jsonl")
    theirs = [line["lr"] for line in lines if "lr" in line]
    warmup = math.ceil(config.warmup_steps * steps)
    assert warmup > schedule_from(config, steps).warmup_steps
    ours = schedule_from(msgspec.structs.replace(config, warmup_steps=warmup), steps)
    assert theirs == pytest.approx([0.0, *(ours(step) for step in range(1, steps))])
    page = (side.folder / "mine.import.md").read_text(encoding="utf-8")
    assert "the first step of a warm-up has the rate 0" in page
    assert "transformers rounds up" in page


@pytest.mark.parametrize("side", [*LLAMA, *QWEN], indirect=True, ids=lambda one: "-".join(one))
def test_with_the_same_tokens_trained_at_the_same_rates_the_validation_loss_is_that_of_llama_factory(
    side: Side,
) -> None:
    side.theirs |= EVERY_STEP_ALIKE
    settings = side.imported()
    settings["train"]["eval_steps"] = 10_000  # at the end alone, so that ours keeps its last weights too
    valid = side.rendered(settings)["valid"]
    for split, found in (("train", side.rendered_there()), ("valid", valid)):
        write_store(side.folder / f"{split}.safetensors", ((row, 1.0) for row in found))
    seeds = (1, 2, 3)
    ours = [loss(side.base, valid, train(side, settings, seed)) for seed in seeds]
    theirs = []
    for seed in (41 + seed for seed in seeds):
        merged = side.folder / f"merged-{seed}"
        side.run("train", merged, seed=seed, output_dir=str(side.folder / f"out-{seed}"))
        theirs.append(loss(merged, valid, None))
    base = loss(side.base, valid, None)
    spread = max(max(ours) - min(ours), max(theirs) - min(theirs))
    print(f"\n{side.kind}: base {base:.4f}, ours {ours}, theirs {theirs}, spread {spread:.4f}")
    assert max(*ours, *theirs) < 0.9 * base
    assert abs(sum(ours) - sum(theirs)) / len(seeds) <= spread


def train(side: Side, settings: dict[str, Any], seed: int) -> Path:
    """Train on our side; returns the adapter's folder."""
    from snaketune.engines.mlx import train as trainer

    folder = side.folder / f"adapter-{seed}"
    folder.mkdir()
    manifest = side.folder / "base.json"
    write_json(manifest, manifest_of(side.base))
    config = msgspec.convert(settings["train"], TrainConfig)
    trainer.train(
        TrainingJob(
            train_tokens=str(side.folder / "train.safetensors"),
            valid_tokens=str(side.folder / "valid.safetensors"),
            model=str(manifest),
            config=config,
            dtype="float32",
            seed=seed,
            outputs=TrainingOutputs.in_folder(folder),
        )
    )
    return folder


def loss(model: Path, rows: list[Rendered], adapter: Path | None) -> float:
    """The mean loss per target token by our scorer, in nats."""
    from snaketune.engines.interface import LoadOptions, LoglikelihoodRequest
    from snaketune.engines.mlx.language_model import load

    loaded = load(model, LoadOptions(exact=True, adapter=adapter))
    scored = loaded.loglikelihood([LoglikelihoodRequest(row.ids, row.loss_mask) for row in rows])  # type: ignore[union-attr]
    return -sum(scored) / sum(sum(row.loss_mask) for row in rows)
