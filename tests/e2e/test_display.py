"""What a person sees of the demo on a terminal, in a pipe and after a failure.

`SNAKETUNE_RECORD=1 pytest tests/e2e/test_display.py -m slow` writes docs/terminal-demo.txt and docs/report.png anew.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from project_copy import ROOT, Project
from screen import Screen
from snaketune.runtime.events import EventReader

CAPTURE = ROOT / "docs" / "terminal-demo.txt"
PICTURE = ROOT / "docs" / "report.png"
MOST_LINES = 30
NUMBER = re.compile(r"\d[\d.,:]*")


def run_on(screen: Screen, project: Project, *arguments: str) -> Iterator[list[str]]:
    """Run snakemake on a terminal; yields what it shows, five times a second, to its end."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(project.folder / "scripts"), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        ["snakemake", *arguments, *(["--configfile", project.configuration] if project.configuration else [])],
        cwd=project.folder,
        env=environment,
        stdin=screen.theirs,
        stdout=screen.theirs,
        stderr=screen.theirs,
        start_new_session=True,
    )
    while process.poll() is None:
        yield screen.lines()
        time.sleep(0.2)
    time.sleep(0.3)  # what is still between the two ends
    yield screen.lines()


def shape(line: str) -> str:
    """A line without its numbers and its time, which differ between machines."""
    return NUMBER.sub("N", re.sub(r" {2,}\S+ (s|min|h)$", "", line)).rstrip()


def words(text: str) -> list[str]:
    """The words without numbers and times, which differ between machines, and in no order: stages end as they may.

    Where a line is cut depends on how wide the times are, so a word that is cut is left out.
    """
    lines = " ".join(map(shape, text.splitlines()))
    return sorted(word for word in re.sub(r"\bN (s|min|h)\b", "N", lines).split() if not word.endswith("…"))


@pytest.mark.slow
def test_demo_on_a_terminal_takes_at_most_thirty_lines_and_ends_in_what_stands(tmp_path: Path) -> None:
    project = Project.copied(tmp_path / "demo")
    screen = Screen(columns=100, rows=30)
    frames = list(run_on(screen, project))
    screen.close()
    shown = frames[-1]
    assert len(shown) <= MOST_LINES, "\n".join(shown)
    for stage in ("data", "model", "plan", "pilot", "train", "package", "evaluate", "deploy", "report"):
        assert sum(line.startswith(f" ✓ {stage} ") for line in shown) == 1, "\n".join(shown)
    assert "demo is better than its base model" in "\n".join(shown)
    assert shown[-1] == "report: results/demo/report/index.html"
    training = [frame for frame in frames if re.search(r"^ . train .* left, .* tokens/s", frame[-1])]
    whole = [
        "$ snakemake",
        "",
        *shown,
        "",
        "The same run, seen halfway through its training:",
        "",
        *training[len(training) // 2],
        "",
    ]
    if os.environ.get("SNAKETUNE_RECORD"):
        CAPTURE.write_text("\n".join(whole), encoding="utf-8")
        browser.take_picture(project.folder / "results/demo/report/index.html", PICTURE, width=1180, height=1330)
    recorded = CAPTURE.read_text(encoding="utf-8").split("\n")
    end = recorded.index("The same run, seen halfway through its training:") - 1
    assert words("\n".join(recorded[2:end])) == words("\n".join(shown))


@pytest.mark.slow
def test_pipe_gets_one_line_for_each_finished_step_and_the_events_agree(finished: Project, tmp_path: Path) -> None:
    project = finished.twin(tmp_path / "project")
    (project.folder / "results/tiny/events.jsonl").unlink()
    (project.folder / "results/tiny/model/tiny-q8_0.gguf").unlink()
    done = project.snakemake("package")
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    events = EventReader(project.folder / "results/tiny/events.jsonl").read()
    ended = [
        " ".join([event.step, *event.wildcards.values()])
        for event in events
        if event.step and event.state == "finished"
    ]
    assert [re.match(r"\[\d+ of \d+\] ([\w -]+\w)", line)[1] for line in lines] == ended  # type: ignore[index]
    assert "quantize_gguf q8_0" in ended
    assert done.stdout.splitlines()[-1].startswith("package: results/tiny/model")
    assert events[0].state == "started"
    assert events[0].command == "snakemake package --configfile tiny.yaml"
    assert sum(events[0].steps.values()) == len(ended)
    assert events[-1].state == "finished"


@pytest.mark.slow
def test_failed_step_is_its_message_and_its_log_and_the_command_that_goes_on(finished: Project, tmp_path: Path) -> None:
    project = finished.twin(tmp_path / "project")
    project.write("rows.jsonl", '{"prompt": "nur eine Frage"}\n' * 30)
    done = project.snakemake()
    assert done.returncode == 1
    text = done.stdout
    assert "  log: results/tiny/logs/validate_rows.log" in text
    assert text.count("snaketune: rows.jsonl") == 1
    assert text.splitlines()[-1] == "To go on: snakemake --configfile tiny.yaml"
    for noise in ("message: None", "RuleException", "CalledProcessError", "Traceback", "jobid", "WorkflowError"):
        assert noise not in text
    last = EventReader(project.folder / "results/tiny/events.jsonl").read()[-1]
    assert (last.step, last.state) == ("", "failed")


@pytest.mark.slow
def test_nothing_to_be_done_says_what_stands_in_under_two_cpu_seconds(finished: Project, tmp_path: Path) -> None:
    project = finished.twin(tmp_path / "project")
    project.snakemake()  # digests of the code of this copy are noted
    before = os.times()
    done = project.snakemake()
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert "Nothing to be done" in done.stdout
    assert done.stdout.splitlines()[-1] == "report: results/tiny/report/index.html"
    assert spent < 3  # two on a machine of its own; docs/benchmarks.md


@pytest.mark.slow
def test_one_option_brings_back_what_snakemake_itself_says(finished: Project, tmp_path: Path) -> None:
    project = finished.twin(tmp_path / "project")
    (project.folder / "results/tiny/model/tiny-q8_0.gguf").unlink()
    done = project.snakemake("package", "--logger-snaketune-off")
    assert done.returncode == 0, done.stdout
    assert "rule quantize_gguf:" in done.stdout
    assert "(100%) done" in done.stdout
