"""One update of the trained weights."""

import mlx.core as mx
import mlx.optimizers
import numpy as np
import pytest
import tiny_models
from snaketune.engines.mlx import tensors
from snaketune.engines.mlx.optimizer import NAMES, Optimizer, Packing

WEIGHTS = {
    "a.lora_a": mx.array([[1.0, -2.0], [3.0, 4.0]]),
    "a.m": mx.array([1.0, 2.0, 3.0]),
    "b.lora_b": mx.ones((2, 3)),
}
GRADIENTS = {
    "a.lora_a": mx.array([[0.1, 0.2], [-0.3, 0.4]]),
    "a.m": mx.array([1.0, 0.0, 2.0]),
    "b.lora_b": 2 * mx.ones((2, 3)),
}


def stepped(times=1, gradients=GRADIENTS, loss=1.0, **changed):
    train = tiny_models.settings(**{"max_grad_norm": None, "weight_decay": 0.0} | changed)
    packing = Packing(WEIGHTS, train["optimizer"])
    packed = packing.pack(WEIGHTS)
    optimizer = Optimizer(train, packed)
    for _ in range(times):
        packed, norm, sound = optimizer.step(packed, packing.pack(gradients), mx.array(loss), train["learning_rate"])
    return packing.unpack(packed), float(norm), bool(sound), optimizer


def close(first, second):
    return all(np.allclose(first[name], second[name], rtol=1e-5, atol=1e-6) for name in second)


@pytest.mark.parametrize("name", NAMES)
def test_packed_weights_step_as_mlx_steps_them_one_by_one(name):
    makers = {
        "adam": lambda rate: mlx.optimizers.Adam(rate, bias_correction=True),
        "adamw": lambda rate: mlx.optimizers.AdamW(rate, weight_decay=0.0, bias_correction=True),
        "adafactor": lambda rate: mlx.optimizers.Adafactor(rate, scale_parameter=False, relative_step=False),
        "muon": lambda rate: mlx.optimizers.Muon(rate, weight_decay=0.0),
        "sgd": lambda rate: mlx.optimizers.SGD(rate, momentum=0.9),
        "lion": lambda rate: mlx.optimizers.Lion(rate),
        "rmsprop": mlx.optimizers.RMSprop,
        "adagrad": mlx.optimizers.Adagrad,
        "adadelta": mlx.optimizers.AdaDelta,
        "adamax": mlx.optimizers.Adamax,
    }
    plain = makers[name](0.01)
    tree = tensors.nested(WEIGHTS)
    for _ in range(3):
        tree = plain.apply_gradients(tensors.nested(GRADIENTS), tree)
    ours, *_ = stepped(times=3, optimizer=name, learning_rate=0.01)
    assert close(ours, tensors.flat(tree))


def test_the_gradient_is_clipped_by_its_norm_over_all_weights():
    norm = np.sqrt(sum(float((one * one).sum()) for one in GRADIENTS.values()))
    clipped, told, *_ = stepped(optimizer="sgd", max_grad_norm=1.0, learning_rate=0.1)
    assert told == pytest.approx(norm, rel=1e-6)
    assert close(clipped, {name: WEIGHTS[name] - 0.1 * one / norm for name, one in GRADIENTS.items()})


def test_a_gradient_below_the_limit_is_not_changed():
    assert close(stepped(optimizer="sgd", max_grad_norm=100.0)[0], stepped(optimizer="sgd")[0])


def test_weight_decay_shrinks_matrices_and_no_vectors():
    nothing = {name: mx.zeros_like(one) for name, one in GRADIENTS.items()}
    decayed, *_ = stepped(gradients=nothing, weight_decay=0.5, learning_rate=0.1)
    assert close(decayed, {"a.lora_a": 0.95 * WEIGHTS["a.lora_a"], "a.m": WEIGHTS["a.m"]})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["gradient", "loss"])
def test_an_update_that_is_not_finite_changes_neither_weights_nor_state(bad, where):
    gradients = GRADIENTS | ({"a.m": mx.array([1.0, bad, 1.0])} if where == "gradient" else {})
    weights, _, sound, optimizer = stepped(gradients=gradients, loss=bad if where == "loss" else 1.0, weight_decay=0.1)
    assert not sound
    assert close(weights, WEIGHTS)
    fresh = Optimizer(tiny_models.settings(), Packing(WEIGHTS, "adamw").pack(WEIGHTS)).state
    del fresh["learning_rate"]
    assert close(optimizer.state, fresh)


def test_state_survives_being_taken_out_and_put_back():
    _, _, _, optimizer = stepped(times=2)
    kept = optimizer.state
    other = Optimizer(tiny_models.settings(), Packing(WEIGHTS, "adamw").pack(WEIGHTS))
    other.state = kept
    assert close(other.state, kept)
