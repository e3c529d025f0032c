"""The loss at trained positions equals the plain one, for every shape of model, and so does its gradient."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny_models
from snaketune.engines.mlx import loading, lora, tensors
from snaketune.engines.mlx import loss as losses
from snaketune.engines.mlx.loss import Loss
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import Cutting, gather


@pytest.fixture(params=tiny_models.CONFIGS)
def model(request, tmp_path):
    tiny_models.write_model(tmp_path / "model", request.param)
    return loading.load(tmp_path / "model").model


@pytest.fixture
def batch(tmp_path):
    store = TokenStore(tiny_models.store(tmp_path / "rows.safetensors", tiny_models.rows(6)))
    return gather(store, np.arange(6), Cutting(6, 1000))


def plainly(model, batch):
    logits = model(mx.array(batch.inputs)).reshape(-1, tiny_models.VOCABULARY)
    return nn.losses.cross_entropy(logits[mx.array(batch.places)], mx.array(batch.targets)).sum()


def gradients(model, function):
    value, found = nn.value_and_grad(model, function)(model)
    return value, tensors.flat(found)


@pytest.mark.parametrize("positions", [1, 7, 1000])
def test_loss_and_gradient_are_those_of_full_logits(model, batch, positions, monkeypatch):
    monkeypatch.setattr(losses, "SLICE_BYTES", 4 * tiny_models.VOCABULARY * positions)
    lora.attach(model, tiny_models.settings(), seed=3)
    model.update(tensors.nested({name: one + 0.05 for name, one in tensors.flat(model.trainable_parameters()).items()}))
    loss = Loss(model)
    assert loss.owner is not None
    assert float(loss.value(batch)) == pytest.approx(float(plainly(model, batch)), rel=1e-5)
    _, ours = gradients(model, lambda _: loss(batch)[0])
    _, plain = gradients(model, lambda one: plainly(one, batch))
    assert ours.keys() == plain.keys()
    for name in plain:
        assert np.allclose(ours[name], plain[name], atol=2e-4), name


def test_the_gradient_of_a_trained_head_is_right_too(model, batch):
    lora.attach(model, tiny_models.settings(method="full"), seed=3)
    loss = Loss(model)
    assert loss.head_is_trained
    _, ours = gradients(model, lambda _: loss(batch)[0])
    _, plain = gradients(model, lambda one: plainly(one, batch))
    for name in plain:
        assert np.allclose(ours[name], plain[name], atol=2e-4), name


def test_no_logits_are_made_for_positions_that_are_not_trained(model, batch, monkeypatch):
    made = []
    entropy = losses.cross_entropy

    def counted(logits, targets):
        made.append(len(logits))
        return entropy(logits, targets)

    monkeypatch.setattr(losses, "cross_entropy", counted)
    Loss(model).value(batch)
    assert sum(made) == len(batch.targets) < batch.positions


def test_a_head_that_works_otherwise_is_found_out_and_all_logits_are_made(model, batch, capsys):
    loss = Loss(model)
    plain = type(loss.owner)

    def odd(self, inputs, *rest, **more):
        return plain.__call__(self, inputs, *rest, **more) * (2 if inputs.any() else 1)

    loss.owner.__class__ = type("Odd", (plain,), {"__call__": odd})
    loss.check(batch)
    assert loss.owner is None
    assert "slower and takes more memory" in capsys.readouterr().err
    assert float(loss.value(batch)) == pytest.approx(float(plainly(model, batch)), rel=1e-5)


def test_an_ordinary_head_passes_the_check_in_silence(model, batch, capsys):
    loss = Loss(model)
    loss.check(batch)
    assert loss.owner is not None
    assert capsys.readouterr().err == ""


def test_padding_has_no_part_in_the_loss(model, tmp_path):
    store = TokenStore(tiny_models.store(tmp_path / "rows.safetensors", tiny_models.rows(5, shortest=3, longest=40)))
    loss = Loss(model)
    together = float(loss.value(gather(store, np.arange(5), Cutting(5, 1000, multiple=32))))
    alone = sum(float(loss.value(gather(store, np.array([row]), Cutting(1, 1000)))) for row in range(5))
    assert together == pytest.approx(alone, rel=1e-5)
