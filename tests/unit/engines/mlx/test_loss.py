"""Chunked cross-entropy equals the loss of full logits, for every shape of model, and so does its gradient."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny_models
from snaketune.engines.mlx import loading, lora
from snaketune.engines.mlx import loss as loss_module
from snaketune.engines.mlx.loss import ChunkedCrossEntropy
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import MicroBatching, collate


@pytest.fixture(params=tiny_models.CONFIGS)
def model(request, tmp_path):
    tiny_models.write_model(tmp_path / "model", request.param)
    return loading.load(tmp_path / "model").model


@pytest.fixture
def batch(tmp_path):
    store = TokenStore(tiny_models.store(tmp_path / "rows.safetensors", tiny_models.rows(6)))
    return collate(store, np.arange(6), MicroBatching(6, 1000))


def plainly(model, batch):
    logits = model(mx.array(batch.inputs)).reshape(-1, tiny_models.VOCABULARY)
    return nn.losses.cross_entropy(logits[mx.array(batch.target_positions)], mx.array(batch.labels)).sum()


def gradients(model, function):
    value, found = nn.value_and_grad(model, function)(model)
    return value, loading.flatten(found)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunked_loss_and_gradient_equal_those_of_full_logits(model, batch, chunk, monkeypatch):
    monkeypatch.setattr(loss_module, "LOSS_SLICE_BYTES", 4 * tiny_models.VOCABULARY * chunk)
    lora.add_adapter(model, tiny_models.train_config(), seed=3)
    model.update(
        loading.unflatten({name: one + 0.05 for name, one in loading.flatten(model.trainable_parameters()).items()})
    )
    loss = ChunkedCrossEntropy(model)
    assert loss.owner is not None
    assert float(loss.value(batch)) == pytest.approx(float(plainly(model, batch)), rel=1e-5)
    _, ours = gradients(model, lambda _: loss(batch)[0])
    _, plain = gradients(model, lambda one: plainly(one, batch))
    assert ours.keys() == plain.keys()
    for name in plain:
        assert np.allclose(ours[name], plain[name], atol=2e-4), name


def test_gradient_of_a_trained_head_equals_that_of_full_logits(model, batch):
    lora.add_adapter(model, tiny_models.train_config(method="full"), seed=3)
    loss = ChunkedCrossEntropy(model)
    assert loss.head_is_trained
    _, ours = gradients(model, lambda _: loss(batch)[0])
    _, plain = gradients(model, lambda one: plainly(one, batch))
    for name in plain:
        assert np.allclose(ours[name], plain[name], atol=2e-4), name


def test_logits_are_made_for_target_positions_only(model, batch, monkeypatch):
    made = []
    cross_entropy = loss_module.cross_entropy

    def counted(logits, labels):
        made.append(len(logits))
        return cross_entropy(logits, labels)

    monkeypatch.setattr(loss_module, "cross_entropy", counted)
    ChunkedCrossEntropy(model).value(batch)
    assert sum(made) == len(batch.labels) < batch.num_positions


def test_head_that_fails_the_probe_makes_the_loss_use_all_logits_with_a_warning(model, batch, capsys):
    loss = ChunkedCrossEntropy(model)
    plain = type(loss.owner)

    def odd(self, inputs, *rest, **more):
        return plain.__call__(self, inputs, *rest, **more) * (2 if inputs.any() else 1)

    loss.owner.__class__ = type("Odd", (plain,), {"__call__": odd})
    loss.probe_split_head(batch)
    assert loss.owner is None
    assert "slower and takes more memory" in capsys.readouterr().err
    assert float(loss.value(batch)) == pytest.approx(float(plainly(model, batch)), rel=1e-5)


def test_ordinary_head_passes_the_probe_without_a_warning(model, batch, capsys):
    loss = ChunkedCrossEntropy(model)
    loss.probe_split_head(batch)
    assert loss.owner is not None
    assert capsys.readouterr().err == ""


def test_loss_of_a_padded_batch_equals_the_sum_of_single_rows(model, tmp_path):
    store = TokenStore(tiny_models.store(tmp_path / "rows.safetensors", tiny_models.rows(5, shortest=3, longest=40)))
    loss = ChunkedCrossEntropy(model)
    padded = float(loss.value(collate(store, np.arange(5), MicroBatching(5, 1000, multiple=32))))
    single = sum(float(loss.value(collate(store, np.array([row]), MicroBatching(1, 1000)))) for row in range(5))
    assert padded == pytest.approx(single, rel=1e-5)
