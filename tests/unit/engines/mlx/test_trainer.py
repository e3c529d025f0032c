"""The training loop: what it computes, what it counts, what it leaves behind."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny_models
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model
from snaketune import files
from snaketune.engines.mlx import tensors, trainer, training_logger
from snaketune.errors import BusyError, ResourceError, TrainingError
from snaketune.runtime import locks
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import Cutting, gather


@pytest.fixture
def place(tmp_path):
    return tiny_models.Workplace(tmp_path)


def validation(place, name="out"):
    return [(row["update"], row["validation_loss"]) for row in place.metrics(name) if "validation_loss" in row]


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


def test_the_validation_loss_falls_and_the_best_adapter_is_the_one_written(place):
    report = place.train(epochs=6, gradient_accumulation_steps=1)
    losses = dict(validation(place))
    assert report["base_validation_loss"] == losses[0]
    assert report["best_validation_loss"] == min(losses.values()) < 0.8 * losses[0]
    assert losses[report["best_update"]] == report["best_validation_loss"]
    # the written adapter, loaded by mlx-lm's own function, has that very loss
    model, _ = load_model(place.folder / "model")
    load_adapters(model, str(place.folder / "out"))
    store = TokenStore(place.valid_store)
    batches = [gather(store, np.array([row]), Cutting(1, 100)) for row in range(len(store))]
    total = sum(float(plainly(model, batch)) for batch in batches)
    assert total / store.targets.sum() == pytest.approx(report["best_validation_loss"], rel=1e-5)


def plainly(model, batch):
    """The loss by its definition: all logits, mlx's own cross-entropy."""
    logits = model(mx.array(batch.inputs)).reshape(-1, tiny_models.VOCABULARY)
    return nn.losses.cross_entropy(logits[mx.array(batch.places)], mx.array(batch.targets)).sum()


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 16), (4, 4)])
def test_an_update_is_the_same_however_its_rows_are_cut_into_micro_batches(place, batch_size, accumulation):
    place.train("whole", batch_size=16, gradient_accumulation_steps=1, epochs=4, optimizer="sgd", learning_rate=0.1)
    place.train(
        "cut",
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        epochs=4,
        optimizer="sgd",
        learning_rate=0.1,
    )
    assert largest_difference(place.adapter("whole"), place.adapter("cut")) < 1e-5
    whole, cut = place.metrics("whole"), place.metrics("cut")
    assert [row.get("loss", row.get("validation_loss")) for row in whole] == pytest.approx(
        [row.get("loss", row.get("validation_loss")) for row in cut], abs=1e-5
    )


def test_the_limit_on_positions_changes_nothing_either(place):
    place.train("wide", batch_size=16, gradient_accumulation_steps=1, epochs=2, optimizer="sgd")
    place.train(
        "narrow", batch_size=16, gradient_accumulation_steps=1, epochs=2, optimizer="sgd", max_tokens_per_micro_batch=24
    )
    assert largest_difference(place.adapter("wide"), place.adapter("narrow")) < 1e-5


def test_each_row_is_seen_as_often_as_epochs_and_its_weight_say(place):
    made = tiny_models.rows(20)
    place.train_store = tiny_models.store(place.folder / "w.safetensors", made, [1.0] * 10 + [0.5] * 6 + [2.0] * 4)
    report = place.train(epochs=2, batch_size=4, gradient_accumulation_steps=2)
    assert report["rows_seen"] == 2 * (10 + 3 + 8)
    assert report["times_each_row_was_seen"] == {"least": 1, "most": 4, "mean": 2.1}
    expected = sum(sum(row.trained) * times for row, times in zip(made, [2] * 10 + [1] * 6 + [4] * 4, strict=True))
    assert report["trained_tokens"] == expected


def test_a_data_set_smaller_than_a_batch_is_trained_whole(tmp_path):
    place = tiny_models.Workplace(tmp_path, train=3, valid=1)
    report = place.train(epochs=2, batch_size=8, gradient_accumulation_steps=4)
    assert report["rows_seen"] == 6
    assert report["updates"] == 1


def test_one_row_can_be_trained(tmp_path):
    place = tiny_models.Workplace(tmp_path, train=1, valid=1)
    report = place.train(epochs=40, batch_size=1, gradient_accumulation_steps=1, eval_steps=10)
    assert report["times_each_row_was_seen"]["least"] == 40
    assert place.metrics()[-2]["loss"] < 0.5 * place.metrics()[1]["loss"]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(place):
    for name, seed in (("first", 1), ("second", 1), ("other", 2)):
        place.train(name, epochs=1, dropout=0.1, seed=seed)
    for name in ("adapters.safetensors", "adapter_config.json", "metrics.jsonl", "summary.json"):
        one, two, other = ((place.folder / run / name).read_bytes() for run in ("first", "second", "other"))
        assert one == two
        assert one != other or name == "adapter_config.json"


def test_a_second_start_in_the_same_place_repeats_nothing_and_writes_the_same(place, monkeypatch):
    place.train(epochs=2)
    before = {name: (place.folder / "out" / name).read_bytes() for name in ("adapters.safetensors", "metrics.jsonl")}
    monkeypatch.setattr(trainer.Run, "_update", None)
    place.train(epochs=2, notify={"command": "true"}, save_total_limit=1)
    assert before == {name: (place.folder / "out" / name).read_bytes() for name in before}


def test_patience_ends_a_training_that_gains_nothing(place):
    report = place.train(
        epochs=60,
        learning_rate=3.0,
        max_grad_norm=None,
        warmup_steps=0,
        early_stopping_patience=2,
        gradient_accumulation_steps=1,
    )
    assert report["updates"] < report["planned_updates"]
    assert "2 validations in a row without a gain" in report["stopped"]
    assert report["best_update"] <= report["updates"] - 10


def test_validation_does_not_depend_on_the_batch_size(place):
    place.train("one", epochs=1, batch_size=1, gradient_accumulation_steps=8)
    place.train("eight", epochs=1, batch_size=8, gradient_accumulation_steps=1)
    assert validation(place, "one")[0][1] == pytest.approx(validation(place, "eight")[0][1], rel=1e-6)


def test_a_pilot_trains_on_a_part_that_lies_within_a_larger_part(place):
    store = TokenStore(place.train_store)
    few, more = (set(trainer.subset.first(store, count, seed=1).tolist()) for count in (5, 9))
    assert len(few) == 5
    assert few < more
    assert place.train(rows=5, epochs=2)["rows_seen"] == 10


def poisoned(monkeypatch, updates):
    """Make the gradient of these updates NaN."""
    step = trainer.Optimizer.step
    calls = iter(range(1, 1000))

    def poisoning(self, packed, gradients, loss, rate):
        if next(calls) in updates:
            gradients = {name: one * float("nan") for name, one in gradients.items()}
        return step(self, packed, gradients, loss, rate)

    monkeypatch.setattr(trainer.Optimizer, "step", poisoning)


def test_an_update_that_is_not_finite_is_skipped_as_a_whole_and_counted(place, monkeypatch):
    poisoned(monkeypatch, {2, 3})
    report = place.train(epochs=4, batch_size=4, gradient_accumulation_steps=2)
    assert report["skipped_updates"] == 2
    assert report["best_validation_loss"] < report["base_validation_loss"]
    assert all(np.isfinite(one).all() for one in place.adapter().values())


def test_nothing_but_skipped_updates_leaves_the_adapter_as_it_was(place, monkeypatch):
    poisoned(monkeypatch, set(range(1, 10)))
    report = place.train(epochs=2, batch_size=8, gradient_accumulation_steps=1, max_nonfinite_steps=100)
    assert report["best_update"] == 0
    assert all(not one.any() for name, one in place.adapter().items() if name.endswith("lora_b"))


def test_too_many_of_them_in_a_row_stop_the_training_with_advice(place, monkeypatch):
    poisoned(monkeypatch, {2, 3, 4})
    with pytest.raises(TrainingError, match=r"not finite 3 times in a row.*Lower train.learning_rate"):
        place.train(epochs=9, max_nonfinite_steps=3, batch_size=4, gradient_accumulation_steps=1)
    assert not (place.folder / "out" / "adapters.safetensors").exists()
    assert list((place.folder / "out" / "checkpoints").glob("*/checkpoint-*.json"))


def test_out_of_memory_is_told_with_the_settings_that_help_most(place, monkeypatch):
    def full(*_):
        raise RuntimeError("[metal::malloc] Attempting to allocate 17179869184 bytes which is greater than ...")

    monkeypatch.setattr(trainer.Run, "_update", full)
    with pytest.raises(ResourceError) as caught:
        place.train(epochs=1, batch_size=4, gradient_accumulation_steps=4)
    said = str(caught.value)
    assert "1. train.batch_size 2 with train.gradient_accumulation_steps 8" in said
    assert "2. train.gradient_checkpointing true" in said
    assert "up to 20 tokens" in said


def test_another_error_of_the_engine_is_not_taken_for_a_lack_of_memory(place, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(trainer.Run, "_update", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        place.train(epochs=1)


def test_a_second_run_in_the_same_place_says_who_holds_it(place):
    _, outputs = place.arguments()
    with locks.hold_lock(outputs["work"] / "lock", "training"), pytest.raises(BusyError, match="pid"):
        place.train()


@pytest.mark.parametrize("which", ["train_store", "valid_store"])
def test_no_rows_at_all_is_said_so(place, which):
    setattr(place, which, tiny_models.store(place.folder / "none.safetensors", []))
    with pytest.raises(TrainingError, match=r"no row to (train|validate) on"):
        place.train()


def test_a_row_without_a_trained_token_is_refused(place):
    row = tiny_models.Rendered([3, 4, 5], [False] * 3)
    place.train_store = tiny_models.store(place.folder / "r.safetensors", [*tiny_models.rows(2), row])
    with pytest.raises(TrainingError, match="row 3 of 3 has no trained token"):
        place.train()


def test_metrics_have_no_clock_and_timing_has(place):
    place.train(epochs=1)
    assert all(
        row.keys()
        <= set("update epoch loss learning_rate gradient_norm trained_tokens padding validation_loss".split())
        for row in place.metrics()
    )
    assert files.read_json(place.folder / "out" / "timing.json")["seconds"] > 0
    assert len(list(files.read_jsonl(place.folder / "out" / "timing.jsonl"))) == 2


def test_the_live_line_tells_where_the_training_is_and_how_it_goes(place, monkeypatch):
    shown = []
    monkeypatch.setattr(training_logger.Line, "show", lambda _, text, **__: shown.append(text))
    place.train(epochs=2, batch_size=4, gradient_accumulation_steps=1)
    said = shown[-2]
    for field in ("update 12/12", "epoch 2.00", "loss ", "validation ", "best ", "lr ", "norm ", "trained tokens/s"):
        assert field in said
    for field in ("padding ", "% ", " GB", "0:00 left"):
        assert field in said
    assert shown[-1].startswith("update 12/12  validation loss")


def test_the_adapter_reads_back_with_every_matrix_it_trained(place):
    report = place.train(epochs=1)
    kept = tensors.read(place.folder / "out" / "adapters.safetensors")
    assert sum(one.size for one in kept.values()) == report["trainable_parameters"]


def test_prompts_are_trained_too_where_that_is_asked_for_and_validated_never(place):
    answers, all_of_it = place.train("answers", epochs=1), place.train("all", epochs=1, train_on_prompts=True)
    store = TokenStore(place.train_store)
    assert answers["trained_tokens"] == store.targets.sum()
    assert all_of_it["trained_tokens"] == (store.lengths - 1).sum()
    assert answers["base_validation_loss"] == all_of_it["base_validation_loss"]
