"""One run at a time in a folder: the second one says so, the next one after a killed one goes on by itself."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from dry_runs import DryRuns
from project_copy import Project, tiny
from pty_session import Terminal

CONFIG = "results/tiny/config.json"
REPORT = "results/tiny/data/report.json"
ROWS = 8_000


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Project, Terminal, psutil.Process]]:
    """A run whose first job, validate_rows, is held up; with so many rows that it cannot have ended before."""
    project = tiny(tmp_path / "project")
    rows = (
        {"prompt": f"what is {number} and {number * 7919 % 9973}?", "response": str(number)} for number in range(ROWS)
    )
    project.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    terminal = Terminal(project, "--cores", "1", REPORT)
    lock = project.folder / "results/tiny/logs/.validate_rows.lock"
    assert terminal.until(lambda: lock.is_file() and lock.read_text()), terminal.text
    job = terminal.jobs()[0]
    job.suspend()
    try:
        yield project, terminal, job
    finally:
        if job.is_running():
            job.kill()
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait()
        terminal.close()


def test_a_second_run_ends_at_once_with_the_first_ones_pid(
    running: tuple[Project, Terminal, psutil.Process], dry_runs: DryRuns
) -> None:
    project, terminal, job = running
    configured = ("--configfile", "tiny.yaml")
    for target in (REPORT, CONFIG):  # the same files, and others, which Snakemake's own lock lets through
        second = dry_runs.run(project.folder, target, *configured)
        assert second.returncode == 1
        assert f"another process (pid {terminal.process.pid}) is already running snakemake for tiny" in second.stdout
        assert "Traceback" not in second.stdout
    other = dry_runs.run(project.folder, CONFIG, *configured, "--config", "run=other")  # it would share results/models
    assert other.returncode == 1
    assert "is already running snakemake for tiny" in other.stdout
    assert dry_runs.run(project.folder, "-n", *configured).returncode == 0  # looking is free
    job.resume()
    assert terminal.ended() == 0, terminal.text


def test_a_run_after_a_killed_one_waits_for_the_job_that_lives_on(
    running: tuple[Project, Terminal, psutil.Process],
) -> None:
    project, terminal, job = running
    terminal.process.kill()
    terminal.ended()
    assert job.is_running()
    second = Terminal(project, REPORT)
    try:
        assert second.until(lambda: "waiting for it" in second.text), second.text
        assert f"a job of a killed run (pid {job.pid}) is still running validate_rows" in second.text
        time.sleep(0.5)
        assert second.process.poll() is None
        job.resume()
        assert second.ended() == 0, second.text
    finally:
        second.close()
    killed = f"an earlier run (pid {terminal.process.pid}) was killed; going on from there"
    assert second.text.count(killed) == 1
    assert (project.folder / REPORT).is_file()
    assert "was killed" not in project.snakemake(REPORT).stdout


def test_what_ended_a_step_is_told_without_snakemakes_own_words_on_top(
    running: tuple[Project, Terminal, psutil.Process],
) -> None:
    project, terminal, job = running
    job.kill()
    assert terminal.ended() == 1
    assert "snaketune: validate_rows was ended by SIGKILL. If nobody did that" in terminal.text
    assert "RuleException" not in terminal.text
    assert "WorkflowError" not in terminal.text
    second = Terminal(project, REPORT)
    try:
        assert second.until(second.jobs), second.text
        os.write(second.ours, b"\x03")
        second.ended()
    finally:
        second.close()
    assert "RuleException" not in second.text
    assert project.snakemake(REPORT).returncode == 0
