"""metrics.jsonl grows, is cut back and read; the loss plot is drawn from it."""

import pytest
from snaketune import files
from snaketune.contracts.train import StepMetrics, ValidationMetrics
from snaketune.train import metrics_log
from tiny_models import training_summary


def step_metrics(step, loss):
    return StepMetrics(
        step=step, epoch=0.5, loss=loss, learning_rate=1e-3, grad_norm=1.0, num_target_tokens=9, padding_ratio=0.0
    )


def test_log_is_cut_back_to_the_size_that_a_checkpoint_names(tmp_path):
    log = metrics_log.JsonlLog(tmp_path / "m.jsonl")
    log.write(step_metrics(1, 2.0))
    size = log.size()
    log.write(step_metrics(2, 1.5))
    log.close()
    resumed = metrics_log.JsonlLog(tmp_path / "m.jsonl", size)
    resumed.write(ValidationMetrics(step=3, validation_loss=None))
    resumed.close()
    lines = metrics_log.read_metrics(tmp_path / "m.jsonl")
    assert lines == [step_metrics(1, 2.0), ValidationMetrics(step=3, validation_loss=None)]
    assert (tmp_path / "m.jsonl").read_text().startswith('{"step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate"')


def test_number_that_is_not_finite_is_logged_as_null():
    assert metrics_log.round_significant(float("nan")) is None
    assert metrics_log.round_significant(1 / 3) == 0.3333333


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65, "1:05"), (3725, "1:02:05")])
def test_duration_has_hours_only_from_one_hour_on(seconds, text):
    assert metrics_log.format_duration(seconds) == text


@pytest.mark.parametrize("num_steps", [1, 120])
def test_loss_plot_is_the_same_bytes_for_the_same_metrics(tmp_path, num_steps):
    lines = [ValidationMetrics(step=0, validation_loss=3.0)]
    lines += [step_metrics(step, 3 / step) for step in range(1, num_steps)]
    lines += [step_metrics(num_steps, None), ValidationMetrics(step=num_steps, validation_loss=2.0)]
    files.write_jsonl(tmp_path / "m.jsonl", lines)
    for name in ("a.svg", "b.svg"):
        metrics_log.draw_loss(tmp_path / "m.jsonl", tmp_path / name)
    picture = (tmp_path / "a.svg").read_bytes()
    assert picture == (tmp_path / "b.svg").read_bytes()
    assert b"2.0000" in picture
    assert b"<dc:date>" not in picture


@pytest.mark.parametrize(
    ("base", "best", "best_step", "words"),
    [
        (3.0, 2.0, 40, "validation loss 3.000 before, 2.000 at step 40, which is kept"),
        (3.0, 3.0, 0, "3.000 at best: no step beat the base"),
        (3.0, 4.0, 40, "4.000 at best: no step beat the base"),  # prompt tuning may begin worse than its base
        (3.0, 2.5, 0, "2.500 at step 0, which is kept"),  # or better
    ],
)
def test_a_training_is_held_against_its_base_whatever_it_began_with(base, best, best_step, words):
    summary = training_summary(
        steps=40,
        planned_steps=40,
        base_validation_loss=base,
        best_validation_loss=best,
        best_step=best_step,
        method="prompt",
    )
    assert metrics_log.summary_sentence(summary).endswith(words)
