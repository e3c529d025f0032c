"""A run is readable on a terminal of any kind: one line a stage, redrawn in place, and it stands when it is done."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from rich.cells import cell_len
from screen import Screen
from snaketune.display.board import Board
from snaketune.display.lines import PlainView
from snaketune.display.terminal import TerminalView
from snaketune.runtime.events import Event, Progress, State

TRAINING = Progress(
    activity="",
    done=120,
    total=400,
    unit="step",
    loss=0.4821,
    validation_loss=0.51,
    tokens_per_second=1240.3,
    seconds_left=125.0,
)


def at(
    time: float, state: State, step: str, message: str = "", progress: Progress | None = None, **which: str
) -> Event:
    return Event(time=time, run="köln", state=state, step=step, message=message, progress=progress, wildcards=which)


class Play:
    """Events of a run on a board, drawn by a view; the clock goes one second an event."""

    def __init__(self, screen: Screen) -> None:
        self.board = Board()
        self.view = TerminalView(screen.stream, self.board)
        self.clock = itertools.count(1_000_000)
        self.now = 0.0

    def __call__(self, *event: Any, **which: Any) -> None:
        self.now = float(next(self.clock))
        self.take(at(self.now, *event, **which))
        self.view.tick(self.now)

    def take(self, event: Event) -> None:
        if job := self.board.apply(event):
            self.view.ended(job, event)


@pytest.fixture(params=[80])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "COLUMNS", "LINES", "LANG", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    shown = Screen(columns=request.param)
    yield shown
    shown.close()


def a_training(play: Play) -> None:
    play.board.plan({"validate_rows": 1, "pass_leaks": 1, "train_adapter": 1})
    play("started", "validate_rows")
    play("finished", "validate_rows", "999 of 1,004 rows kept")
    play("started", "pass_leaks")
    play("finished", "pass_leaks", "999 of 1,004 rows kept (5 rejected): 739 train, 60 valid, 200 test")
    play("started", "train_adapter", experiment="main")
    play("progress", "train_adapter", progress=TRAINING, experiment="main")


def test_finished_stage_stands_and_the_one_at_work_is_redrawn_below(screen: Screen) -> None:
    play = Play(screen)
    a_training(play)
    shown = screen.wait(lambda lines: "step 120 of 400" in lines[-1])
    assert len(shown) == 2
    assert shown[0].startswith(" ✓ data     999 of 1,004 rows kept (5 rejected): 739 train")
    assert shown[1][3:].startswith("train    step 120 of 400, 2:05 min left, loss 0.482, val")
    assert shown[1].endswith("1.0 s")
    play("finished", "train_adapter", "400 steps: validation loss 2.310 to 0.431", experiment="main")
    play.view.close(play.now)
    shown = screen.wait(lambda lines: "0.431" in lines[-1])
    assert len(shown) == 2
    assert shown[1].startswith(" ✓ train    400 steps: validation loss 2.310 to 0.431")


@pytest.mark.parametrize("screen", [20, 32, 40, 60, 79, 200], indirect=True)
def test_no_line_is_wider_than_the_terminal(screen: Screen) -> None:
    play = Play(screen)
    a_training(play)
    play("progress", "train_adapter", progress=Progress(activity="検証" * 60, done=1, total=2), experiment="main")
    shown = screen.wait(lambda lines: len(lines) > 1 and "train" in lines[-1])
    assert len(shown) == 2
    assert all(cell_len(line) < screen.screen.columns for line in shown)


def test_two_jobs_at_once_have_a_line_each(screen: Screen) -> None:
    play = Play(screen)
    play.board.plan({"generate_answers": 2})
    for variant, done in (("prompted", 40), ("base", 9)):
        answered = Progress(activity="answered", done=done, total=200, unit="answers")
        play("progress", "generate_answers", progress=answered, variant=variant)
    shown = screen.wait(lambda lines: len(lines) == 2)
    assert "evaluate generate_answers prompted: answered 40 of 200 answers" in shown[0]
    assert shown[1].strip().startswith("generate_answers base: answered 9 of 200 answers")


def test_grid_of_a_thousand_experiments_fits_the_screen(screen: Screen) -> None:
    play = Play(screen)
    play.board.plan({"train_adapter": 1000})
    for number in range(1000):
        play.board.apply(
            Event(
                time=play.now,
                run="k",
                state="started",
                step="train_adapter",
                wildcards={"experiment": f"rank-{number}"},
            )
        )
    play.view.tick(play.now + 1)
    shown = screen.wait(lambda lines: "more at work" in lines[-1])
    assert len(shown) == 22
    assert shown[-1].strip() == "and 979 more at work"
    for number in range(1000):
        play.take(at(play.now + 2, "finished", "train_adapter", "x", experiment=f"rank-{number}"))
    play.view.close(play.now)
    assert len(screen.wait(lambda lines: "✓ train" in lines[-1])) == 1


def test_terminal_without_unicode_gets_ascii_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(encoding="ascii")
    play = Play(screen)
    a_training(play)
    shown = screen.wait(lambda lines: "step 120" in lines[-1])
    assert shown[0].startswith(" + data     999 of")
    assert "..." in shown[0]
    screen.received.decode("ascii")
    screen.close()


@pytest.mark.parametrize(
    ("locale", "mark"),
    [
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "+"),  # the second is Python's own doing
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "POSIX"}, "+"),
        ({"LANG": "C.UTF-8"}, "✓"),
        ({"LANG": "C", "LC_CTYPE": "fr_FR.UTF-8"}, "✓"),
        ({"LANG": "C", "LC_ALL": "C.UTF-8"}, "✓"),
        ({}, "✓"),
    ],
)
def test_plain_locale_gets_ascii(
    locale: dict[str, str], mark: str, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LANG", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in locale.items():
        monkeypatch.setenv(name, value)
    a_training(Play(screen))
    assert screen.wait(lambda lines: "step 120" in lines[-1])[0].startswith(f" {mark} data")


def test_no_color_means_no_color(monkeypatch: pytest.MonkeyPatch, screen: Screen) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    play = Play(screen)
    a_training(play)
    screen.wait(lambda lines: "step 120" in lines[-1])
    assert b"\x1b[32m" not in screen.received
    assert b"\x1b[36m" not in screen.received


def test_stage_without_a_result_says_how_many_steps_were_done(screen: Screen) -> None:
    play = Play(screen)
    play.board.plan({"tokenize_rows": 1, "check_leaks": 1, "build_demo": 1})
    for step in ("tokenize_rows", "check_leaks", "build_demo"):
        play("started", step)
        play("finished", step)
    play.view.close(play.now)
    shown = screen.wait(lambda lines: len(lines) == 2 and "done" in lines[1])  # two lines stood there before
    assert [" ".join(line.split()[1:5]) for line in shown] == ["data 2 steps done", "model 1 step done"]


@pytest.mark.parametrize("screen", [40], indirect=True)
def test_sentence_is_wrapped_between_words_and_a_command_is_left_whole(screen: Screen) -> None:
    play = Play(screen)
    play.view.say("köln is better than its base model on 200 test rows: exact match 95.0 % instead of 0.0 %.")
    play.view.say("To go on: snakemake pilot --configfile köln-im-winter.yaml")
    play.view.close(play.now)
    shown = screen.wait(lambda lines: "köln-im" in "".join(lines))
    assert shown[:3] == [
        "köln is better than its base model on",
        "200 test rows: exact match 95.0 %",
        "instead of 0.0 %.",
    ]
    assert "".join(shown[3:]) == "To go on: snakemake pilot --configfile köln-im-winter.yaml"
    assert b"--configfile k\xc3\xb6ln" in screen.received  # the terminal breaks it, and joins it when copied


def test_cursor_is_never_hidden_since_a_killed_run_could_not_show_it_again(screen: Screen) -> None:
    play = Play(screen)
    a_training(play)
    play.view.close(play.now)
    screen.wait(lambda lines: "train" in lines[-1])
    assert b"\x1b[?25l" not in screen.received


def test_stage_that_failed_says_so_at_the_end(screen: Screen) -> None:
    play = Play(screen)
    play.board.plan({"decide_pilot": 1, "pass_pilot": 1, "train_adapter": 1})
    play("started", "decide_pilot")
    play("finished", "decide_pilot", "no-go: 6 of 8 criteria met")
    play("started", "pass_pilot")
    play("failed", "pass_pilot", "the pilot's decision is no-go")
    play.view.close(play.now)
    shown = screen.wait(lambda lines: "✗" in lines[-1])
    assert shown[0].startswith(" ✗ pilot    no-go: 6 of 8 criteria met; pass_pilot failed")
    assert len(shown) == 1  # nothing of the training, which never began


def test_stage_that_was_stopped_says_so_and_how_far_it_was(screen: Screen) -> None:
    play = Play(screen)
    play.board.plan({"train_adapter": 2, "export_adapter": 1, "fuse_adapter": 1})
    play("started", "train_adapter", experiment="main")
    play("progress", "train_adapter", progress=TRAINING, experiment="main")
    play("stopped", "train_adapter", "train_adapter-main was stopped", experiment="main")
    play("started", "fuse_adapter")
    play("finished", "fuse_adapter", "fused")
    play.view.close(play.now)
    shown = screen.wait(lambda lines: len(lines) == 2)
    assert shown[0].startswith(" ■ train    train_adapter main stopped at step 120 of 400 ")
    assert shown[1].startswith(" ■ package  fused; 1 of 2 steps done ")
    assert "failed" not in "".join(shown)


def test_job_that_failed_and_is_tried_again_leaves_no_failure(screen: Screen) -> None:
    play = Play(screen)
    play.board.plan({"train_adapter": 1})
    for state in ("started", "failed", "started", "finished"):
        play(state, "train_adapter", experiment="main")
    play.view.close(play.now)
    assert screen.wait(lambda lines: "✓" in lines[-1])[-1].startswith(" ✓ train")


def test_job_in_the_queue_of_a_cluster_waits_to_start(screen: Screen) -> None:
    play = Play(screen)
    play.board.plan({"train_adapter": 1})
    play.board.submit("train_adapter", {"experiment": "main"}, 5.0)
    play.view.tick(65.0)
    shown = screen.wait(lambda lines: "train" in lines[-1])
    assert "train_adapter main: waiting to start" in shown[0]
    assert shown[0].endswith("1:00 min")


def test_log_has_a_line_for_each_finished_step_and_every_fifteen_seconds_for_a_long_one() -> None:
    written: list[str] = []

    class Stream:
        def write(self, text: str) -> None:
            written.append(text)

        def flush(self) -> None:
            pass

    board = Board()
    view = PlainView(Stream(), board)  # type: ignore[arg-type]
    board.plan({"quantize_gguf": 2})
    which = {"type": "q4_k_m"}
    board.apply(Event(time=100.0, run="k", state="started", step="quantize_gguf", wildcards=which))
    for now in range(100, 160):
        view.tick(float(now))
    end = Event(time=160.0, run="k", state="finished", step="quantize_gguf", wildcards=which, message="q4_k_m, 812 kB")
    job = board.apply(end)
    assert job
    view.ended(job, end)
    assert [line.strip() for line in written] == [
        "quantize_gguf q4_k_m (15 s so far)",
        "quantize_gguf q4_k_m (30 s so far)",
        "quantize_gguf q4_k_m (45 s so far)",
        "[1 of 2] quantize_gguf q4_k_m: q4_k_m, 812 kB (1:00 min)",
    ]
    for number in range(30):
        board.apply(at(200.0, "started", "train_adapter", experiment=str(number)))
    del written[:]
    for now in range(200, 246):
        view.tick(float(now))
    assert len(written) == 3  # one line for thirty at once
    assert "30 at work" in written[0]
