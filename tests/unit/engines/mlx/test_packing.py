"""Rows packed into one sequence train exactly what they train alone."""

import numpy as np
import pytest
import tiny_models
from snaketune.engines.mlx import checkpointed_blocks, loading, lora, sequence_packing, tensors, trainer
from snaketune.engines.mlx.loss import Loss
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import Cutting, gather

import mlx.core as mx  # isort: skip

ALONE, PACKED = Cutting(5, 1000), Cutting(5, 1000, multiple=8, packed=True)


class Model:
    """A tiny model with an adapter, its loss and its gradient of some rows."""

    def __init__(self, folder, architecture, recompute=False):
        tiny_models.write_model(folder / "model", architecture)
        made = tiny_models.rows(5, shortest=3, longest=30)
        self.store = TokenStore(tiny_models.store(folder / "rows.safetensors", made))
        self.model = loading.load(folder / "model").model
        lora.attach(self.model, tiny_models.settings(), seed=1)
        self.weights = {n: w + 0.03 for n, w in tensors.flat(self.model.trainable_parameters()).items()}
        self.draws = checkpointed_blocks.Draws(1)
        checkpointed_blocks.prepare(self.model, self.draws, recompute=recompute)
        self.loss = Loss(self.model)

    def gradient(self, cutting):
        def value(weights):
            self.model.update(tensors.nested(weights))
            return self.loss(gather(self.store, np.arange(5), cutting))

        (_, loss), found = mx.value_and_grad(value)(self.weights)
        return float(loss), found


def plainly_causal(_, length, **__):
    return mx.tril(mx.ones((length, length), mx.bool_))


def without_a_cache(*_, **__):
    raise TypeError("this model has no cache")


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("architecture", tiny_models.CONFIGS)
def test_loss_and_gradient_are_those_of_the_rows_alone(tmp_path, architecture, recompute):
    model = Model(tmp_path, architecture, recompute)
    (loss, alone), (packed_loss, packed) = model.gradient(ALONE), model.gradient(PACKED)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    for name in alone:
        scale = max(1.0, float(mx.abs(alone[name]).max()))
        assert np.allclose(packed[name], alone[name], atol=1e-5 * scale), name


def test_a_packed_batch_holds_every_token_once_and_little_else(tmp_path):
    store = TokenStore(tiny_models.store(tmp_path / "rows.safetensors", tiny_models.rows(5, longest=30)))
    batch = gather(store, np.arange(5), PACKED)
    assert batch.inputs.shape[0] == 1
    assert batch.positions - batch.tokens < 8
    for row in range(5):
        assert batch.inputs[0][batch.segments == row].tolist() == store.row(row)[0][:-1].tolist()


def test_no_row_sees_another(tmp_path, monkeypatch):
    model = Model(tmp_path, "llama")
    expected, _ = model.gradient(ALONE)
    monkeypatch.setattr(sequence_packing.Isolated, "make_mask", plainly_causal)
    seen, _ = model.gradient(PACKED)
    assert seen != pytest.approx(expected, rel=1e-3)


def packed(place, name, **changed):
    given = {"batch_size": 8, "gradient_accumulation_steps": 1, "epochs": 3, "optimizer": "sgd", "learning_rate": 0.1}
    return place.train(name, **given | changed)


def test_a_packed_training_is_the_same_training(tmp_path):
    place = tiny_models.Workplace(tmp_path)
    plain, together = packed(place, "plain"), packed(place, "packed", packing=True)
    assert together["positions_per_token"] == 1
    assert plain["best_validation_loss"] == pytest.approx(together["best_validation_loss"], rel=1e-5)
    for name, one in place.adapter("plain").items():
        assert np.abs(one - place.adapter("packed")[name]).max() < 1e-5


def test_a_packed_training_that_was_stopped_ends_in_the_same_bytes(tmp_path, monkeypatch):
    place = tiny_models.Workplace(tmp_path)
    changed = {"packing": True, "dropout": 0.2, "eval_steps": 2, "optimizer": "adamw"}
    packed(place, "whole", **changed)
    update = trainer.Run._update

    def stopping(run, number):
        if number == 6:
            raise KeyboardInterrupt
        return update(run, number)

    monkeypatch.setattr(trainer.Run, "_update", stopping)
    with pytest.raises(KeyboardInterrupt):
        packed(place, "stopped", **changed)
    monkeypatch.setattr(trainer.Run, "_update", update)
    packed(place, "stopped", **changed)
    whole, stopped = ((place.folder / run / "adapters.safetensors").read_bytes() for run in ("whole", "stopped"))
    assert whole == stopped


@pytest.mark.parametrize("fault", [plainly_causal, without_a_cache])
@pytest.mark.parametrize("positions", [None, 30])
def test_a_model_that_cannot_keep_rows_apart_trains_them_unpacked_and_says_so(
    tmp_path, monkeypatch, capsys, fault, positions
):
    place = tiny_models.Workplace(tmp_path)
    plain = packed(place, "plain", epochs=1, max_tokens_per_micro_batch=positions)
    monkeypatch.setattr(sequence_packing.Isolated, "make_mask", fault)
    report = packed(place, "fallen back", epochs=1, max_tokens_per_micro_batch=positions, packing=True)
    assert "cannot keep packed rows apart" in capsys.readouterr().err
    assert report["best_validation_loss"] == plain["best_validation_loss"]
    assert report["positions_per_token"] == plain["positions_per_token"]
