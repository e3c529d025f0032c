"""Seeded dropout and recomputed activations."""

import mlx.core as mx
import numpy as np
import pytest
import tiny_models
from snaketune.engines.mlx import loading, lora, memory
from snaketune.engines.mlx.loss import ChunkedCrossEntropy
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import MicroBatching, collate


class Gradient:
    """Loss and gradient of one batch under a tiny model."""

    def __init__(self, tmp_path, *, recompute, architecture="llama", seed=1, **changed):
        tiny_models.write_model(tmp_path / "model", architecture)
        store = TokenStore(tiny_models.store(tmp_path / "rows.safetensors", tiny_models.rows(4)))
        self.batch = collate(store, np.arange(4), MicroBatching(4, 1000))
        self.model = loading.load(tmp_path / "model").model
        lora.add_adapter(self.model, tiny_models.train_config(**changed), seed=1)
        self.weights = {n: w + 0.03 for n, w in loading.flatten(self.model.trainable_parameters()).items()}
        self.model.train()
        self.seeds = memory.DropoutSeeds(seed)
        memory.wrap_blocks(self.model, self.seeds, recompute=recompute)
        self.loss = ChunkedCrossEntropy(self.model)

    def __call__(self, step=1):
        def value(weights):
            self.model.update(loading.unflatten(weights))
            return self.loss(self.batch)

        self.seeds.start(step)
        (_, loss), gradient = mx.value_and_grad(value)(self.weights)
        return float(loss), {name: np.array(one) for name, one in gradient.items()}


def same(first, second):
    return first[0] == pytest.approx(second[0], rel=1e-6) and all(
        np.allclose(one, second[1][name], atol=1e-5) for name, one in first[1].items()
    )


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_gradient_checkpointing_gives_the_same_gradients(tmp_path, method, dropout, architecture):
    plain, recomputed = (
        Gradient(tmp_path, recompute=one, method=method, dropout=dropout, architecture=architecture)()
        for one in (False, True)
    )
    assert same(plain, recomputed)


def test_dropout_differs_between_steps_seeds_and_blocks(tmp_path):
    gradient = Gradient(tmp_path, recompute=False, dropout=0.3)
    assert same(gradient(step=1), gradient(step=1))
    assert not same(gradient(step=1), gradient(step=2))
    assert not same(gradient(step=1), Gradient(tmp_path, recompute=False, dropout=0.3, seed=2)(step=1))
    seeds = memory.DropoutSeeds(1)
    assert len({seeds.next() for _ in range(100)}) == 100


def test_wrapping_blocks_leaves_other_models_of_the_same_kind_unchanged(tmp_path):
    changed = Gradient(tmp_path, recompute=True).model
    other = loading.load(tmp_path / "model").model
    assert type(other.layers[0]) is not type(changed.layers[0])
    assert type(other.layers[0]).__call__ is not type(changed.layers[0]).__call__
