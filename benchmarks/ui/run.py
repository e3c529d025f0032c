"""Measures the local page in a real Chromium: `python benchmarks/ui/run.py [ROUNDS]` prints a section of Markdown.

The project is made up: a run of 10,000 events and 1,000 experiments, 1,000 other runs, and a file of 500,000 rows. What
the server costs beside a training is its CPU time while a run's events grow as those of a training do, with and without
a page that shows it.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

import msgspec  # noqa: E402
import psutil  # noqa: E402
from browser import until  # noqa: E402
from project_copy import Project  # noqa: E402
from snaketune.runtime.events import Event, EventFile, Progress  # noqa: E402
from ui_server import Page, Server, opened, serving  # noqa: E402

RUN = "grid"
EXPERIMENTS, STEPS, RUNS, ROWS = 1_000, 9, 1_000, 500_000
WATCHED_SECONDS = 30.0
BETWEEN_EVENTS = 0.5  # seconds, as a step writes them at its beginning
UPDATES = 20
DRAWN = {"runs": ("Runs", ".card"), f"run/{RUN}": (RUN, ".part-experiments tr"), "new": ("New run", ".yaml")}
TITLES = {
    "runs": f"all runs, {RUNS:,} of them",
    f"run/{RUN}": f"a run of {EXPERIMENTS * (STEPS + 1):,} events and {EXPERIMENTS:,} experiments",
    "new": "the form of a new run",
}


def make_project(folder: Path) -> Project:
    """A project in which much has happened."""
    project = Project.copied(folder)
    for number in range(RUNS):
        other = folder / "results" / f"run-{number}"
        other.mkdir(parents=True)
        (other / "config.json").write_text("{}")
    events = [
        Event(time=time.time(), run=RUN, state="started", steps={"train_adapter": EXPERIMENTS}, command="snakemake")
    ]
    for number in range(EXPERIMENTS):
        events.append(_event(number))
        events += [_event(number, done) for done in range(STEPS)]
    run = folder / "results" / RUN
    _write(run / "events.jsonl", events)
    found = [
        {"experiment": f"rank-{n}", "validation_loss": 1 + n / 1000, "steps": STEPS, "settings": {"rank": n}}
        for n in range(EXPERIMENTS)
    ]
    (run / "train").mkdir()
    (run / "train" / "selection.json").write_text(json.dumps({"experiment": "rank-0", "experiments": found}))
    for one in found[:2]:
        (run / "train" / str(one["experiment"])).mkdir()
        (run / "train" / str(one["experiment"]) / "summary.json").write_text("{}")
    rows = ({"prompt": f"is {n} a number, or {n * 7}?", "response": f"it is {n}"} for n in range(ROWS))
    (folder / "data" / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return project


def _event(number: int, done: int | None = None) -> Event:
    progress = (
        None if done is None else Progress(activity="", done=done, total=STEPS, unit="step", loss=1.0 / (done + 1))
    )
    return Event(
        time=time.time(),
        run=RUN,
        state="started" if progress is None else "progress",
        step="train_adapter",
        wildcards={"experiment": f"rank-{number}"},
        progress=progress,
    )


def _write(path: Path, events: list[Event]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events))


def cpu_seconds(server: Server) -> float:
    times = psutil.Process(server.process.pid).cpu_times()
    return float(times.user + times.system)


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def start(project: Project) -> tuple[float, float]:
    """Seconds from the command to its first page in an open browser, and the server's CPU-seconds."""
    with serving(project.folder) as server, opened(server) as page:
        shown = timed(lambda: (page.driver.get(server.address), page.wait(lambda: page.text(".card"))))
        return server.started + shown, cpu_seconds(server)


def views(page: Page) -> dict[str, float]:
    """Seconds until each view is drawn."""

    def draw(view: str) -> None:
        heading, drawn = DRAWN[view]
        page.go(view, heading)
        page.wait(lambda: page.text(drawn))

    return {view: timed(lambda view=view: draw(view)) for view in DRAWN}


def updates(page: Page, project: Project) -> list[float]:
    """Seconds from an event to its text on the page."""
    events = EventFile(project.folder / "results" / RUN / "events.jsonl")
    page.go(f"run/{RUN}", RUN)
    found = []
    for number in range(UPDATES):
        text = f"news number {number}"
        events.append(Event(time=time.time(), run=RUN, state="warning", step="train_adapter", message=text))
        found.append(timed(lambda text=text: until(lambda: text in page.text(".part-messages"))))
    return found


def watching(server: Server, project: Project) -> float:
    """The share of a core that the server takes while events come as those of a training do."""
    events = EventFile(project.folder / "results" / RUN / "events.jsonl")
    before, began, number = cpu_seconds(server), time.monotonic(), 0
    while time.monotonic() - began < WATCHED_SECONDS:
        number += 1
        events.append(_event(0, number))
        time.sleep(BETWEEN_EVENTS)
    return (cpu_seconds(server) - before) / (time.monotonic() - began)


def rows(server: Server) -> dict[str, float]:
    """The check of the many rows, in its own process, and one page of its verdicts at the end."""
    values = server.get("/api/form/start?kind=&name=")["values"]
    values |= {"data.sources": "- {path: data/many.jsonl}", "data.near_duplicates": "false"}
    key = server.post("/api/checks", {"values": values})["key"]
    checking = psutil.Process(server.process.pid).children()[-1]
    peak, spent = 0, 0.0
    while server.get(f"/api/checks/{key}")["state"] == "running":
        try:
            peak, times = max(peak, checking.memory_info().rss), checking.cpu_times()
            spent = float(times.user + times.system)
        except psutil.Error:
            break
        time.sleep(0.1)
    until(lambda: server.get(f"/api/checks/{key}")["state"] == "done", 60)
    path = f"/api/checks/{key}/rows?verdict=all&offset={ROWS - 50}&limit=50"
    return {"cpu": spent, "peak": float(peak), "page": min(timed(lambda: server.get(path)) for _ in range(5))}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder, "project"))
        starts = [start(project) for _ in range(rounds)]
        with serving(project.folder) as server:
            alone = watching(server, project)
            with opened(server) as page:
                drawn = [views(page) for _ in range(rounds)]
                took = updates(page, project)
                watched = watching(server, project)
            checked = rows(server)
    print("\n".join(report(starts, drawn, took, (alone, watched), checked)))


def report(
    starts: list[tuple[float, float]],
    drawn: list[dict[str, float]],
    took: list[float],
    shares: tuple[float, float],
    checked: dict[str, float],
) -> list[str]:
    """The section of the page."""
    middle = statistics.median
    lines: list[tuple[str, Any, str]] = [
        ("from the command to its page in the browser", f"{middle(wall for wall, _ in starts):.2f} s", "under 2 s"),
        ("CPU time of the server until then", f"{middle(cpu for _, cpu in starts):.2f} s", ""),
        (f"an event until its text is on the page, median of {UPDATES}", f"{middle(took):.2f} s", "under 1 s"),
        ("the slowest of them", f"{max(took):.2f} s", "under 1 s"),
        ("the server beside a training, of a core", f"{100 * shares[0]:.1f} %", "under 2 %"),
        ("the same with a page that shows it", f"{100 * shares[1]:.1f} %", "under 2 %"),
        *((f"drawn: {title}", f"{middle(one[view] for one in drawn):.2f} s", "") for view, title in TITLES.items()),
        (f"check of {ROWS:,} rows, in a process of its own", f"{checked['cpu']:.0f} CPU-s", ""),
        ("its peak memory", f"{checked['peak'] / 2**20:.0f} MiB", ""),
        ("the last 50 of their verdicts", f"{1000 * checked['page']:.0f} ms", ""),
    ]
    table = [f"| {what} | {value} | {wanted} |" for what, value, wanted in lines]
    return ["## The local page", "", "| | measured | wanted |", "|---|---|---|", *table]


if __name__ == "__main__":
    main()
