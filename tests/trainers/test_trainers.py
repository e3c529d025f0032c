"""Each trainer of the field trains for real, in its own environment; one that is not built is skipped.

`make trainer NAME=...` builds one, `make test-trainers` runs these.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import families
import msgspec
import numpy as np
import pytest
import tiny_models
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model
from snaketune import files
from snaketune.contracts.train import TrainingSummary
from snaketune.errors import ModelError, ResourceError, TrainingError
from snaketune.tokens.token_store import TokenStore
from snaketune.trainers import environment, train
from tiny_models import manifest_of

STEPS = 6


def built(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not (environment.FOLDER / name / "bin" / "python").exists(),
        reason=f"needs the trainer {name}: make trainer NAME={name}",
    )


TRAINERS = [
    pytest.param("trl", "torch", marks=built("trl"), id="trl"),
    pytest.param("mlx-lm", "torch", marks=[built("mlx-lm"), pytest.mark.slow], id="mlx-lm"),
    pytest.param("llama-factory", "torch", marks=[built("llama-factory"), pytest.mark.slow], id="llama-factory"),
    pytest.param("axolotl", "torch", marks=[built("axolotl"), pytest.mark.slow], id="axolotl"),
    pytest.param("unsloth", "torch", marks=[built("unsloth"), pytest.mark.slow], id="unsloth"),
    pytest.param("unsloth", "mlx", marks=[built("unsloth"), pytest.mark.slow], id="unsloth-mlx"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Llama with a tokenizer, and rows that have something to learn."""
    made = tiny_models.TrainingFolder(tmp_path_factory.mktemp("trainers"), train=40, valid=8)
    model = families.build(made.folder / "base", "smollm", dtype="float32")
    made.manifest = made.folder / "base.json"
    files.write_json(made.manifest, manifest_of(model))
    return made


def job(folder, name, out, **changed):
    settings = {"max_steps": STEPS, "eval_steps": 3, "batch_size": 4, "gradient_accumulation_steps": 1, "rank": 6}
    return folder.job(out, **(settings | {"trainer": name} | changed))


@pytest.fixture
def trained(folder):
    """Trains once for each trainer and set of settings."""

    def once(name, backend="torch", **changed) -> TrainingSummary:
        out = f"{name}-{backend}-" + "-".join(f"{key}-{value}" for key, value in changed.items())
        summary = folder.folder / out / "summary.json"
        if not summary.exists():
            os.environ["SNAKETUNE_UNSLOTH"] = backend
            try:
                train.train(job(folder, name, out, **changed))
            finally:
                del os.environ["SNAKETUNE_UNSLOTH"]
        return files.read_json(summary, TrainingSummary)

    return once


@pytest.mark.parametrize(("name", "backend"), TRAINERS)
def test_a_trainer_learns_and_leaves_an_adapter_that_mlx_lm_loads(folder, trained, name, backend):
    summary = trained(name, backend)
    assert summary.steps == STEPS
    assert summary.best_validation_loss < summary.base_validation_loss - 0.02
    out = folder.folder / f"{name}-{backend}-"
    model, _ = load_model(folder.folder / "base")
    load_adapters(model, str(out))
    timing = files.read_json(out / "timing.json")
    assert timing["cpu_seconds"] > 0
    assert timing["peak_resident_bytes"] > 50_000_000


@pytest.mark.parametrize(("name", "backend"), TRAINERS)
def test_a_trainer_says_its_versions_and_what_it_does_otherwise(trained, name, backend):
    record = trained(name, backend).trainer
    assert record.name == name
    package = {"llama-factory": "llamafactory"}.get(name, name)
    pins = environment.pins(name).read_text()
    assert f"{package}=={record.versions[package]}" in pins
    assert record.differences
    assert all(not sentence.endswith(".") for sentence in record.differences)


@pytest.mark.parametrize(("name", "backend"), TRAINERS)
def test_the_log_of_a_trainer_has_its_steps_in_order_and_validations_that_end_near_ours(folder, trained, name, backend):
    summary = trained(name, backend)
    metrics = folder.step_metrics(f"{name}-{backend}-")
    steps = [line.step for line in metrics]
    assert steps == sorted(set(steps))
    validations = dict(folder.validations(f"{name}-{backend}-"))
    assert len(validations) >= 2
    own = list(validations.values())[-1]
    assert own == pytest.approx(summary.best_validation_loss, rel=0.1)


@built("trl")
def test_dora_is_trained_and_written_with_its_magnitudes(folder, trained):
    summary = trained("trl", method="dora")
    names = folder.adapter("trl-torch-method-dora")
    assert any(name.endswith(".m") for name in names)
    assert summary.best_validation_loss < summary.base_validation_loss
    model, _ = load_model(folder.folder / "base")
    load_adapters(model, str(folder.folder / "trl-torch-method-dora"))


@built("trl")
def test_the_last_layer_alone_is_trained_where_num_layers_says_so(folder, trained):
    trained("trl", num_layers=1, target_modules=["q_proj", "up_proj"])
    out = next(folder.folder.glob("trl-torch-num_layers*"))
    config = files.read_json(out / "adapter_config.json")
    assert config["num_layers"] == 1
    assert config["lora_parameters"]["keys"] == ["mlp.up_proj", "self_attn.q_proj"]


@built("trl")
@built("llama-factory")
@pytest.mark.slow
def test_trl_and_llama_factory_come_out_equal_as_both_are_transformers_trainer(folder, trained):
    first, second = trained("trl"), trained("llama-factory")
    assert first.best_validation_loss == pytest.approx(second.best_validation_loss, abs=1e-5)
    mine, other = folder.adapter("trl-torch-"), folder.adapter("llama-factory-torch-")
    assert mine.keys() == other.keys()
    assert all(np.allclose(mine[name], other[name], atol=1e-4) for name in mine)


@built("trl")
@pytest.mark.slow
def test_an_interrupted_training_resumes_where_it_was_and_ends_in_the_same_adapter(folder, trained):
    settings = {"max_steps": 200, "eval_steps": 50, "learning_rate": 1e-3}
    whole = trained("trl", **settings)
    script = (
        "import msgspec, sys, pathlib\n"
        "from snaketune.contracts.train import TrainingJob\n"
        "from snaketune.trainers.train import train\n"
        "train(msgspec.json.decode(pathlib.Path(sys.argv[1]).read_bytes(), type=TrainingJob))\n"
    )
    asked = job(folder, "trl", "interrupted", **settings)
    files.write_json(folder.folder / "job.json", asked)
    running = subprocess.Popen(
        [sys.executable, "-c", script, str(folder.folder / "job.json")], stderr=subprocess.PIPE, text=True
    )
    log = Path(asked.outputs.checkpoints)
    deadline = time.monotonic() + 200
    while not any('"step": 20,' in path.read_text() for path in log.glob("*/events.jsonl")):
        assert time.monotonic() < deadline
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, words = running.communicate(timeout=100)
    assert running.returncode != 0
    assert "a checkpoint is saved" in words
    resumed = train.train(asked)
    assert resumed.best_validation_loss == pytest.approx(whole.best_validation_loss, abs=1e-5)
    assert [line.step for line in folder.step_metrics("interrupted")] == list(range(1, 201))
    assert files.read_json(folder.folder / "interrupted" / "timing.json")["resumed_from"] > 0


@built("trl")
def test_the_words_of_a_trainer_that_fails_are_in_the_message(folder):
    broken = job(folder, "trl", "broken")
    (folder.folder / "base" / "config.json").rename(folder.folder / "config.kept")
    config = files.read_json(folder.folder / "config.kept")
    files.write_json(folder.folder / "base" / "config.json", config | {"model_type": "unheard_of"})
    try:
        with pytest.raises(TrainingError, match=r"TRL stopped with exit code 1: .*unheard_of") as caught:
            train.train(broken)
    finally:
        (folder.folder / "config.kept").rename(folder.folder / "base" / "config.json")
    assert "trainer.log" in caught.value.where


@built("trl")
def test_a_base_that_mlx_has_quantized_is_refused_before_anything_runs(folder, tmp_path):
    model = families.build(tmp_path / "quantized", "smollm", quantize=4)
    files.write_json(tmp_path / "quantized.json", manifest_of(model))
    asked = msgspec.structs.replace(job(folder, "trl", "quantized"), model=str(tmp_path / "quantized.json"))
    with pytest.raises(ModelError, match="cannot train this base, which MLX has quantized"):
        train.train(asked)


def test_a_trainer_that_is_not_installed_is_named_when_a_training_starts(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    with pytest.raises(ResourceError, match="the trainer unsloth is not installed"):
        train.train(job(folder, "unsloth", "absent"))


def test_the_rows_of_the_store_fit_the_base(folder):
    largest = max(int(TokenStore(folder.train_store).row(number)[0].max()) for number in range(40))
    assert largest < files.read_json(folder.folder / "base" / "config.json")["vocab_size"]
