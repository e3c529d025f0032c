"""Examples out of the source archives of Axolotl and LLaMA-Factory: imported or refused as a second reader says.

The archives are fetched with pip, once; without a registry the tests are skipped.
"""

from __future__ import annotations

import json
from pathlib import Path

import families
import pytest
from jinja2 import TemplateError
from snaketune.config import schema
from snaketune.data.records import Layout, parse_fields
from snaketune.errors import UserError
from snaketune.importers import command
from trainers.published import AXOLOTL, LLAMA_FACTORY, Archive
from trainers.published_examples import AXOLOTL_EXAMPLES, LLAMA_FACTORY_EXAMPLES, Example
from unit.importers.small_plans import plan_of, with_small_rows
from unit.tokens.test_chat_template import renderer
from unit.tokens.test_tool_calls import SHAPES

pytestmark = pytest.mark.slow
EXAMPLES = [
    *((AXOLOTL, example) for example in AXOLOTL_EXAMPLES),
    *((LLAMA_FACTORY, example) for example in LLAMA_FACTORY_EXAMPLES),
]
EACH = pytest.mark.parametrize(
    ("archive", "example"), EXAMPLES, ids=[f"{archive.package}-{example.file}" for archive, example in EXAMPLES]
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: families.build(folder / name, name) for name in ("llama-bpe", "qwen2")}


def imported(file: Path, here: Path) -> command.Imported:
    return command.run(str(file), "mine", folder=here)


def value_at(settings: dict, path: str) -> object:
    *sections, key = path.split(".")
    for part in sections:
        settings = settings.get(part, {})
    return settings.get(key)


@EACH
def test_a_published_example_becomes_what_a_second_reader_expects(
    archive: Archive, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive.folder())
    made = imported(Path("examples", example.file), tmp_path)
    refused = [one.key for one in made.draft.refused]
    assert sorted(refused) == sorted(example.refused), [one.effect for one in made.draft.refused]
    assert {path: value_at(made.draft.settings, path) for path in example.settings} == example.settings
    assert set(example.unused) <= {one.key for one in made.draft.unused}
    assert (made.configuration is None) == bool(example.refused)


@pytest.mark.parametrize(
    ("archive", "example"),
    [(archive, example) for archive, example in EXAMPLES if not example.refused],
    ids=[f"{archive.package}-{example.file}" for archive, example in EXAMPLES if not example.refused],
)
def test_a_published_example_that_imports_passes_the_plan_on_a_small_base(
    archive: Archive, example: Example, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive.folder())
    made = imported(Path("examples", example.file), tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = schema.read(made.configuration or "")
    base = bases["qwen2" if settings["model"]["chat_template"] == "chatml" else "llama-bpe"]
    found = plan_of(with_small_rows(settings, base), base)
    (planned,) = found.experiments.values()
    assert planned.steps >= 1
    assert planned.validations >= 2
    assert found.rows["valid"] > 0


@pytest.mark.parametrize("archive", [AXOLOTL, LLAMA_FACTORY], ids=lambda one: one.package)
def test_every_published_example_imports_or_is_refused_with_reasons_and_no_key_is_passed_over(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive.folder())
    count, others = 0, []
    for number, file in enumerate(sorted(Path("examples").rglob("*.y*ml"))):
        here = tmp_path / str(number)
        here.mkdir()
        try:
            draft = imported(file, here).draft
        except UserError as error:
            others.append(str(error))
            continue
        count += 1
        told = {one.key for one in [*draft.taken, *draft.unused, *draft.refused]}
        named = {key.split("[")[0].split(":")[0].split(".")[0] for key in told}
        given = command.read(str(file)).keys
        assert {key for key, value in given.items() if value is not None} <= named, file
        assert all(one.effect and one.fix for one in draft.refused), file
    assert count > 60
    # those of accelerate and of clouds, which are no training
    assert all("whose configuration this is cannot be told" in words for words in others), others
    assert len(others) < 15


def test_the_demo_sets_of_llama_factory_are_read_as_they_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snaketune.files import read_jsonl
    from unit.data.data_steps import validated

    folder = LLAMA_FACTORY.folder()
    monkeypatch.chdir(folder)
    given = json.loads(Path("data/alpaca_en_demo.json").read_text(encoding="utf-8"))
    for name in ("identity", "alpaca_en_demo", "alpaca_zh_demo", "glaive_toolcall_en_demo", "glaive_toolcall_zh_demo"):
        here = tmp_path / name
        here.mkdir()
        keys = {"model_name_or_path": "some-lab/tiny", "stage": "sft", "finetuning_type": "lora", "dataset": name}
        (here / "theirs.yaml").write_text(json.dumps(keys | {"template": "qwen", "lora_target": "all"}))
        made = imported(here / "theirs.yaml", here)
        settings = schema.complete(schema.read(made.configuration or ""))
        validated(here / "ours", settings["data"])
        rows = list(read_jsonl(here / "ours" / "records.jsonl"))
        all_rows = json.loads(Path(f"data/{name}.json").read_text(encoding="utf-8"))
        report = json.loads((here / "ours" / "report.json").read_text())
        assert report["read"] == len(all_rows)
        assert report["rejected"] == 0, report["reasons"]
        assert len(rows) + report["duplicates"] == len(all_rows)
        assert any("tool_calls" in str(row) for row in rows) == name.startswith("glaive")
    assert len(given) > 900


def as_openai(row: dict) -> tuple[list[dict], list[dict]]:
    """A row of the glaive set as messages and tools in OpenAI's form, by hand."""
    messages = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    count, pending = 0, []
    for turn in row["conversations"]:
        text = turn["value"]
        if turn["from"] == "function_call":
            found = json.loads(text)
            calls = found if isinstance(found, list) else [found]
            pending = [f"call{count + number + 1:05}" for number in range(len(calls))]
            count += len(calls)
            listed = [
                {"type": "function", "id": name, "function": call} for name, call in zip(pending, calls, strict=True)
            ]
            messages.append({"role": "assistant", "content": "", "tool_calls": listed})
        else:
            role = {"human": "user", "gpt": "assistant", "observation": "tool"}[turn["from"]]
            messages.append(
                {"role": role, "content": text} | ({"tool_call_id": pending[0]} if role == "tool" and pending else {})
            )
    tools = json.loads(row["tools"]) if row.get("tools") else []
    return messages, [{"type": "function", "function": tool} for tool in tools]


@pytest.mark.parametrize("template", ["qwen25-tools", "llama31-tools", "mistral-tools"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_published_rows_with_tool_calls_have_the_ids_that_transformers_gives_them(
    language: str, template: str, tmp_path: Path
) -> None:
    made = renderer(tmp_path, SHAPES[template][0], template)
    path = LLAMA_FACTORY.folder() / f"data/glaive_toolcall_{language}_demo.json"
    equal = 0
    for row in json.loads(path.read_text(encoding="utf-8")):
        messages, tools = as_openai(row)
        try:
            expected = made.tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                chat_template=families.TEMPLATES[template],
                tokenize=True,
                return_dict=False,
            )
        except TemplateError:  # two calls at once, which this template has no words for
            continue
        assert made.record(parse_fields(row, Layout())).ids == expected
        equal += 1
    assert equal > 200
