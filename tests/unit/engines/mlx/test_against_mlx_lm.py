"""Against mlx-lm's own trainer, where its faults do not show; and every signature of mlx-lm that the trainer uses."""

import inspect

import mlx.optimizers
import numpy as np
import pytest
import tiny_models
from mlx_lm import utils
from mlx_lm.models import switch_layers
from mlx_lm.tuner import trainer as theirs
from mlx_lm.tuner import utils as tuner
from mlx_lm.tuner.callbacks import TrainingCallback
from snaketune.engines.mlx import lora
from snaketune.tokens.chat_template import Rendered
from snaketune.train import batches

LENGTH, BATCH, UPDATES, RATE = 24, 4, 20, 5e-3


class Losses(TrainingCallback):
    def __init__(self):
        self.seen = []

    def on_train_loss_report(self, info):
        self.seen.append(info["train_loss"])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_losses_are_those_of_mlx_lm_on_rows_of_equal_length(tmp_path, accumulation):
    """Every row is exactly as long as the limit, so that no padding is trained, and all have as many targets."""
    random = np.random.default_rng(4)
    rows = [random.integers(3, tiny_models.VOCABULARY, LENGTH).tolist() for _ in range(BATCH * UPDATES)]
    place = tiny_models.Workplace(tmp_path)
    made = [Rendered(ids, [at >= 9 for at in range(LENGTH)]) for ids in rows]
    place.train_store = tiny_models.store(tmp_path / "equal.safetensors", made)
    changed = {
        "batch_size": BATCH // accumulation,
        "gradient_accumulation_steps": accumulation,
        "epochs": 1,
        "max_grad_norm": None,
    }
    changed |= {"optimizer": "adam", "learning_rate": RATE, "lr_scheduler": "constant", "warmup_steps": 0}
    place.train(**changed)
    ours = [row["loss"] for row in place.metrics() if "loss" in row]

    model, _ = utils.load_model(tmp_path / "model")
    settings = tiny_models.settings(**changed)
    lora.attach(model, settings, seed=settings["seed"])
    order = batches.Visits(
        np.full(len(rows), LENGTH), np.ones(len(rows)), rows_per_update=BATCH, seed=settings["seed"], epochs=1
    )
    in_order = [[rows[row] for row in order.rows(update)] for update in range(1, UPDATES + 1)]

    def same_rows(**_):
        for update in in_order:
            for part in range(0, BATCH, BATCH // accumulation):
                few = update[part : part + BATCH // accumulation]
                yield mx_array(few), mx_array([[9, LENGTH]] * len(few))

    losses = Losses()
    options = theirs.TrainingArgs(
        batch_size=BATCH // accumulation,
        iters=UPDATES * accumulation,
        steps_per_report=accumulation,
        steps_per_save=10**9,
        max_seq_length=LENGTH,
        grad_accumulation_steps=accumulation,
        adapter_file=str(tmp_path / "theirs.safetensors"),
    )
    theirs.train(
        model,
        mlx.optimizers.Adam(RATE, bias_correction=True),
        rows,
        args=options,
        iterate_batches=same_rows,
        training_callback=losses,
    )
    assert ours == pytest.approx(losses.seen, abs=1e-4)
    assert ours[-1] < ours[0]


def mx_array(values):
    return mlx.core.array(values)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (tuner.linear_to_lora_layers, ["model", "num_layers", "config", "use_dora"]),
        (tuner.load_adapters, ["model", "adapter_path"]),
        (utils.load_model, ["model_path", "lazy"]),
        (utils.quantize_model, ["model", "config", "group_size", "bits", "mode"]),
        (utils.save_model, ["save_path", "model"]),
        (utils.save_config, ["config", "config_path"]),
    ],
)
def test_a_function_of_mlx_lm_has_the_parameters_that_are_used(function, parameters):
    known = list(inspect.signature(function).parameters)
    assert [one for one in known if one in parameters] == parameters


def test_the_layers_of_a_mixture_of_experts_have_their_names():
    assert switch_layers.SwitchLinear
    assert switch_layers.QuantizedSwitchLinear
