"""The training loop: what it computes, what it counts, what it leaves behind."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny_models
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model
from snaketune import files
from snaketune.contracts.train import StepTiming, TrainingTiming, VisitCounts
from snaketune.engines.mlx import loading
from snaketune.errors import BusyError, ResourceError, TrainingError
from snaketune.runtime import locks
from snaketune.tokens.chat_template import Rendered
from snaketune.tokens.token_store import TokenStore
from snaketune.train import metrics_log
from snaketune.train.batches import EpochSampler, MicroBatching, collate, nested_subset
from training_callbacks import StopAt

POISON = 2  # a token whose embedding is NaN in a poisoned model; no other row has it


@pytest.fixture
def folder(tmp_path):
    return tiny_models.TrainingFolder(tmp_path)


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


def plain_loss(model, batch):
    """The loss by its definition: all logits, mlx's own cross-entropy."""
    logits = model(mx.array(batch.inputs)).reshape(-1, tiny_models.VOCABULARY)
    return nn.losses.cross_entropy(logits[mx.array(batch.target_positions)], mx.array(batch.labels)).sum()


def test_written_adapter_is_the_one_with_the_lowest_validation_loss(folder):
    summary = folder.train(epochs=6, gradient_accumulation_steps=1)
    losses = dict(folder.validations())
    assert summary.base_validation_loss == losses[0]
    assert summary.best_validation_loss == min(losses.values()) < 0.8 * losses[0]
    assert losses[summary.best_step] == summary.best_validation_loss
    # the written adapter, loaded by mlx-lm's own function, has that very loss
    model, _ = load_model(folder.folder / "model")
    load_adapters(model, str(folder.folder / "out"))
    store = TokenStore(folder.valid_store)
    batches = [collate(store, np.array([row]), MicroBatching(1, 100)) for row in range(len(store))]
    total = sum(float(plain_loss(model, batch)) for batch in batches)
    assert total / store.num_target_tokens.sum() == pytest.approx(summary.best_validation_loss, rel=1e-5)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 16), (4, 4)])
def test_step_is_the_same_however_its_rows_are_split_into_micro_batches(folder, batch_size, accumulation):
    settings = {"epochs": 4, "optimizer": "sgd", "learning_rate": 0.1}
    folder.train("whole", batch_size=16, gradient_accumulation_steps=1, **settings)
    folder.train("split", batch_size=batch_size, gradient_accumulation_steps=accumulation, **settings)
    assert largest_difference(folder.adapter("whole"), folder.adapter("split")) < 1e-5
    whole, split = ([line.loss for line in folder.step_metrics(name)] for name in ("whole", "split"))
    assert whole == pytest.approx(split, abs=1e-5)
    whole, split = ([loss for _, loss in folder.validations(name)] for name in ("whole", "split"))
    assert whole == pytest.approx(split, abs=1e-5)


def test_max_tokens_per_micro_batch_does_not_change_the_training(folder):
    settings = {"batch_size": 16, "gradient_accumulation_steps": 1, "epochs": 2, "optimizer": "sgd"}
    folder.train("wide", **settings)
    folder.train("narrow", **settings, max_tokens_per_micro_batch=24)
    assert largest_difference(folder.adapter("wide"), folder.adapter("narrow")) < 1e-5


def test_each_row_is_seen_as_often_as_epochs_and_its_weight_say(folder):
    rows, weights = tiny_models.rows(20), [1.0] * 10 + [0.5] * 6 + [2.0] * 4
    folder.train_store = tiny_models.store(folder.folder / "w.safetensors", rows, weights)
    summary = folder.train(epochs=2, batch_size=4, gradient_accumulation_steps=2)
    assert summary.rows_seen == 2 * (10 + 3 + 8)
    assert summary.times_each_row_was_seen == VisitCounts(least=1, most=4, mean=2.1)
    visits = [2] * 10 + [1] * 6 + [4] * 4
    assert summary.num_target_tokens == sum(sum(row.loss_mask) * n for row, n in zip(rows, visits, strict=True))


def test_dataset_smaller_than_a_batch_is_trained_whole(tmp_path):
    folder = tiny_models.TrainingFolder(tmp_path, train=3, valid=1)
    summary = folder.train(epochs=2, batch_size=8, gradient_accumulation_steps=4)
    assert summary.rows_seen == 6
    assert summary.steps == 1


def test_single_row_can_be_trained(tmp_path):
    folder = tiny_models.TrainingFolder(tmp_path, train=1, valid=1)
    summary = folder.train(epochs=40, batch_size=1, gradient_accumulation_steps=1, eval_steps=10)
    assert summary.times_each_row_was_seen.least == 40
    losses = [line.loss for line in folder.step_metrics()]
    assert losses[-1] < 0.5 * losses[0]


def test_same_seed_gives_the_same_bytes_and_another_seed_others(folder):
    for name, seed in (("first", 1), ("second", 1), ("other", 2)):
        folder.train(name, epochs=1, dropout=0.1, seed=seed)
    for name in ("adapters.safetensors", "adapter_config.json", "metrics.jsonl", "summary.json"):
        first, second, other = ((folder.folder / run / name).read_bytes() for run in ("first", "second", "other"))
        assert first == second
        assert first != other or name == "adapter_config.json"


def test_second_start_of_a_finished_training_makes_no_step_and_writes_the_same(folder):
    folder.train(epochs=2)
    before = {name: (folder.folder / "out" / name).read_bytes() for name in ("adapters.safetensors", "metrics.jsonl")}
    no_step = StopAt(1)
    folder.train(epochs=2, notify={"command": "true"}, save_total_limit=1, callback=no_step)
    assert before == {name: (folder.folder / "out" / name).read_bytes() for name in before}


def test_early_stopping_ends_a_training_that_gains_nothing(folder):
    summary = folder.train(
        epochs=60,
        learning_rate=3.0,
        max_grad_norm=None,
        warmup_steps=0,
        early_stopping_patience=2,
        gradient_accumulation_steps=1,
    )
    assert summary.steps < summary.planned_steps
    assert "2 validations in a row without a gain" in summary.stop_reason
    assert summary.best_step <= summary.steps - 10


def test_validation_loss_does_not_depend_on_the_batch_size(folder):
    folder.train("one", epochs=1, batch_size=1, gradient_accumulation_steps=8)
    folder.train("eight", epochs=1, batch_size=8, gradient_accumulation_steps=1)
    assert folder.validations("one")[0][1] == pytest.approx(folder.validations("eight")[0][1], rel=1e-6)


def test_training_on_so_many_rows_takes_a_subset_that_lies_within_larger_ones(folder):
    store = TokenStore(folder.train_store)
    few, more = (set(nested_subset(store, count, seed=1).tolist()) for count in (5, 9))
    assert len(few) == 5
    assert few < more
    assert folder.train(num_rows=5, epochs=2).rows_seen == 10


@pytest.fixture
def poisoned(tmp_path):
    """A training whose model gives NaN for each row with the token POISON."""
    folder = tiny_models.TrainingFolder(tmp_path, model="llama-untied")
    model = folder.folder / "model" / "model.safetensors"
    weights = mx.load(str(model))
    weights["model.embed_tokens.weight"][POISON] = float("nan")
    mx.save_safetensors(str(model), weights, {"format": "pt"})
    return folder


def with_poison(rows, indices):
    return [
        Rendered([row.ids[0], POISON, *row.ids[2:]], row.loss_mask) if index in indices else row
        for index, row in enumerate(rows)
    ]


def test_nonfinite_step_is_skipped_as_a_whole_and_counted(poisoned):
    rows, bad_row = tiny_models.rows(24), 7
    poisoned.train_store = tiny_models.store(poisoned.folder / "p.safetensors", with_poison(rows, [bad_row]))
    summary = poisoned.train(epochs=4, batch_size=4, gradient_accumulation_steps=2, max_nonfinite_steps=3)
    lengths = TokenStore(poisoned.train_store).lengths
    sampler = EpochSampler(lengths, np.ones(24), rows_per_step=8, seed=1, epochs=4)
    assert summary.skipped_steps == sum(bad_row in sampler.rows(step) for step in range(1, 13)) == 4
    assert summary.best_validation_loss < summary.base_validation_loss
    assert all(np.isfinite(weights).all() for weights in poisoned.adapter().values())


def test_training_whose_steps_are_all_skipped_leaves_the_adapter_as_it_was(poisoned):
    rows = with_poison(tiny_models.rows(24), range(24))
    poisoned.train_store = tiny_models.store(poisoned.folder / "p.safetensors", rows)
    summary = poisoned.train(epochs=2, batch_size=8, gradient_accumulation_steps=1, max_nonfinite_steps=100)
    assert summary.best_step == 0
    assert summary.skipped_steps == summary.steps == 6
    assert all(not weights.any() for name, weights in poisoned.adapter().items() if name.endswith("lora_b"))


def test_max_nonfinite_steps_in_a_row_stop_the_training_with_advice(poisoned):
    rows = with_poison(tiny_models.rows(24), range(24))
    poisoned.train_store = tiny_models.store(poisoned.folder / "p.safetensors", rows)
    with pytest.raises(TrainingError, match=r"not finite 3 times in a row.*Lower train.learning_rate"):
        poisoned.train(epochs=9, max_nonfinite_steps=3, batch_size=4, gradient_accumulation_steps=1)
    assert not (poisoned.folder / "out" / "adapters.safetensors").exists()
    assert list((poisoned.folder / "out" / "checkpoints").glob("*/checkpoint-*.json"))


def test_base_model_with_a_nonfinite_validation_loss_is_refused(poisoned):
    rows = with_poison(tiny_models.rows(3), [1])
    poisoned.valid_store = tiny_models.store(poisoned.folder / "v.safetensors", rows)
    with pytest.raises(TrainingError, match=r"base model's validation loss is not finite.*model.dtype"):
        poisoned.train()


def test_out_of_memory_error_names_the_settings_that_help_most(folder):
    allocation = RuntimeError("[metal::malloc] Attempting to allocate 17179869184 bytes which is greater than ...")
    with pytest.raises(ResourceError) as caught:
        folder.train(epochs=1, batch_size=4, gradient_accumulation_steps=4, callback=StopAt(1, allocation))
    message = str(caught.value)
    assert "1. train.batch_size 2 with train.gradient_accumulation_steps 8" in message
    assert "2. train.gradient_checkpointing true" in message
    assert "up to 20 tokens" in message


def test_another_runtime_error_is_not_taken_for_a_lack_of_memory(folder):
    with pytest.raises(RuntimeError, match="shapes"):
        folder.train(epochs=1, callback=StopAt(1, RuntimeError("shapes do not match")))


def test_second_training_in_the_same_folder_names_the_process_that_holds_it(folder):
    checkpoints = folder.folder / "out" / "checkpoints"
    with locks.hold_lock(checkpoints / "lock", "training"), pytest.raises(BusyError, match="pid"):
        folder.train()


@pytest.mark.parametrize("which", ["train_store", "valid_store"])
def test_split_without_rows_is_refused(folder, which):
    setattr(folder, which, tiny_models.store(folder.folder / "none.safetensors", []))
    with pytest.raises(TrainingError, match=r"no row to (train|validate) on"):
        folder.train()


def test_row_without_a_target_token_is_refused(folder):
    row = Rendered([3, 4, 5], [False] * 3)
    folder.train_store = tiny_models.store(folder.folder / "r.safetensors", [*tiny_models.rows(2), row])
    with pytest.raises(TrainingError, match="row 3 of 3 has no token with loss"):
        folder.train()


def test_timing_files_hold_the_clock_and_metrics_do_not(folder):
    folder.train(epochs=1)
    keys = {key for line in files.read_jsonl(folder.folder / "out" / "metrics.jsonl") for key in line}
    names = "step epoch loss learning_rate grad_norm num_target_tokens padding_ratio validation_loss"
    assert keys == set(names.split())
    assert files.read_json(folder.folder / "out" / "timing.json", TrainingTiming).seconds > 0
    assert len(list(files.read_jsonl(folder.folder / "out" / "timing.jsonl", StepTiming))) == 2


def test_status_line_shows_where_the_training_is_and_its_losses_and_speed(folder, capsys, monkeypatch):
    monkeypatch.setattr(metrics_log, "LOG_INTERVAL", -1.0)
    folder.train(epochs=2, batch_size=4, gradient_accumulation_steps=1)
    base, *_, step, last = capsys.readouterr().err.splitlines()
    assert base.startswith("step 0/12  validation loss")
    for field in ("step 12/12", "epoch 2.00", "loss ", "validation ", "best ", "lr ", "grad norm ", "target tokens/s"):
        assert field in step
    for field in ("padding ", "% ", " GB", "0:00 left"):
        assert field in step
    assert last.startswith("step 12/12  validation loss")


def test_adapter_file_holds_every_trained_parameter(folder):
    summary = folder.train(epochs=1)
    weights = loading.load_safetensors(folder.folder / "out" / "adapters.safetensors")
    assert sum(array.size for array in weights.values()) == summary.trainable_parameters


def test_train_on_prompts_adds_loss_to_training_but_not_to_validation(folder):
    responses, everything = folder.train("responses", epochs=1), folder.train("all", epochs=1, train_on_prompts=True)
    store = TokenStore(folder.train_store)
    assert responses.num_target_tokens == store.num_target_tokens.sum()
    assert everything.num_target_tokens == (store.lengths - 1).sum()
    assert responses.base_validation_loss == everything.base_validation_loss
