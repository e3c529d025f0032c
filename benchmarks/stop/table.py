"""Ctrl-C on a model of real shape, wherever the chain is: `python benchmarks/stop/table.py [SHAPE]`.

Runs the whole chain on such a model with random weights, in a pseudo-terminal. Wherever a step begins something else
(loading, training, validation, hashing, writing, ...), Ctrl-C is typed one second later and, when the same command has
come there again, ten seconds later; the seconds until Snakemake has ended go into the table of docs/recovery.md. Fails
where an exit code is not 130, a traceback is shown, a job is left, or the chain does not end well after all of that.

Leave the machine alone: half an hour on two cores with llama-3.2-1b, and 11 GB of disk. What was measured is kept in
measured/<shape>.json; `--steps` stops these alone and keeps what is there of the others. `--folder` keeps the project;
`--compare` runs the chain once more without a stop, and holds the products of both to the same bytes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import msgspec

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "plan"))
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "tests"))

import accuracy  # noqa: E402
import shaped_models  # noqa: E402
from project_copy import Project  # noqa: E402
from pty_session import Terminal, processor_share  # noqa: E402
from real_shapes import SHAPES  # noqa: E402
from snaketune import files  # noqa: E402
from snaketune.runtime.events import Event, EventReader  # noqa: E402

PAGE = ROOT / "docs" / "recovery.md"
MOMENTS = (1.0, 10.0)  # seconds after a step has begun to do something
SHORT = (0.7,)  # seconds after a step's end
BETWEEN = "between two steps"  # a process ends, another one imports its libraries
LONGEST_CHAIN = 7200.0
CONFIGURATION = """
run: stop
model: {base: base}
data: {sources: [{path: rows.jsonl}], max_length: 48, near_duplicates: false}
pilot: {rows: 4, max_steps: 1, on_no_go: continue, sample: 2}
train:
  max_steps: 3
  batch_size: 1
  gradient_accumulation_steps: 1
  warmup_steps: 1
  eval_steps: 1
package: {gguf: [q8_0], min_gain_retained: 0, fidelity: {rows: 2, num_prompts: 1, max_new_tokens: 4}}
evaluate: {max_rows: 4, max_new_tokens: 6, models: [base, adapter, gguf], max_hours: null}
"""
ROWS = 40  # short ones: a step takes seconds all the same
HEAD = "| step | at work on | times | ended after, s | exit code |\n|---|---|---|---|---|"
Place = tuple[str, str]  # a step and what it does


@dataclass(frozen=True)
class Stop:
    """One Ctrl-C: where it was typed, how long all took to end, and what share of a processor there was then."""

    place: Place
    seconds: float
    code: int
    share: float


class Walk:
    """Goes through the chain, and stops it at every place as often as there are moments."""

    def __init__(self, project: Project, run: str, steps: list[str]) -> None:
        self.project, self.steps = project, steps
        self.reader = EventReader(project.folder / "results" / run / "events.jsonl")
        self.typed: dict[Place, int] = defaultdict(int)
        self.stops: list[Stop] = []

    def run(self) -> None:
        """Type the same command until the chain is finished."""
        while (stop := self._until_stopped()) is not None:
            print(f"{stop.seconds:6.2f} s  exit code {stop.code}  {' '.join(stop.place)}", file=sys.stderr, flush=True)
            self.stops.append(stop)

    def _until_stopped(self) -> Stop | None:
        """One call of snakemake: the stop that ended it, or None where it came to its end."""
        terminal = Terminal(self.project, "report")
        try:
            place = self._wait(terminal)
            if place is None:
                assert terminal.ended() == 0, terminal.text
                return None
            self.typed[place] += 1
            return _stop(terminal, place)
        finally:
            if terminal.process.poll() is None:
                terminal.process.kill()
            terminal.close()

    def _wait(self, terminal: Terminal) -> Place | None:
        """Wait for a moment to type Ctrl-C, and return where that is; None where the chain has ended before."""
        due: dict[str, tuple[float, Place]] = {}  # of each job, and of what is between two
        has_begun = False  # what stands before is of the call before
        limit = time.monotonic() + LONGEST_CHAIN
        while terminal.process.poll() is None:
            for event in self.reader.read():
                has_begun = has_begun or (not event.step and event.state == "started")
                if not has_begun or not event.step:
                    continue
                job = _job(event)
                if event.state == "finished":
                    due = {BETWEEN: self._due((BETWEEN, f"after {job}"))}
                elif event.state in ("started", "progress"):
                    due.pop(BETWEEN, None)
                    place = job, _activity(event)
                    if job not in due or due[job][1] != place:
                        due[job] = self._due(place)
            for moment, place in due.values():
                if time.monotonic() > moment:
                    return place
            assert time.monotonic() < limit, terminal.text
            time.sleep(0.05)
        return None

    def _due(self, place: Place) -> tuple[float, Place]:
        """When to type Ctrl-C at a place that was just reached: never, where that was done at every moment."""
        moments = SHORT if place[0] == BETWEEN else MOMENTS
        if self.steps and _step(place) not in self.steps:
            moments = ()
        typed = self.typed[place]
        return time.monotonic() + (moments[typed] if typed < len(moments) else float("inf")), place


def make_project(folder: Path, shape: str) -> Project:
    """A project whose base has this shape."""
    project = Project.copied(folder, "stop.yaml")
    shaped_models.make(SHAPES[shape], folder / "base")
    project.write("stop.yaml", CONFIGURATION)
    rows = [{"prompt": f"what is {number}?", "response": f"{number} is {number}."} for number in range(ROWS)]
    files.write_jsonl(folder / "rows.jsonl", rows)
    return project


def _step(place: Place) -> str:
    """The step of a place; that between two steps is the one before."""
    job = place[1].removeprefix("after ") if place[0] == BETWEEN else place[0]
    return job.split()[0]


def _job(event: Event) -> str:
    return " ".join([event.step, *event.wildcards.values()])


def _activity(event: Event) -> str:
    return (event.progress.activity or event.progress.unit) if event.progress else "start"


def _stop(terminal: Terminal, place: Place) -> Stop:
    """Type Ctrl-C and wait for the end of all."""
    began = time.monotonic()
    os.write(terminal.ours, b"\x03")
    code = terminal.ended(patience=300)
    seconds = time.monotonic() - began
    assert code == 128 + signal.SIGINT, terminal.text
    assert "Traceback" not in terminal.text, terminal.text
    assert "To go on: snakemake report --configfile" in terminal.text, terminal.text
    assert not terminal.jobs(), terminal.text
    return Stop(place, seconds, code, processor_share())


def keep(stops: list[Stop], path: Path) -> list[Stop]:
    """Put what was measured now in the place of what was measured there before, and return all that is known."""
    before = [msgspec.convert(one, Stop) for one in files.read_json(path)] if path.is_file() else []
    found: dict[Place, list[Stop]] = {one.place: [] for one in [*before, *stops]}
    measured = {stop.place for stop in stops}
    for one in [*(one for one in before if one.place not in measured), *stops]:
        found[one.place].append(one)
    known = [one for group in found.values() for one in group]
    path.parent.mkdir(exist_ok=True)
    files.write_json(path, msgspec.to_builtins(known))
    return known


def table(stops: list[Stop]) -> str:
    """A row for each place, in the order of the chain; the seconds are those of the slowest end."""
    places: dict[Place, list[Stop]] = defaultdict(list)
    for stop in stops:
        step, doing = stop.place
        places[step, "" if step == BETWEEN else doing].append(stop)
    rows = [
        f"| {step} | {doing} | {len(found)} | {max(one.seconds for one in found):.1f} | {found[0].code} |"
        for (step, doing), found in places.items()
    ]
    share = min(stop.share for stop in stops)
    slowest = max(stops, key=lambda stop: stop.seconds)
    said = (
        f"{len(stops)} times in all; the slowest took {slowest.seconds:.1f} s, in {' at '.join(slowest.place)}. "
        f"A process had {share:.2f} of a processor or more."
    )
    return f"{HEAD}\n" + "\n".join(rows) + f"\n\n{said}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", nargs="?", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--folder", type=Path, help="an empty one for the project")
    parser.add_argument("--steps", nargs="*", default=[])
    parser.add_argument("--compare", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "project"
        project = make_project(folder, given.shape)
        straight = project.twin(folder.with_name(f"{folder.name}-straight")) if given.compare else None
        walk = Walk(project, "stop", given.steps)
        try:
            walk.run()
        finally:  # ended before the chain was: what was measured until then
            if walk.stops:
                known = keep(walk.stops, HERE / "measured" / f"{given.shape}.json")
                accuracy.put("stop", f"{given.shape}:\n\n{table(known)}", machine=True, page=PAGE)
        if straight:
            done = straight.snakemake("report", timeout=LONGEST_CHAIN)
            assert done.returncode == 0, done.stdout
            assert project.different(straight) == []


if __name__ == "__main__":
    main()
