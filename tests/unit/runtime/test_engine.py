"""Which engine a run uses, and what a step's code digest covers for it."""

from pathlib import Path

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
        ("linux", "x86_64", False, "2.13.0", "mlx", "there is no GPU"),
    ],
)
def test_auto_takes_what_suits_the_machine(monkeypatch, platform, machine, card, torch, name, reason):
    monkeypatch.setattr(engine.sys, "platform", platform)
    monkeypatch.setattr(engine.platform, "machine", lambda: machine)
    monkeypatch.setattr(engine, "has_nvidia_card", lambda: card)
    monkeypatch.setattr(engine, "torch_build", lambda: torch)
    choice = choose_engine(config(), [])
    assert choice.name == name
    assert reason in choice.reason


def test_base_to_be_quantized_is_refused_with_torch_before_anything_runs():
    model = {"base": "demo", "quantize": {"bits": 4}}
    with pytest.raises(ConfigError, match="the torch engine does not quantize a base") as error:
        define_run(schema.complete(GIVEN | {"engine": "torch", "model": model}))
    assert error.value.where == "model.quantize"
