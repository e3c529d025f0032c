"""One optimizer step: its result, what it leaves alone, and its state."""

import mlx.core as mx
import mlx.optimizers
import numpy as np
import pytest
import tiny_models
from snaketune.engines.mlx import loading
from snaketune.engines.mlx.optimizer import NAMES, FlatParameters, Optimizer

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
    config = tiny_models.train_config(**{"max_grad_norm": None, "weight_decay": 0.0} | changed)
    flat_params = FlatParameters(WEIGHTS, config.optimizer)
    flat, gradients = flat_params.flatten(WEIGHTS), flat_params.flatten(gradients)
    optimizer = Optimizer(config, flat)
    for _ in range(times):
        flat, norm, is_finite = optimizer.step(flat, gradients, mx.array(loss), config.learning_rate)
    return flat_params.unflatten(flat), float(norm), bool(is_finite), optimizer


def new_optimizer(name="adamw"):
    flat_params = FlatParameters(WEIGHTS, name)
    config = tiny_models.train_config(optimizer=name, max_grad_norm=None, weight_decay=0.0)
    return Optimizer(config, flat_params.flatten(WEIGHTS)), flat_params


def close(first, second):
    return all(np.allclose(first[name], second[name], rtol=1e-5, atol=1e-6) for name in second)


@pytest.mark.parametrize("name", NAMES)
def test_flat_parameters_step_as_mlx_steps_them_one_by_one(name):
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
    tree = loading.unflatten(WEIGHTS)
    for _ in range(3):
        tree = plain.apply_gradients(loading.unflatten(GRADIENTS), tree)
    ours, *_ = stepped(times=3, optimizer=name, learning_rate=0.01)
    assert close(ours, loading.flatten(tree))


def test_gradient_is_clipped_by_its_norm_over_all_weights():
    norm = np.sqrt(sum(float((one * one).sum()) for one in GRADIENTS.values()))
    clipped, reported, *_ = stepped(optimizer="sgd", max_grad_norm=1.0, learning_rate=0.1)
    assert reported == pytest.approx(norm, rel=1e-6)
    assert close(clipped, {name: WEIGHTS[name] - 0.1 * one / norm for name, one in GRADIENTS.items()})


def test_gradient_below_max_grad_norm_is_not_changed():
    assert close(stepped(optimizer="sgd", max_grad_norm=100.0)[0], stepped(optimizer="sgd")[0])


def test_weight_decay_shrinks_matrices_but_not_vectors():
    nothing = {name: mx.zeros_like(one) for name, one in GRADIENTS.items()}
    decayed, *_ = stepped(gradients=nothing, weight_decay=0.5, learning_rate=0.1)
    assert close(decayed, {"a.lora_a": 0.95 * WEIGHTS["a.lora_a"], "a.m": WEIGHTS["a.m"]})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["gradient", "loss"])
def test_nonfinite_step_changes_neither_weights_nor_state(bad, where):
    gradients = GRADIENTS | ({"a.m": mx.array([1.0, bad, 1.0])} if where == "gradient" else {})
    weights, _, is_finite, optimizer = stepped(
        gradients=gradients, loss=bad if where == "loss" else 1.0, weight_decay=0.1
    )
    assert not is_finite
    assert close(weights, WEIGHTS)
    fresh = new_optimizer()[0].state
    del fresh["learning_rate"]
    assert close(optimizer.state, fresh)


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_goes_on_from_a_loaded_state_as_without_the_break(name):
    straight, *_ = stepped(times=3, optimizer=name)
    weights, _, _, optimizer = stepped(times=2, optimizer=name)
    resumed, flat_params = new_optimizer(name)
    flat = flat_params.flatten(weights)
    resumed.load_state(flat, optimizer.state)
    flat, *_ = resumed.step(
        flat, flat_params.flatten(GRADIENTS), mx.array(1.0), tiny_models.train_config().learning_rate
    )
    assert all(mx.array_equal(flat_params.unflatten(flat)[name], straight[name]).item() for name in straight)
