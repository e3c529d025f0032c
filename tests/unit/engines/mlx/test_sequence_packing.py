"""Rows that are packed into one sequence train exactly what they train one by one."""

import numpy as np
import pytest
import tiny_models
import training_callbacks
from snaketune.engines.mlx import loading, lora, memory
from snaketune.engines.mlx import loss as sequence_packing
from snaketune.engines.mlx.loss import ChunkedCrossEntropy
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import MicroBatching, collate

import mlx.core as mx  # isort: skip

UNPACKED, PACKED = MicroBatching(5, 1000), MicroBatching(5, 1000, multiple=8, packed=True)


class Model:
    """A tiny model with an adapter, its loss and its gradient of some rows."""

    def __init__(self, folder, architecture, recompute=False):
        tiny_models.write_model(folder / "model", architecture)
        rows = tiny_models.rows(5, shortest=3, longest=30)
        self.store = TokenStore(tiny_models.store(folder / "rows.safetensors", rows))
        self.model = loading.load(folder / "model").model
        lora.add_adapter(self.model, tiny_models.train_config(), seed=1)
        self.weights = {n: w + 0.03 for n, w in loading.flatten(self.model.trainable_parameters()).items()}
        seeds = memory.DropoutSeeds(1)
        memory.wrap_blocks(self.model, seeds, recompute=recompute)
        self.loss = ChunkedCrossEntropy(self.model)

    def gradient(self, batching):
        def value(weights):
            self.model.update(loading.unflatten(weights))
            return self.loss(collate(self.store, np.arange(5), batching))

        (_, loss), gradient = mx.value_and_grad(value)(self.weights)
        return float(loss), gradient


def plainly_causal(_, length, **__):
    return mx.tril(mx.ones((length, length), mx.bool_))


def without_a_cache(*_, **__):
    raise TypeError("this model has no cache")


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("architecture", tiny_models.CONFIGS)
def test_packed_loss_and_gradient_equal_those_of_unpacked_rows(tmp_path, architecture, recompute):
    model = Model(tmp_path, architecture, recompute)
    (loss, unpacked), (packed_loss, packed) = model.gradient(UNPACKED), model.gradient(PACKED)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    for name in unpacked:
        scale = max(1.0, float(mx.abs(unpacked[name]).max()))
        assert np.allclose(packed[name], unpacked[name], atol=1e-5 * scale), name


def test_packed_batch_holds_every_token_once_and_little_padding(tmp_path):
    store = TokenStore(tiny_models.store(tmp_path / "rows.safetensors", tiny_models.rows(5, longest=30)))
    batch = collate(store, np.arange(5), PACKED)
    assert batch.inputs.shape[0] == 1
    assert batch.num_positions - batch.num_tokens < 8
    for row in range(5):
        assert batch.inputs[0][batch.segments == row].tolist() == store.row(row)[0][:-1].tolist()


def test_packed_rows_under_a_plain_causal_mask_have_another_loss(tmp_path, monkeypatch):
    model = Model(tmp_path, "llama")
    expected, _ = model.gradient(UNPACKED)
    monkeypatch.setattr(sequence_packing.BlockDiagonalMaskCache, "make_mask", plainly_causal)
    loss, _ = model.gradient(PACKED)
    assert loss != pytest.approx(expected, rel=1e-3)


def train(folder, name, **changed):
    settings = {
        "batch_size": 8,
        "gradient_accumulation_steps": 1,
        "epochs": 3,
        "optimizer": "sgd",
        "learning_rate": 0.1,
    }
    return folder.train(name, **settings | changed)


def test_packed_training_equals_the_unpacked_one(tmp_path):
    folder = tiny_models.TrainingFolder(tmp_path)
    plain, together = train(folder, "plain"), train(folder, "packed", packing=True)
    assert together.positions_per_token == 1
    assert plain.best_validation_loss == pytest.approx(together.best_validation_loss, rel=1e-5)
    for name, one in folder.adapter("plain").items():
        assert np.abs(one - folder.adapter("packed")[name]).max() < 1e-5


def test_packed_training_that_was_stopped_ends_in_the_same_bytes(tmp_path):
    folder = tiny_models.TrainingFolder(tmp_path)
    changed = {"packing": True, "dropout": 0.2, "eval_steps": 2, "optimizer": "adamw"}
    train(folder, "whole", **changed)
    with pytest.raises(training_callbacks.Stopped):
        train(folder, "stopped", callback=training_callbacks.StopAt(6), **changed)
    train(folder, "stopped", **changed)
    whole, stopped = ((folder.folder / run / "adapters.safetensors").read_bytes() for run in ("whole", "stopped"))
    assert whole == stopped


@pytest.mark.parametrize("fault", [plainly_causal, without_a_cache])
@pytest.mark.parametrize("max_tokens", [None, 30])
def test_model_that_cannot_keep_packed_rows_apart_trains_them_unpacked_with_a_warning(
    tmp_path, monkeypatch, capsys, fault, max_tokens
):
    folder = tiny_models.TrainingFolder(tmp_path)
    plain = train(folder, "plain", epochs=1, max_tokens_per_micro_batch=max_tokens)
    monkeypatch.setattr(sequence_packing.BlockDiagonalMaskCache, "make_mask", fault)
    report = train(folder, "fallen back", epochs=1, max_tokens_per_micro_batch=max_tokens, packing=True)
    assert "cannot keep packed rows apart" in capsys.readouterr().err
    assert report.best_validation_loss == plain.best_validation_loss
    assert report.positions_per_token == plain.positions_per_token
