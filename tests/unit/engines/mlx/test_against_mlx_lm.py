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
from snaketune.train.batches import EpochSampler

LENGTH, BATCH, STEPS, RATE, SEED = 24, 4, 20, 5e-3, 1


class Losses(TrainingCallback):
    def __init__(self):
        self.seen = []

    def on_train_loss_report(self, info):
        self.seen.append(info["train_loss"])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_losses_equal_mlx_lms_on_rows_of_equal_length(tmp_path, accumulation):
    """Every row is exactly as long as the limit, so that no padding is trained, and all have as many targets."""
    random = np.random.default_rng(4)
    rows = [random.integers(3, tiny_models.VOCABULARY, LENGTH).tolist() for _ in range(BATCH * STEPS)]
    folder = tiny_models.TrainingFolder(tmp_path)
    rendered = [Rendered(ids, [at >= 9 for at in range(LENGTH)]) for ids in rows]
    folder.train_store = tiny_models.store(tmp_path / "equal.safetensors", rendered)
    changed = {
        "batch_size": BATCH // accumulation,
        "gradient_accumulation_steps": accumulation,
        "epochs": 1,
        "max_grad_norm": None,
    }
    changed |= {"optimizer": "adam", "learning_rate": RATE, "lr_scheduler": "constant", "warmup_steps": 0}
    folder.train(**changed)
    ours = [line.loss for line in folder.step_metrics()]

    model, _ = utils.load_model(tmp_path / "model")
    lora.add_adapter(model, tiny_models.train_config(**changed), seed=SEED)
    sampler = EpochSampler(np.full(len(rows), LENGTH), np.ones(len(rows)), rows_per_step=BATCH, seed=SEED, epochs=1)
    in_order = [[rows[row] for row in sampler.rows(step)] for step in range(1, STEPS + 1)]

    def same_rows(**_):
        for step in in_order:
            for part in range(0, BATCH, BATCH // accumulation):
                few = step[part : part + BATCH // accumulation]
                yield mx_array(few), mx_array([[9, LENGTH]] * len(few))

    losses = Losses()
    options = theirs.TrainingArgs(
        batch_size=BATCH // accumulation,
        iters=STEPS * accumulation,
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
def test_mlx_lm_function_has_the_parameters_that_the_trainer_uses(function, parameters):
    known = list(inspect.signature(function).parameters)
    assert [one for one in known if one in parameters] == parameters


def test_mixture_of_experts_layers_have_the_names_that_the_trainer_uses():
    assert switch_layers.SwitchLinear
    assert switch_layers.QuantizedSwitchLinear
