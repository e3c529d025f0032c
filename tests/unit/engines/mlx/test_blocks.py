"""Seeded dropout and recomputed activations."""

import mlx.core as mx
import numpy as np
import pytest
import tiny_models
from snaketune.engines.mlx import checkpointed_blocks, loading, lora, tensors
from snaketune.engines.mlx.loss import Loss
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import Cutting, gather


class Gradient:
    """Loss and gradient of one batch under a tiny model."""

    def __init__(self, tmp_path, *, recompute, architecture="llama", seed=1, **changed):
        tiny_models.write_model(tmp_path / "model", architecture)
        store = TokenStore(tiny_models.store(tmp_path / "rows.safetensors", tiny_models.rows(4)))
        self.batch = gather(store, np.arange(4), Cutting(4, 1000))
        self.model = loading.load(tmp_path / "model").model
        lora.attach(self.model, tiny_models.settings(**changed), seed=1)
        self.weights = {n: w + 0.03 for n, w in tensors.flat(self.model.trainable_parameters()).items()}
        self.model.train()
        self.draws = checkpointed_blocks.Draws(seed)
        checkpointed_blocks.prepare(self.model, self.draws, recompute=recompute)
        self.loss = Loss(self.model)

    def __call__(self, update=1):
        def value(weights):
            self.model.update(tensors.nested(weights))
            return self.loss(self.batch)

        self.draws.start(update)
        (_, loss), gradient = mx.value_and_grad(value)(self.weights)
        return float(loss), {name: np.array(one) for name, one in gradient.items()}


def same(first, second):
    return first[0] == pytest.approx(second[0], rel=1e-6) and all(
        np.allclose(one, second[1][name], atol=1e-5) for name, one in first[1].items()
    )


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_recomputing_activations_gives_the_same_gradients(tmp_path, method, dropout, architecture):
    plain, recomputed = (
        Gradient(tmp_path, recompute=one, method=method, dropout=dropout, architecture=architecture)()
        for one in (False, True)
    )
    assert same(plain, recomputed)


def test_another_update_another_seed_and_another_block_drop_other_inputs(tmp_path):
    gradient = Gradient(tmp_path, recompute=False, dropout=0.3)
    assert same(gradient(update=1), gradient(update=1))
    assert not same(gradient(update=1), gradient(update=2))
    assert not same(gradient(update=1), Gradient(tmp_path, recompute=False, dropout=0.3, seed=2)(update=1))
    draws = checkpointed_blocks.Draws(1)
    assert len({draws.next() for _ in range(100)}) == 100


def test_other_models_of_the_same_kind_are_left_alone(tmp_path):
    changed = Gradient(tmp_path, recompute=True).model
    other = loading.load(tmp_path / "model").model
    assert type(other.layers[0]) is not type(changed.layers[0])
    assert type(other.layers[0]).__call__ is not type(changed.layers[0]).__call__
