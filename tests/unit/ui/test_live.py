"""A run as the page follows it: curves stay small, resumed trainings stay one line, and states say what happened."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.runtime.events import Event, EventFile, Progress
from snaketune.ui.live import MAX_POINTS, Curve, LiveRun
from snaketune.ui.project import Project
from snaketune.ui.replies import Page
from snaketune.ui.run_list import RunList, last_state

NOW = 1_795_553_454.0


@given(st.lists(st.floats(0, 10), max_size=3000))
def test_a_curve_keeps_few_points_its_end_and_its_order(values: list[float]) -> None:
    curve = Curve()
    for step, value in enumerate(values, 1):
        curve.add(step, value)
    found = curve.shown()
    assert len(found) <= MAX_POINTS + 1
    assert [step for step, _ in found] == sorted({step for step, _ in found})
    assert set(found) <= set(enumerate(values, 1))
    assert not values or found[-1] == (len(values), values[-1])


def test_a_training_that_resumes_overwrites_what_it_does_again() -> None:
    curve = Curve()
    for step in range(1, 101):
        curve.add(step, 1.0)
    for step in range(81, 121):
        curve.add(step, 2.0)
    assert curve.shown() == [(step, 1.0 if step <= 80 else 2.0) for step in range(1, 121)]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "results").mkdir()
    return Project(tmp_path)


def event(**given: object) -> Event:
    return msgspec.convert({"time": NOW, "run": "jessy", "state": "started", **given}, Event)


def follow(project: Project, *events: Event) -> LiveRun:
    file = EventFile(project.results / "jessy/events.jsonl")
    for one in events:
        file.append(one)
    live = LiveRun(project, "jessy")
    live.refresh()
    return live


def test_states_of_a_run_follow_its_events_and_its_process(project: Project) -> None:
    assert follow(project).snapshot(begun=None).state == "none"
    live = follow(project)
    assert live.snapshot(begun=NOW + 20).state == "starting"
    live = follow(project, event(steps={"train_adapter": 1}, command="snakemake", pid=7))
    assert live.snapshot(begun=NOW + 20).state == "running"
    assert live.snapshot(begun=None).state == "killed"
    live = follow(project, event(state="stopped", time=NOW + 9))
    assert live.snapshot(begun=None).state == "stopped"
    assert live.snapshot(begun=NOW - 1).state == "ending"
    assert live.snapshot(begun=NOW + 20).state == "starting"  # the same command was given again


def test_a_second_call_begins_the_stages_anew_and_keeps_the_curve(project: Project) -> None:
    step = {"step": "train_adapter", "wildcards": {"experiment": "main"}}
    points = [
        event(
            **step, state="progress", progress={"activity": "", "done": n, "total": 9, "unit": "step", "loss": 9.0 - n}
        )
        for n in range(1, 5)
    ]
    first = [event(steps={"train_adapter": 1, "fuse_adapter": 1}), event(**step), *points]
    live = follow(
        project, *first, event(**step, state="stopped"), event(state="stopped"), event(steps={"train_adapter": 1})
    )
    state = live.snapshot(begun=NOW + 20)
    assert [(stage.name, stage.planned, stage.finished) for stage in state.stages] == [("train", 1, 0)]
    assert [len(curve.loss) for curve in state.curves] == [4]
    assert not state.messages


def test_stages_that_an_earlier_call_has_done_stay_to_be_seen(project: Project) -> None:
    step, other = {"step": "train_adapter", "wildcards": {"experiment": "main"}}, {"step": "fuse_adapter"}
    first = [event(steps={"train_adapter": 1, "fuse_adapter": 1}), event(**step), event(**step, state="finished")]
    live = follow(project, *first, event(state="stopped"), event(steps={"fuse_adapter": 1}), event(**other))
    stages = [(stage.name, stage.state) for stage in live.snapshot(begun=NOW + 20).stages]
    assert stages == [("train", "done"), ("package", "running")]


def test_a_failed_step_and_a_warning_are_messages_with_their_log(project: Project) -> None:
    failed = event(
        step="fuse_adapter", state="failed", message="it does not fit", log="results/jessy/logs/fuse_adapter.log"
    )
    live = follow(project, event(steps={"fuse_adapter": 1}), event(step="fuse_adapter"), failed)
    state = live.snapshot(begun=NOW + 20)
    assert [(one.state, one.text, one.log) for one in state.messages] == [
        ("failed", "it does not fit", "results/jessy/logs/fuse_adapter.log")
    ]
    assert state.stages[0].state == "failed"


def test_a_stopped_step_says_what_was_kept(project: Project) -> None:
    said = event(step="train_adapter", state="stopped", message="a checkpoint is saved")
    live = follow(project, event(steps={"train_adapter": 1}), event(step="train_adapter"), said, event(state="stopped"))
    assert [(one.state, one.text) for one in live.snapshot(begun=None).messages] == [
        ("stopped", "a checkpoint is saved")
    ]


def test_ten_thousand_events_and_a_thousand_experiments_stay_small_and_fast(project: Project) -> None:
    lines = [event(steps={"train_adapter": 1000})]
    for number in range(1000):
        name = {"experiment": f"rank-{number}"}
        lines.append(event(step="train_adapter", wildcards=name, time=NOW + number))
        lines += [
            event(
                step="train_adapter",
                wildcards=name,
                state="progress",
                time=NOW + number,
                progress={"activity": "", "done": n, "total": 9, "unit": "step", "loss": 1.0},
            )
            for n in range(9)
        ]
    path = project.results / "jessy/events.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in lines))
    began = time.process_time()
    live = LiveRun(project, "jessy")
    live.refresh()
    content = msgspec.json.encode(live.snapshot(begun=NOW + 20))
    assert time.process_time() - began < 3
    assert len(content) < 100_000
    state = live.snapshot(begun=NOW + 20)
    assert (len(state.stages[0].jobs), state.stages[0].more_jobs) == (40, 960)


@pytest.mark.parametrize("last", ["finished", "failed", "stopped"])
def test_the_list_says_how_each_run_ended(project: Project, last: str) -> None:
    follow(project, event(steps={"fuse_adapter": 1}), event(step="fuse_adapter"), event(state=last))
    assert last_state(project.results / "jessy/events.jsonl") == last
    listing = RunList(project).page(Page(offset=0, limit=10), running=None)
    assert [(one.run, one.state) for one in listing.runs] == [("jessy", last)]


def test_a_thousand_runs_are_listed_a_page_at_a_time(project: Project) -> None:
    for number in range(1000):
        folder = project.results / f"run-{number}"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    runs = RunList(project)
    found = [runs.page(Page(offset=offset, limit=50), running=None) for offset in range(0, 1000, 50)]
    assert {one.total for one in found} == {1000}
    assert len({one.run for page in found for one in page.runs}) == 1000


def test_progress_of_another_unit_draws_no_curve() -> None:
    from snaketune.ui.live import _Training

    training = _Training()
    training.add(Progress(activity="hashing", done=3, unit="bytes", loss=1.0))
    assert not training.loss.points
