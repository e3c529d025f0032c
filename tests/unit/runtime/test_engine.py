"""Which engine a run uses, and what a step's code digest covers for it."""

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import msgspec
import pytest
from snaketune.config import schema, sections
from snaketune.errors import ConfigError
from snaketune.run_definition import define_run
from snaketune.runtime import engine
from snaketune.runtime.engine import choose_engine

ROOT = Path(__file__).resolve().parents[3]
GIVEN = {"run": "engines", "data": {"sources": [{"path": str(ROOT / "data" / "demo" / "train.jsonl")}]}}


def config(**given):
    return sections.load(GIVEN | given)


def test_named_engine_is_taken_and_the_reason_says_so():
    choice = choose_engine(config(engine="torch"), [])
    assert (choice.name, choice.reason) == ("torch", "engine: torch is set")


@pytest.mark.parametrize(
    ("platform", "machine", "card", "torch", "name", "reason"),
    [
        ("darwin", "arm64", False, "2.13.0", "mlx", "Apple silicon"),
        ("linux", "x86_64", True, "2.13.0", "torch", "NVIDIA card, which torch computes on"),
        ("linux", "x86_64", True, "2.13.0+cpu", "mlx", "built without CUDA"),
        ("linux", "aarch64", True, None, "mlx", "there is no torch"),
        ("linux", "x86_64", False, "2.13.0+cpu", "torch", "torch trains half as fast again"),
        ("linux", "x86_64", False, None, "mlx", "no GPU and no torch"),
        ("linux", "aarch64", False, "2.13.0", "mlx", "not measured on aarch64"),
    ],
)
def test_auto_takes_what_suits_the_machine(monkeypatch, platform, machine, card, torch, name, reason):
    pretend(monkeypatch, platform, machine, card, torch)
    choice = choose_engine(config(), [base("somebody/a-model")])
    assert choice.name == name
    assert reason in choice.reason


def pretend(monkeypatch, platform="linux", machine="x86_64", card=False, torch="2.13.0+cpu"):
    monkeypatch.setattr(engine.sys, "platform", platform)
    monkeypatch.setattr(engine.platform, "machine", lambda: machine)
    monkeypatch.setattr(engine, "has_nvidia_card", lambda: card)
    monkeypatch.setattr(engine, "torch_build", lambda: torch)


def base(name, **changed):
    return sections.load(GIVEN | {"model": {"base": str(name)} | changed}).model


def folder(path, size=30_000_000, **described):
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "llama"} | described), encoding="utf-8")
    with open(path / "model.safetensors", "wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    ("size", "described", "name", "reason"),
    [
        (30_000_000, {}, "torch", "half as fast again"),
        (1_000_000, {}, "mlx", "so small a base"),
        (30_000_000, {"quantization": {"bits": 4, "group_size": 64}}, "mlx", "quantized base as it is"),
        (30_000_000, {"num_experts": 8}, "mlx", "mixtures of experts"),
    ],
)
def test_auto_on_a_cpu_goes_by_the_base_in_its_folder(monkeypatch, tmp_path, size, described, name, reason):
    pretend(monkeypatch)
    choice = choose_engine(config(), [base(folder(tmp_path / "base", size, **described))])
    assert choice.name == name
    assert reason in choice.reason


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["demo"], "mlx"),
        (["demo", "somebody/a-model"], "torch"),
        (["mlx-community/gemma-2-2b-it-4bit"], "mlx"),
        (["mlx-community/gemma-2-2b-it-bf16"], "torch"),
    ],
)
def test_auto_on_a_cpu_goes_by_the_name_of_a_base_that_is_not_there_yet(monkeypatch, names, name):
    pretend(monkeypatch)
    assert choose_engine(config(), [base(one) for one in names]).name == name


def test_auto_on_a_cpu_keeps_what_only_mlx_can_do(monkeypatch):
    pretend(monkeypatch)
    quantized = base("somebody/a-model", quantize={"bits": 4})
    assert choose_engine(config(), [quantized]).name == "mlx"
    choice = choose_engine(config(package={"mlx": ["4bit"]}), [base("somebody/a-model")])
    assert (choice.name, "package.mlx" in choice.reason) == ("mlx", True)


def test_auto_on_a_card_goes_by_package_mlx_and_not_by_the_base(monkeypatch, tmp_path):
    pretend(monkeypatch, card=True, torch="2.13.0")
    of_mlx = base(folder(tmp_path / "base", 1_000_000, quantization={"bits": 4}, num_experts=8))
    assert choose_engine(config(), [of_mlx]).name == "torch"
    assert choose_engine(config(package={"mlx": ["4bit"]}), [of_mlx]).name == "mlx"
    with pytest.raises(ConfigError, match="does not quantize a base to the format affine"):
        choose_engine(config(), [base("somebody/a-model", quantize={"bits": 4})])


def test_engine_that_does_not_exist_is_refused_with_the_nearest_name():
    wrong = msgspec.structs.replace(config(), engine="torhc")
    with pytest.raises(ConfigError, match='no engine "torhc"; did you mean "torch"'):
        choose_engine(wrong, [])


def test_base_to_be_quantized_is_refused_with_torch_before_anything_runs():
    model = {"base": "demo", "quantize": {"bits": 4}}
    with pytest.raises(ConfigError, match="the torch engine does not quantize a base to the format affine") as error:
        define_run(schema.complete(GIVEN | {"engine": "torch", "model": model}))
    assert error.value.where == "model.quantize"


def test_nf4_is_taken_with_torch_on_a_card_and_refused_elsewhere(monkeypatch):
    quantized = base("somebody/a-model", quantize={"bits": 4, "mode": "nf4"})
    pretend(monkeypatch, card=True, torch="2.13.0")
    assert choose_engine(config(), [quantized]).name == "torch"
    with pytest.raises(ConfigError, match="NF4 has 4 bits, not 8"):
        choose_engine(config(), [base("somebody/a-model", quantize={"bits": 8, "mode": "nf4"})])
    for given in ({"engine": "mlx"}, {}):
        pretend(monkeypatch, card=bool(given))
        with pytest.raises(ConfigError, match="NF4 needs the torch engine on an NVIDIA card"):
            choose_engine(config(**given), [quantized])


@pytest.mark.parametrize(
    ("card", "name", "installed", "on_card"),
    [
        (True, "torch", {"torch": "2.13.0"}, True),
        (True, "torch", {"torch": "2.13.0+cpu"}, False),
        (True, "torch", {}, False),
        (False, "torch", {"torch": "2.13.0"}, False),
        (True, "mlx", {"mlx-cuda-13": "0.32.4", "torch": "2.13.0+cpu"}, True),
        (True, "mlx", {"mlx-cpu": "0.32.4", "torch": "2.13.0"}, False),
        (False, "mlx", {"mlx-cuda-12": "0.32.4"}, False),
    ],
)
def test_engine_computes_on_a_card_that_is_there_and_that_its_build_is_for(monkeypatch, card, name, installed, on_card):
    def version(package):
        if package not in installed:
            raise PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(engine, "has_nvidia_card", lambda: card)
    monkeypatch.setattr(engine, "version", version)
    assert engine.computes_on_card(name) is on_card
