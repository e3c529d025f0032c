"""Prompt tuning is the same training in both engines, and its fused model computes what was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_models
from safetensors.numpy import load_file, save_file
from snaketune import files
from snaketune.engines.interface import LoadOptions, LoglikelihoodRequest
from snaketune.engines.mlx import export as mlx_export
from snaketune.engines.mlx import language_model as mlx_models
from snaketune.engines.mlx import train as mlx_train
from snaketune.engines.torch import export as torch_export
from snaketune.engines.torch import language_model as torch_models
from snaketune.engines.torch import train as torch_train
from snaketune.tokens.chat_template import Rendered
from snaketune.tokens.token_store import write_store
from snaketune.train.metrics_log import TrainingCallback

COUNT, FIRST = 4, tiny_models.VOCABULARY
SETTINGS = {"method": "prompt", "num_virtual_tokens": COUNT, "learning_rate": 0.05, "dropout": 0.0}
ENGINES = {"mlx": mlx_train, "torch": torch_train}
EXPORTERS = {"mlx": mlx_export, "torch": torch_export}
MODELS = {"mlx": mlx_models, "torch": torch_models}
ROWS = tiny_models.rows(9, seed=4)
SHAPES = ("llama", "llama-untied", "qwen3", "gemma3", "gemma3-multimodal")


def tuned_rows(rows: list[Rendered], first: int) -> list[Rendered]:
    """Rows with the virtual tokens after their first token."""
    ids = list(range(first, first + COUNT))
    return [
        Rendered([row.ids[0], *ids, *row.ids[1:]], [row.loss_mask[0], *[False] * COUNT, *row.loss_mask[1:]])
        for row in rows
    ]


def training_folder(
    path: Path, shape: str = "llama", first: int = tiny_models.VOCABULARY
) -> tiny_models.TrainingFolder:
    """A base and rows with virtual tokens whose ids begin with `first`."""
    folder = tiny_models.TrainingFolder(path, shape)
    ids = range(first, first + COUNT)
    for store, rows in ((folder.train_store, tiny_models.rows(24)), (folder.valid_store, tiny_models.rows(7, seed=1))):
        write_store(store, [(row, 1.0) for row in tuned_rows(rows, first)], ids)
    return folder


def requests(rows: list[Rendered]) -> list[LoglikelihoodRequest]:
    return [LoglikelihoodRequest(row.ids, row.loss_mask) for row in rows]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_losses_are_the_same_in_both_engines(tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """hidden size 64: mlx-lm rounds the root that gemma's embeddings are multiplied by to bfloat16, 8 is exact."""
    text = tiny_models.CONFIGS[shape]
    wide = {"hidden_size": 64}
    nested = {"text_config": text["text_config"] | wide} if "text_config" in text else wide
    monkeypatch.setitem(tiny_models.CONFIGS, shape, text | nested)
    folder = training_folder(tmp_path, shape)
    losses = {}
    for name, engine in ENGINES.items():
        summary = engine.train(folder.job(name, max_steps=20, **SETTINGS | {"learning_rate": 5e-3}))
        losses[name] = [line.loss for line in folder.step_metrics(name)]
        assert summary.best_validation_loss < summary.base_validation_loss
        assert summary.trainable_parameters == COUNT * 64
    np.testing.assert_allclose(losses["torch"], losses["mlx"], atol=1e-4, rtol=0)
    mlx, torch = folder.adapter("mlx"), folder.adapter("torch")
    assert mlx.keys() == torch.keys()
    assert (tmp_path / "mlx/adapter_config.json").read_bytes() == (tmp_path / "torch/adapter_config.json").read_bytes()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_base_s_loss_is_that_of_rows_without_virtual_tokens(tmp_path: Path, engine: str) -> None:
    folder = training_folder(tmp_path)
    tuned = ENGINES[engine].train(folder.job("tuned", max_steps=2, **SETTINGS))
    plain = tiny_models.TrainingFolder(tmp_path / "plain")
    lora = ENGINES[engine].train(plain.job("lora", max_steps=2))
    assert tuned.base_validation_loss == pytest.approx(lora.base_validation_loss, abs=1e-6)
    assert folder.validations("tuned")[0][1] != pytest.approx(lora.base_validation_loss, abs=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tuned_model_is_its_base_where_no_virtual_token_stands(tmp_path: Path, engine: str) -> None:
    folder = training_folder(tmp_path)
    ENGINES[engine].train(folder.job("out", max_steps=10, **SETTINGS))
    options = LoadOptions(adapter=tmp_path / "out", exact=True)
    model, base = (
        MODELS[engine].load(tmp_path / "model", options),
        MODELS[engine].load(tmp_path / "model", LoadOptions()),
    )
    with model.without_adapter() as is_base:
        assert is_base
        assert list(model.loglikelihood(requests(ROWS))) == list(base.loglikelihood(requests(ROWS)))
    tuned = tuned_rows(ROWS, FIRST)
    assert sum(model.loglikelihood(requests(tuned))) > sum(base.loglikelihood(requests(ROWS)))


@pytest.mark.parametrize("shape", ["llama", "gemma3"])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_norm_of_the_longest_vector_is_told_in_norms_of_a_word(tmp_path: Path, engine: str, shape: str) -> None:
    folder = training_folder(tmp_path, shape)
    ENGINES["mlx"].train(folder.job("out", max_steps=2, **SETTINGS))
    ((name, vectors),) = folder.adapter("out").items()
    words = load_file(tmp_path / "model/model.safetensors")["model.embed_tokens.weight"]
    vectors[1] *= 1000
    save_file({name: vectors}, tmp_path / "out/adapters.safetensors", {"format": "pt"})
    model = MODELS[engine].load(tmp_path / "model", LoadOptions(adapter=tmp_path / "out"))
    expected = np.linalg.norm(vectors, axis=1).max() / np.sqrt((words**2).sum(1).mean())
    assert model.adapter_norm_ratio() == pytest.approx(expected, rel=1e-4)
    assert expected > 256
    assert MODELS[engine].load(tmp_path / "model", LoadOptions()).adapter_norm_ratio() is None


@pytest.mark.parametrize("first", [FIRST - 6, FIRST, FIRST + 2])
@pytest.mark.parametrize("shape", ["llama", "llama-untied", "gemma3"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_fused_model_computes_what_was_trained(tmp_path: Path, engine: str, shape: str, first: int) -> None:
    """Whether the tokenizer has fewer tokens than the embedding rows, as many, or more."""
    folder = training_folder(tmp_path, shape, first)
    ENGINES[engine].train(folder.job("out", max_steps=15, **SETTINGS))
    fused = tmp_path / "fused"
    written = EXPORTERS[engine].fuse(tmp_path / "model", tmp_path / "out", fused)
    config = files.read_json(tmp_path / "model" / "config.json") | written.config
    files.write_json(fused / "config.json", config)
    exact = EXPORTERS[engine].merge(tmp_path / "model", tmp_path / "out")
    save_file({name: tensor.load() for name, tensor in exact.items()}, fused / "model.safetensors", {"format": "pt"})
    assert config["vocab_size"] == max(FIRST, first + COUNT)
    words = min(first, FIRST)
    known = [Rendered([token if token < words else 3 for token in row.ids], row.loss_mask) for row in ROWS]
    rows = [row.ids for row in tuned_rows(known, first)]
    positions = [list(range(len(row))) for row in rows]
    adapted = MODELS[engine].load(tmp_path / "model", LoadOptions(adapter=tmp_path / "out", exact=True))
    expected = np.concatenate(list(adapted.next_token_logprobs(rows, positions)))
    for model in MODELS.values():
        found = np.concatenate(list(model.load(fused, LoadOptions(exact=True)).next_token_logprobs(rows, positions)))
        np.testing.assert_allclose(among(found, words), among(expected, words), atol=2e-3, rtol=0)
        said = np.exp(found[:, first : first + COUNT])
        assert (said <= 1 / FIRST).all()
        assert (found.argmax(-1) < max(words, FIRST)).all()


def among(logprobs: np.ndarray, words: int) -> np.ndarray:
    """The log-probabilities of the first tokens, given that it is one of them."""
    chosen = logprobs[:, :words]
    return chosen - np.log(np.exp(chosen).sum(-1, keepdims=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_fuse_to_the_same_weights(tmp_path: Path, engine: str) -> None:
    folder = training_folder(tmp_path)
    ENGINES[engine].train(folder.job("out", max_steps=5, **SETTINGS))
    merged = [one.merge(tmp_path / "model", tmp_path / "out") for one in EXPORTERS.values()]
    assert merged[0].keys() == merged[1].keys()
    for name, tensor in merged[0].items():
        assert tensor.shape == merged[1][name].shape
        np.testing.assert_allclose(tensor.load(), merged[1][name].load(), atol=1e-6)


class Interrupt(TrainingCallback):
    """Ends a training as a kill would, after a checkpoint."""

    def on_checkpoint(self, step: int) -> None:
        if step >= 5:
            raise KeyboardInterrupt


@pytest.mark.parametrize("engine", ENGINES)
def test_resumed_prompt_tuning_ends_in_the_same_bytes(tmp_path: Path, engine: str) -> None:
    folder, train = training_folder(tmp_path), ENGINES[engine].train
    options = SETTINGS | {"max_steps": 12, "eval_steps": 5}
    train(folder.job("whole", **options))
    with pytest.raises(KeyboardInterrupt):
        train(folder.job("halved", **options), Interrupt())
    train(folder.job("halved", **options))
    for file in ("adapters.safetensors", "metrics.jsonl", "summary.json", "adapter_config.json"):
        assert (tmp_path / "halved" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


@pytest.mark.slow
def test_training_on_two_processes_equals_that_on_one(tmp_path: Path) -> None:
    folder = training_folder(tmp_path)
    options = SETTINGS | {"epochs": 2, "batch_size": 2, "gradient_accumulation_steps": 2}
    torch_train.train(folder.job("one", **options))
    torch_train.train(folder.job("two", workers=2, **options))
    (one,), (two,) = folder.adapter("one").values(), folder.adapter("two").values()
    np.testing.assert_allclose(two, one, atol=1e-5, rtol=0)
