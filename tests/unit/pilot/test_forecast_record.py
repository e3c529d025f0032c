"""The pilot's forecast of a training stands beside what it took."""

from snaketune import files
from snaketune.contracts.plan import PilotDecision, PilotedExperiment, PilotForecast
from snaketune.contracts.train import TimingForecast, TrainingTiming
from snaketune.pilot.forecast_record import record_forecast

DECISION = PilotDecision(
    decision="go",
    piloted=PilotedExperiment(experiment="main", of=2),
    reasons=[],
    likely_cause=None,
    criteria=[],
    rows=24,
    rows_allowed=24,
    forecast=PilotForecast(
        hours=1.5,
        hours_low=1.2,
        hours_high=1.8,
        seconds={"train": 9.5},
        at_once=1,
        memory_bytes=70,
        pilot_memory_bytes=60,
        disk_bytes=5,
    ),
    learning_curve=None,
    overridden=False,
    sample=[],
)


def test_forecast_is_recorded_for_the_experiment_that_the_pilot_tried_only(tmp_path):
    timing, decision = tmp_path / "timing.json", tmp_path / "decision.json"
    files.write_json(decision, DECISION)
    took = TrainingTiming(
        seconds=8.0,
        cpu_seconds=7.0,
        tokens_per_second=3.0,
        peak_memory_bytes=60,
        peak_resident_bytes=90,
        resumed_from=0,
    )
    files.write_json(timing, took)
    record_forecast(timing, decision, "other")
    assert files.read_json(timing, TrainingTiming) == took
    record_forecast(timing, decision, "main")
    recorded = files.read_json(timing, TrainingTiming)
    assert recorded.forecast == TimingForecast(seconds=9.5, peak_memory_bytes=70)
    assert recorded.seconds == 8.0
