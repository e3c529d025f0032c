"""The plan of a run: refused with advice that fits, or written with what will happen; no weights are read."""

from __future__ import annotations

import json
import re
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from snaketune.config import schema as configuration
from snaketune.config.experiments import expand
from snaketune.config.sections import RunConfig, TrainConfig, section
from snaketune.contracts.plan import BatchShape, Plan
from snaketune.demo import task
from snaketune.errors import DataError, ModelError, ResourceError
from snaketune.files import read_json
from snaketune.plan import architecture, resources
from snaketune.plan import plan as forecast
from snaketune.report import forecast_accuracy
from snaketune.runtime.machine import Machine
from snaketune.tokens.chat_template import Rendered
from snaketune.tokens.token_store import TokenStore, write_store

SHAPE = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "vocab_size": 500,
    "tie_word_embeddings": True,
}
MACHINE = Machine("a machine", "cpu", 10**10, 9 * 10**9, "90 % of the RAM that this process may have")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The demo's base without its weights."""
    folder = tmp_path_factory.mktemp("demo")
    task.write_tokenizer(folder, task.numbers(1)["train"], 1)
    task.write_config(folder)
    return folder


@pytest.fixture
def planned(model, tmp_path):
    """A function from configuration keys to the plan of 40 rows of 20 to 59 tokens, all trained but ten."""
    (tmp_path / "demo").mkdir()
    store, tokens = tmp_path / "demo/train.safetensors", tmp_path / "demo/tokens.json"
    manifest = tmp_path / "demo.config.json"
    write_store(
        store, [(Rendered(list(range(5, 5 + n)), [False] * 10 + [True] * (n - 10)), 1.0) for n in range(20, 60)]
    )
    splits = {"train": {"rows": 40, "cut": 10}, "valid": {"rows": 5}, "test": {"rows": 5}}
    tokens.write_text(json.dumps({"splits": splits}))
    manifest.write_text(json.dumps({"folder": str(model)}))

    def plan(machine: Machine = MACHINE, dropped: dict[str, int] | None = None, **keys: Any) -> Plan:
        counted = {name: counts | {"dropped": (dropped or {}).get(name, 0)} for name, counts in splits.items()}
        tokens.write_text(json.dumps({"splits": counted}))
        config = msgspec.convert(configuration.complete({"run": "a", **keys}), RunConfig)
        settings = forecast.PlanSettings(
            experiments=list(expand(config).values()),
            max_length=config.data.max_length,
            max_lost=config.data.max_lost,
            seed=1,
            gguf=config.package.gguf,
            mlx=config.package.mlx,
            adapter=config.package.adapter,
        )
        written = tmp_path / "plan.json"
        found = forecast.run(
            settings, models=[manifest], stores=[store], tokens=[tokens], machine=machine, plan=written
        )
        assert read_json(written, type=Plan) == found
        return found

    return plan


def test_it_says_how_often_each_row_is_seen_and_what_is_held(planned):
    train = {"epochs": 3, "batch_size": 4, "gradient_accumulation_steps": 1}
    found = planned(train=train).experiments["main"]
    assert found.steps == 30
    assert found.times_each_row_is_seen == 3
    assert found.memory.total > 0
    assert found.largest_batch == BatchShape(4, 58, 49 + 48 + 47 + 46)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (
            {"max_steps": 1, "batch_size": 4, "gradient_accumulation_steps": 2},
            "each row is seen 0.2 times: raise train.epochs",
        ),
        ({"epochs": 50}, "each row is seen 50 times: expect it to be memorized"),
        ({}, "10 of 40 training rows are longer than data.max_length"),
        ({}, "40 training rows teach a style at best"),
        ({"epochs": 1}, "3 steps are few"),
    ],
)
def test_it_warns_in_words(planned, train, words):
    said = planned(train=train).experiments["main"].warnings
    assert any(one.startswith(words) for one in said), said


def test_it_says_which_types_take_a_time_that_no_forecast_counts(planned):
    words = "is in no forecast"
    found = planned(package={"mlx": ["4bit", "4bit-dwq", "3bit-awq"]})
    (about,) = [one for one in found.warnings if words in one]
    assert about.startswith("the time of calibrating mlx-4bit-dwq and mlx-3bit-awq ")
    assert not [one for planned in found.experiments.values() for one in planned.warnings if words in one]
    on_the_page = forecast_accuracy.plan_warnings(SimpleNamespace(plan=found))
    assert [warning for warning, experiments in on_the_page.items() if not experiments] == [about]
    assert planned(package={"mlx": ["4bit", "mxfp4"]}).warnings == []


def test_it_counts_and_names_the_rows_that_were_lost_by_length(planned):
    found = planned(dropped={"valid": 2, "train": 15})
    assert found.rows == {"train": 25, "valid": 3, "test": 5}
    said = found.experiments["main"].warnings
    assert any(one.startswith("15 of 40 train rows are dropped") for one in said), said
    assert any(one.startswith("2 of 5 valid rows are dropped") for one in said), said
    assert any(one.startswith("25 training rows teach a style") for one in said), said


def test_more_lost_rows_than_the_configuration_allows_are_a_no_go(planned):
    with pytest.raises(DataError, match=r"23 of 40 train rows \(57%\)[^$]*data.max_lost allows 50%"):
        planned(dropped={"train": 23})
    assert planned(dropped={"train": 23}, data={"max_lost": 0.6}).rows["train"] == 17


@pytest.mark.parametrize("split", ["test", "valid"])
def test_a_split_without_a_row_stops_before_any_training(planned, split, tmp_path):
    with pytest.raises(DataError, match=f"no {split} row is left of 5 after tokenizing"):
        planned(dropped={split: 5}, data={"max_lost": 1.0})
    assert not (tmp_path / "plan.json").exists()


def test_a_run_that_cannot_fit_is_refused_in_seconds_with_advice_that_fits(planned, tmp_path):
    asked = {"batch_size": 16, "gradient_accumulation_steps": 1, "gradient_checkpointing": False, "memory_limit": 0.012}
    started = time.process_time()
    with pytest.raises(ResourceError) as caught:
        planned(train=asked)
    assert time.process_time() - started < 10
    assert not (tmp_path / "plan.json").exists()
    advice = str(caught.value)
    assert "The last of them fits" in advice
    followed = dict(asked)
    for rows, accumulation in re.findall(r"train\.batch_size (\d+) with gradient_accumulation_steps (\d+)", advice):
        followed |= {"batch_size": int(rows), "gradient_accumulation_steps": int(accumulation)}
    followed["gradient_checkpointing"] = "train.gradient_checkpointing true" in advice
    found = planned(train=followed).experiments["main"]
    assert found.memory.total <= 0.012e9


def test_a_model_that_is_too_large_for_anything_is_told_to_be_exchanged(planned):
    with pytest.raises(ResourceError, match="choose a smaller base"):
        planned(train={"memory_limit": 0.001})


def test_every_experiment_is_forecast_and_the_one_that_does_not_fit_is_named(planned):
    found = planned(grid={"rank": [2, 4, 8]})
    assert list(found.experiments) == ["rank-2", "rank-4", "rank-8"]
    with pytest.raises(ResourceError, match="experiment rank-4096"):
        planned(grid={"rank": [2, 4096]}, train={"memory_limit": 0.3})


def test_a_full_disk_is_refused(planned, monkeypatch):
    monkeypatch.setattr(forecast, "free_disk", lambda _: 1000)
    with pytest.raises(ResourceError, match="GB of disk"):
        planned()


@pytest.mark.parametrize(
    ("architecture", "model_type", "who", "meant"),
    [
        ("LlamaForCausalLMs", "llama", ["llama.cpp's converter"], 'did you mean "LlamaForCausalLM"'),
        ("HeliumForCausalLM", "helium", ["llama.cpp's converter"], ""),
        ("BloomForCausalLM", "bloom", ["mlx-lm"], ""),
        ("NewestForCausalLM", "newest", ["mlx-lm", "llama.cpp's converter"], ""),
    ],
)
def test_an_architecture_that_one_of_the_two_does_not_know_is_refused_by_name_in_one_message(
    architecture, model_type, who, meant, planned, model
):
    config = json.loads((model / "config.json").read_text())
    changed = {**config, "architectures": [architecture], "model_type": model_type}
    (model / "config.json").write_text(json.dumps(changed))
    try:
        with pytest.raises(ModelError, match=f"not know the architecture {architecture}") as refused:
            planned()
    finally:
        (model / "config.json").write_text(json.dumps(config))
    said = str(refused.value)
    assert {name for name in ("mlx-lm", "llama.cpp's converter") if name in said.split(" not know ")[0]} == set(who)
    assert meant in said
    assert "make upgrade" in said


def test_the_largest_batch_is_one_that_training_makes(planned):
    found = planned(
        train={"batch_size": 8, "gradient_accumulation_steps": 2, "max_tokens_per_micro_batch": 200}
    ).experiments["main"]
    batch = found.largest_batch
    assert 150 < batch.rows * batch.length <= 200


def test_packed_rows_are_one_sequence_of_all_their_positions(planned):
    train = {"batch_size": 4, "gradient_accumulation_steps": 1, "packing": True}
    found = planned(train=train).experiments["main"]
    assert found.largest_batch == BatchShape(1, 58 + 57 + 56 + 55, 49 + 48 + 47 + 46)
    with pytest.raises(ResourceError, match=r"train\.packing false"):
        planned(train={"batch_size": 4, "gradient_accumulation_steps": 1, "packing": True, "memory_limit": 0.012})


def test_training_on_prompts_too_makes_every_token_but_the_first_a_target(planned):
    found = planned(train={"batch_size": 4, "gradient_accumulation_steps": 1, "train_on_prompts": True}).experiments[
        "main"
    ]
    assert found.largest_batch.num_target_tokens == 58 + 57 + 56 + 55


LENGTHS = st.lists(st.integers(20, 900), min_size=20, max_size=60)


@given(
    lengths=LENGTHS,
    rows=st.integers(1, 24),
    accumulation=st.integers(1, 4),
    method=st.sampled_from(["lora", "dora", "full"]),
    packing=st.booleans(),
    share=st.floats(0.05, 0.95),
)
@settings(max_examples=40, deadline=None)
def test_advice_of_any_kind_that_is_said_to_fit_does_when_it_is_followed(
    tmp_path_factory, lengths, rows, accumulation, method, packing, share
):
    folder = tmp_path_factory.mktemp("rows")
    given_train = {
        "batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "method": method,
        "packing": packing,
    }
    given_train |= {"gradient_checkpointing": False, "max_tokens_per_micro_batch": 4000}
    train = section(TrainConfig, **given_train)
    model = architecture.read(SHAPE)

    def stored(lengths):
        made = [(Rendered(list(range(n)), [False] * 10 + [True] * (n - 10)), 1.0) for n in lengths]
        write_store(folder / "rows.safetensors", made)
        return TokenStore(folder / "rows.safetensors")

    def total(model, train, lengths):
        shapes = forecast.largest_batches(stored(lengths), train, True)
        return max(resources.forecast_memory(model, train, shape, 4).total for shape in shapes)

    usable = int(share * total(model, train, lengths))
    store = stored(lengths)
    steps = resources.advice(
        model, train, lambda one, cut: forecast.largest_batches(store, one, True, cut), 4, usable, "cpu"
    )
    if not steps or steps[-1][1] > usable:
        return
    for words, _ in steps:
        if found := re.match(r"train\.batch_size (\d+) with gradient_accumulation_steps (\d+)", words):
            train = replace(train, batch_size=int(found[1]), gradient_accumulation_steps=int(found[2]))
        elif found := re.match(r"data\.max_length (\d+)", words):
            lengths = [min(length, int(found[1])) for length in lengths]
        elif words.startswith("a 4-bit base"):
            model = model.with_bits(4.5)
        else:
            key, value = re.match(r"train\.(\w+) (\w+)", words).groups()
            train = replace(train, **{key: {"true": True, "false": False}.get(value, value)})
    assert total(model, train, lengths) <= usable


def test_a_mixture_of_experts_is_planned_without_an_adapter_of_its_own(model, planned):
    config = json.loads((model / "config.json").read_text())
    mixture = config | {"num_experts": 8, "num_experts_per_tok": 2, "model_type": "qwen3_moe"}
    (model / "config.json").write_text(json.dumps(mixture))
    try:
        with pytest.raises(ModelError, match=r"mixture of experts .*package\.adapter: false"):
            planned()
        assert planned(package={"adapter": False}).experiments
        assert planned(train={"target_modules": ["q_proj", "v_proj"]}).experiments
    finally:
        (model / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("device", "dtype", "fits"),
    [("cpu", "auto", False), ("cuda", "auto", True), ("cuda", "float32", False)],
)
def test_workers_that_each_convert_a_base_are_refused_where_the_machine_cannot_hold_them(
    model, planned, monkeypatch, device, dtype, fits
):
    """Loaded as it is stored, a base stays a mapped file, which the workers share."""
    monkeypatch.setenv("SNAKETUNE_ENGINE", "torch")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16", "dtype": "bfloat16"}))
    base = resources.weight_bytes(architecture.read(config), 4)
    monkeypatch.setattr(forecast, "ram_bytes", lambda: 3 * base)
    keys = {"machine": msgspec.structs.replace(MACHINE, device=device), "model": {"dtype": dtype}}
    try:
        assert planned(**keys, train={"workers": 2, "fsdp": True}).experiments
        four = {"workers": 4, "fsdp": True}
        if fits:
            assert planned(**keys, train=four).experiments
        else:
            with pytest.raises(ResourceError, match=r"train\.fsdp: loading the base takes .* each of 4 workers"):
                planned(**keys, train=four)
            assert planned(**keys, train=four | {"memory_limit": 9.0}).experiments
    finally:
        (model / "config.json").write_text(json.dumps(config))


def test_the_plan_of_a_step_knows_each_section_with_the_keys_that_change_no_result():
    experiments = expand(msgspec.convert(configuration.complete({"run": "a", "grid": {"rank": [4, 2]}}), RunConfig))
    whole = [msgspec.to_builtins(one) for one in experiments.values()]
    tracked = [one | {"train": {k: v for k, v in one["train"].items() if k != "notify"}} for one in whole]
    left = {one["name"]: {"notify": one["train"]["notify"]} for one in whole}
    settings = {"max_length": 9, "max_lost": 0.5, "seed": 1, "engine": "torch"}
    untracked = {"train": left, "gguf": ["q8_0"], "adapter": True, "engine": {"name": "torch", "reason": "it is set"}}
    params = SimpleNamespace(config=json.dumps(settings | {"experiments": tracked}), untracked=json.dumps(untracked))
    found = forecast.PlanSettings.of_step(params)
    assert found.experiments == list(experiments.values())
    assert found.trainers == ["builtin", "builtin"]
    assert found.engine is not None
    assert found.engine.reason == "it is set"
