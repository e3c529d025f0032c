"""What a bundle holds of a run: every score that the report shows, and no file that is another machine's affair."""

from __future__ import annotations

from pathlib import Path

import pytest
from snaketune.bundle import contents

SCORES = ("comparison.json", "experiments.json", "opened.json", "base/scores.json")
ON_REQUEST = "lm_eval/results.json"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a file of each name, and three empty splits."""
    names = [f"evaluation/{name}" for name in SCORES]
    names += [ON_REQUEST, "model/ollama.json", "model/uploaded.json", "lm_eval/task/test.jsonl", "lora-base.gguf"]
    for name in [*names, *(f"data/{split}.jsonl" for split in contents.SPLITS)]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_bundle_holds_every_score_and_nothing_of_one_machine(run: Path) -> None:
    found = set(contents.members(run, inputs=None, products=True))
    assert found == {contents.ROWS, f"run/{ON_REQUEST}", *(f"run/evaluation/{name}" for name in SCORES)}


def test_a_run_elsewhere_need_not_have_the_time_of_the_opening_nor_what_was_asked_for() -> None:
    measured = {name for name in (*SCORES, ON_REQUEST) if contents.is_measured(f"run/evaluation/{name}")}
    assert measured == {"opened.json"}
    assert contents.is_measured(f"run/{ON_REQUEST}")
