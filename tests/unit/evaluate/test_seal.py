"""A sealed test split is scored for one adapter: a second one is refused, whatever the run is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snaketune import files
from snaketune.contracts.evaluate import TestSplitUse
from snaketune.errors import EvaluationError
from snaketune.evaluate import seal

ROWS = st.sets(st.sampled_from("abcd"), min_size=1)


class Runs:
    """Runs below results/, each with test rows and an adapter."""

    def __init__(self, folder: Path) -> None:
        self.results = folder / "results"

    def opened(self, run: str, rows: list[str], adapter: bytes) -> TestSplitUse:
        folder = self.results / run
        folder.mkdir(parents=True, exist_ok=True)
        files.write_jsonl(folder / "test.jsonl", [{"id": name} for name in rows])
        (folder / "adapter").write_bytes(adapter)
        return seal.open_test_rows(folder / "test.jsonl", folder / "adapter", folder, folder / "opened.json")


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_the_first_opening_is_recorded_with_its_time_and_its_use_without(runs: Runs) -> None:
    use = runs.opened("v1", ["a", "b"], b"one")
    (opening,) = seal.openings(runs.results / "v1")
    assert (opening.run, opening.rows, opening.test_sha256) == ("v1", ["a", "b"], use.test_sha256)
    assert opening.opened_at.endswith("+00:00")
    assert "opened_at" not in (runs.results / "v1/opened.json").read_text()


def test_the_same_adapter_may_be_scored_again_and_leaves_the_first_time(runs: Runs) -> None:
    first = runs.opened("v1", ["a", "b"], b"one")
    (before,) = seal.openings(runs.results / "v1")
    assert runs.opened("v1", ["a", "b"], b"one") == first
    assert runs.opened("copy-of-v1", ["a", "b"], b"one") == first
    assert seal.openings(runs.results / "v1") == [before]


@pytest.mark.parametrize("run", ["v1", "v2"])
@pytest.mark.parametrize("rows", [["a", "b"], ["b", "c"], ["b", "a"]])
def test_another_adapter_is_refused_on_rows_that_were_opened(run: str, rows: list[str], runs: Runs) -> None:
    runs.opened("v1", ["a", "b"], b"one")
    with pytest.raises(EvaluationError, match=r"of 2 test rows are sealed, and were opened for another model: run v1"):
        runs.opened(run, rows, b"two")
    assert len(seal.openings(runs.results / "v1")) == 1


def test_rows_that_no_run_has_scored_may_be_opened(runs: Runs) -> None:
    runs.opened("v1", ["a", "b"], b"one")
    runs.opened("v2", ["c"], b"two")
    assert [one.run for one in seal.openings(runs.results / "v2")] == ["v1", "v2"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=st.lists(st.tuples(st.sets(st.sampled_from("abcd"), min_size=1), st.sampled_from([b"1", b"2"])), max_size=6)
)
def test_no_row_is_ever_opened_for_two_adapters(
    drawn: list[tuple[set[str], bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = Runs(tmp_path_factory.mktemp("seals"))
    scored: dict[str, set[bytes]] = {}
    for number, (rows, adapter) in enumerate(drawn):
        try:
            runs.opened(f"v{number}", sorted(rows), adapter)
        except EvaluationError:
            continue
        for row in rows:
            scored.setdefault(row, set()).add(adapter)
    assert all(len(adapters) == 1 for adapters in scored.values())


def test_an_opening_is_found_by_any_of_its_rows(runs: Runs) -> None:
    runs.opened("v1", ["a", "b"], b"one")
    for rows, expected in ((["b", "z"], "v1"), (["z"], None)):
        files.write_jsonl(runs.results / "test.jsonl", [{"id": name} for name in rows])
        found = seal.opening_of(runs.results / "v2", runs.results / "test.jsonl")
        assert (found.run if found else None) == expected
