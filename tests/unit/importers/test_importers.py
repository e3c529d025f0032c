"""Forty configurations of other tools: each imports, or is refused with reasons; nothing is passed over in silence."""

import json
import re
from pathlib import Path

import pytest
import yaml
from snaketune.config import foreign_keys, schema
from snaketune.errors import ConfigError, UserError
from snaketune.importers import axolotl, command, llama_factory, mlx_lm, reference, trl_peft
from snaketune.importers.draft import Draft
from unit.importers.configurations import AX, AXOLOTL, LF, LLAMA_FACTORY, MLX, MLX_LM, REGISTRY, Case

ROOT = Path(__file__).resolve().parents[3]
TOOLS = {"Axolotl": AXOLOTL, "LLaMA-Factory": LLAMA_FACTORY, "mlx-lm": MLX_LM}
CASES = [pytest.param(tool, case, id=f"{tool}-{case.name}") for tool, cases in TOOLS.items() for case in cases]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lf").mkdir()
    (tmp_path / "lf" / "dataset_info.json").write_text(json.dumps(REGISTRY))
    return tmp_path


def imported(keys: dict, *without: str) -> Draft:
    given = keys | ({"dataset_dir": "lf"} if "stage" in keys else {})
    Path("theirs.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    for name in ("mine.yaml", "mine.import.md"):
        Path(name).unlink(missing_ok=True)
    return command.run("theirs.yaml", "mine", without).draft


def value_at(settings: dict, path: str) -> object:
    for part in path.split("."):
        settings = settings[part]
    return settings


def test_there_are_forty_of_them() -> None:
    assert {tool: len(cases) for tool, cases in TOOLS.items()} == {"Axolotl": 20, "LLaMA-Factory": 15, "mlx-lm": 5}


@pytest.mark.parametrize(("tool", "case"), CASES)
def test_each_configuration_becomes_what_a_second_reader_expects(tool: str, case: Case) -> None:
    draft = imported(case.keys)
    assert draft.tool == tool
    refused = [one.key for one in draft.refused]
    assert sorted(case.refused) == sorted(refused), [one.effect for one in draft.refused]
    assert {path: value_at(draft.settings, path) for path in case.settings} == case.settings
    assert set(case.written_out) <= {one.ours for one in draft.written_out}
    assert set(case.unused) <= {one.key for one in draft.unused}
    assert Path("mine.yaml").exists() == (not refused)
    if not refused:
        written = schema.complete(schema.read("mine.yaml"))
        for path, expected in case.settings.items():
            found = value_at(written, path)
            if path == "data.split":
                found = {name: found[name] for name in expected}
            if path != "data.sources":  # whose entries have all keys there
                assert found == expected, path


@pytest.mark.parametrize(("tool", "case"), CASES)
def test_every_key_of_theirs_ends_in_exactly_one_list(tool: str, case: Case) -> None:
    del tool
    draft = imported(case.keys)
    told = [one.key for one in [*draft.taken, *draft.unused, *draft.refused]]
    for key, value in case.keys.items():
        if value is not None:
            parts = [one for one in told if re.match(rf"{re.escape(key)}(\[|\.|: )", one)]
            assert told.count(key) == (not parts), f"{key} is told {told.count(key)} times"


@pytest.mark.parametrize(("tool", "case"), CASES)
def test_the_page_tells_all_that_the_import_knows(tool: str, case: Case) -> None:
    draft = imported(case.keys)
    page = Path("mine.import.md").read_text(encoding="utf-8")
    assert page.startswith(f"# mine, imported from {tool}\n")
    for title in ("Taken over", "Done differently by default", "Of no effect here", "Refused"):
        assert f"\n## {title}" in page
    for one in [*draft.taken, *draft.unused, *draft.refused]:
        assert f"| `{one.key}` |" in page
    for one in draft.refused:
        assert one.effect.split("|")[0] in page
        assert one.fix.split("|")[0] in page


@pytest.mark.parametrize(("keys", "is_named"), [(LF, True), (AX, True), (MLX, False)], ids=["lf", "axolotl", "mlx-lm"])
def test_the_page_names_how_the_steps_of_transformers_differ_where_it_is_transformers_that_trains(
    keys: dict, is_named: bool
) -> None:
    imported(keys)
    page = Path("mine.import.md").read_text(encoding="utf-8")
    assert ("the first step of a warm-up has the rate 0" in page) == is_named
    assert ("steps go on into the next epoch here" in page) == is_named


@pytest.mark.parametrize(("accumulation", "is_named"), [(1, False), (4, True)])
def test_the_page_says_how_axolotl_averages_the_loss_over_the_micro_batches_of_a_step(
    accumulation: int, is_named: bool
) -> None:
    imported(AX | {"gradient_accumulation_steps": accumulation})
    assert ("each of which counts alike" in Path("mine.import.md").read_text(encoding="utf-8")) == is_named


def test_a_share_of_warm_up_steps_is_said_to_be_rounded_otherwise() -> None:
    (taken,) = (one for one in imported(LF | {"warmup_ratio": 0.1}).taken if one.key == "warmup_ratio")
    assert "transformers rounds up" in taken.note


def test_the_imported_configuration_keeps_the_comments_of_ours_and_says_where_it_is_from() -> None:
    imported(AX)
    text = Path("mine.yaml").read_text(encoding="utf-8")
    assert text.startswith("# Imported from Axolotl's theirs.yaml")
    assert "# Peak learning rate." in text


def test_a_refused_key_can_be_left_out_on_request_and_is_said_to_be() -> None:
    draft = imported(AX | {"lora_modules_to_save": ["lm_head"]}, "lora_modules_to_save")
    assert not draft.refused
    assert Path("mine.yaml").exists()
    assert any(one.key == "lora_modules_to_save" and "as you asked" in one.note for one in draft.written_out)


def test_another_objective_cannot_be_left_out() -> None:
    assert [one.key for one in imported(AX | {"rl": "kto"}, "rl").refused] == ["rl"]


def test_a_number_of_validation_rows_becomes_a_share_where_the_rows_can_be_counted(folder: Path) -> None:
    rows = [{"instruction": f"Frage {n}", "input": "", "output": str(n)} for n in range(80)]
    (folder / "lf" / "identity.json").write_text(json.dumps(rows))
    draft = imported(LF | {"dataset": "identity", "val_size": 12})
    assert value_at(draft.settings, "data.split.valid") == 0.15
    draft = imported(LF | {"dataset": "identity", "val_size": 12, "max_samples": 40})
    assert value_at(draft.settings, "data.split.valid") == 0.3
    assert [one.key for one in imported(LF | {"dataset": "dialogs", "val_size": 12}).refused] == ["val_size"]


def test_a_local_file_is_found_beside_the_configuration(folder: Path) -> None:
    (folder / "theirs").mkdir()
    (folder / "theirs" / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    keys = AX | {"datasets": [{"path": "rows.jsonl", "type": "alpaca"}]}
    (folder / "theirs" / "axolotl.yml").write_text(yaml.safe_dump(keys))
    draft = command.run("theirs/axolotl.yml", "mine").draft
    assert value_at(draft.settings, "data.sources")[0]["path"] == "theirs/rows.jsonl"


@pytest.mark.parametrize(
    "line",
    [
        "mlx_lm.lora --model some-lab/tiny --train --data rows --iters 600 --batch-size=2 --num-layers -1",
        "python -m mlx_lm lora --model some-lab/tiny \\\n --data rows --iters 600 --batch-size 2 --num-layers=-1",
    ],
)
def test_a_command_line_of_mlx_lm_is_read(line: str, folder: Path) -> None:
    (folder / "rows").mkdir()
    for name in ("train", "valid"):
        (folder / "rows" / f"{name}.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    draft = command.run(line, "mine").draft
    assert draft.tool == "mlx-lm"
    assert not draft.refused
    assert value_at(draft.settings, "train.max_steps") == 600
    assert value_at(draft.settings, "train.batch_size") == 2
    assert value_at(draft.settings, "train.num_layers") is None
    assert value_at(draft.settings, "data.sources") == [
        {"path": "rows/train.jsonl"},
        {"path": "rows/valid.jsonl", "split": "valid"},
    ]


def test_options_of_a_command_line_win_over_its_file(folder: Path) -> None:
    (folder / "lora.yaml").write_text(yaml.safe_dump(MLX))
    (folder / "train.sh").write_text("#!/bin/sh\nmlx_lm.lora -c lora.yaml --iters 42\n")
    draft = command.run("train.sh", "mine").draft
    assert value_at(draft.settings, "train.max_steps") == 42
    assert value_at(draft.settings, "train.batch_size") == 4


def test_a_peft_adapter_tells_its_base_and_its_shape(folder: Path) -> None:
    saved = {
        "base_model_name_or_path": "some-lab/tiny",
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 24,
        "lora_alpha": 48,
        "lora_dropout": 0.1,
        "target_modules": ["v_proj", "k_proj"],
        "bias": "none",
        "modules_to_save": None,
        "inference_mode": True,
        "use_dora": True,
        "rank_pattern": {},
    }
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(saved))
    draft = command.run("adapter", "mine").draft
    assert not draft.refused
    assert draft.settings["model"] == {"base": "some-lab/tiny"}
    expected = {"method": "dora", "rank": 24, "alpha": 48, "dropout": 0.1, "target_modules": ["v_proj", "k_proj"]}
    assert draft.settings["train"] == expected
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(saved | {"rank_pattern": {"q_proj": 4}}))
    Path("mine.yaml").unlink()
    assert [one.key for one in command.run("adapter", "mine").draft.refused] == ["rank_pattern"]


def test_arguments_of_trl_are_read() -> None:
    keys = {
        "model_name_or_path": "some-lab/tiny",
        "dataset_name": "some-lab/messages",
        "use_peft": True,
        "lora_r": 4,
        "learning_rate": "2.0e-4",
        "per_device_train_batch_size": 2,
        "max_length": 640,
        "assistant_only_loss": True,
        "eos_token": "<|im_end|>",
    }
    draft = imported(keys)
    assert draft.tool == "TRL"
    assert [one.key for one in draft.refused] == ["eos_token"]
    assert value_at(draft.settings, "train.learning_rate") == 0.0002
    assert value_at(draft.settings, "train.alpha") == 32
    assert value_at(draft.settings, "train.target_modules") == ["q_proj", "v_proj"]
    assert value_at(draft.settings, "train.train_on_prompts") is False


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("", "mine", "nothing to import"),
        ("theirs.yaml", "", "needs a name"),
        ("theirs.yaml", "../mine", "cannot be a run's name"),
        ("nowhere.yaml", "mine", "no such file"),
        ("training_args.bin", "mine", "pickle"),
        ("empty", "mine", "no adapter_config.json"),
        ("strange.yaml", "mine", "cannot be told"),
        ("broken.yaml", "mine", "not valid YAML"),
        ("pip install things", "mine", "no command"),
    ],
)
def test_what_cannot_be_imported_is_told_in_a_sentence(source: str, name: str, words: str, folder: Path) -> None:
    (folder / "theirs.yaml").write_text(yaml.safe_dump(AX))
    (folder / "training_args.bin").write_bytes(b"\x80\x04")
    (folder / "empty").mkdir()
    (folder / "strange.yaml").write_text("colour: blue\n")
    (folder / "broken.yaml").write_text("a: [\n")
    with pytest.raises(UserError, match=words):
        command.run(source, name)
    assert not (folder / "mine.yaml").exists()


def test_an_existing_configuration_is_never_overwritten() -> None:
    imported(AX)
    before = Path("mine.yaml").read_text()
    with pytest.raises(ConfigError, match="this file exists"):
        command.run("theirs.yaml", "mine")
    assert Path("mine.yaml").read_text() == before


def test_the_command_says_what_to_do_next_and_fails_where_something_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "good.yaml").write_text(yaml.safe_dump(AX))
    (folder / "bad.yaml").write_text(yaml.safe_dump(AX | {"neftune_noise_alpha": 5}))
    assert command.main(["good.yaml", "gut"]) == 0
    assert "--configfile gut.yaml" in capsys.readouterr().out
    assert command.main(["bad.yaml", "schlecht"]) == 1
    told = capsys.readouterr().err
    assert "neftune_noise_alpha: noise on the embeddings" in told
    assert 'WITHOUT="neftune_noise_alpha"' in told
    assert not (folder / "schlecht.yaml").exists()
    assert command.main(["bad.yaml", "schlecht", "neftune_noise_alpha"]) == 0


def test_the_page_about_moving_in_is_the_one_that_the_tables_make() -> None:
    written = (ROOT / "docs" / "moving-in.md").read_text(encoding="utf-8")
    assert written == reference.page(), "run `make docs`"


@pytest.mark.parametrize(("tool", "case"), CASES)
def test_every_key_that_an_importer_knows_stands_on_the_page(tool: str, case: Case) -> None:
    del tool
    page = reference.page()
    draft = imported(case.keys)
    unknown = {one.key for one in draft.refused if "not known here" in one.effect}
    assert [key for key in case.keys if f"`{key}`" not in page and key not in unknown] == []


def test_importers_and_the_did_you_mean_of_the_configuration_lead_to_the_same_keys() -> None:
    wider = {"hf_dataset", "lora_parameters"}  # a mapping of theirs, of which each part has a key of ours
    for table in (axolotl.TABLE, llama_factory.TABLE, trl_peft.TABLE, trl_peft.ADAPTER_TABLE, mlx_lm.TABLE):
        for key, rule in table.items():
            named = foreign_keys.FOREIGN.get(key)
            if rule.fate == "taken" and rule.ours and named and key not in wider:
                assert named == rule.ours.replace("[]", ""), key
