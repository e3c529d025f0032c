"""How many rows are answered within `evaluate.max_hours`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune import files
from snaketune.config.sections import EvaluateConfig, section
from snaketune.contracts.plan import AnsweringSpeed, GGUFSpeed, PilotDecision, PilotedExperiment, PilotForecast
from snaketune.evaluate.requests import sample_rows
from snaketune.plan import answering

SLOW = AnsweringSpeed(
    start=10.0,
    base=0.1,
    tuned=0.12,
    tuned_alone=0.5,
    scored=0.02,
    gguf={"q8_0": GGUFSpeed(read=0.01, alone=0.1, together=0.03)},
    row_tokens=120.0,
    base_tokens=200.0,
    reference_tokens=60.0,
    general=0.25,
)


def limits(**keys: Any) -> EvaluateConfig:
    return section(EvaluateConfig, **keys)


def slowest(rows: int, general: int, settings: EvaluateConfig, speed: AnsweringSpeed = SLOW) -> float:
    both = rows, min(rows, general)
    variants = [*answering.KINDS, *(f"gguf-{kind}" for kind in speed.gguf)]
    return max(answering.seconds(kind, speed, *both, settings.max_new_tokens) for kind in variants)


@given(
    max_rows=st.integers(1, 400), general=st.integers(0, 90), hours=st.floats(0.01, 20), new_tokens=st.integers(1, 400)
)
def test_rows_are_as_many_as_fit_and_one_more_would_not(
    max_rows: int, general: int, hours: float, new_tokens: int
) -> None:
    settings = limits(max_rows=max_rows, max_hours=hours, max_new_tokens=new_tokens)
    rows = answering.rows_in_time(SLOW, settings, general)
    fewest = min(max_rows, answering.FEWEST_ROWS)
    assert fewest <= rows <= max_rows
    assert rows == fewest or slowest(rows, general, settings) <= hours * 3600
    assert rows == max_rows or slowest(rows + 1, general, settings) > hours * 3600


def test_answers_of_a_gguf_take_what_llama_cpp_takes_where_that_was_measured() -> None:
    measured, unknown, adapter = (
        answering.seconds(variant, SLOW, 100, 40, 256) for variant in ("gguf-q8_0", "gguf-q4_k_m", "adapter")
    )
    new, read = 140 * 60, (100 + 40 / 4) * (120 + 120 - 60)  # a row to score it, and its prompt to answer it
    assert measured == pytest.approx(10 + new * 0.03 + read * 0.01)
    assert unknown == adapter == pytest.approx(10 + new * 0.12 + read * 0.02)


def test_rows_are_no_more_than_the_slowest_gguf_answers_in_time() -> None:
    slow = msgspec.structs.replace(SLOW, gguf={**SLOW.gguf, "q4_k_m": GGUFSpeed(read=0.01, alone=9.0, together=3.0)})
    settings = limits(max_rows=500, max_hours=2.0)
    fast_rows, rows = (answering.rows_in_time(speed, settings, 0) for speed in (SLOW, slow))
    assert answering.FEWEST_ROWS < rows < fast_rows
    assert slowest(rows, 0, settings, slow) <= 2 * 3600 < slowest(rows + 1, 0, settings, slow)


def test_without_a_limit_all_rows_are_answered_however_long_they_take() -> None:
    assert answering.rows_in_time(SLOW, limits(max_rows=5000, max_hours=None), 48) == 5000


@pytest.mark.parametrize(("hours", "rows"), [(2.0, 200), (0.1, 20)])
def test_decision_of_the_pilot_says_how_many_rows_a_variant_answers(
    hours: float, rows: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecast = PilotForecast(
        hours=1, hours_low=1, hours_high=1, seconds={}, at_once=1, memory_bytes=1, pilot_memory_bytes=1, disk_bytes=1
    )
    decision = PilotDecision(
        decision="go",
        piloted=PilotedExperiment(experiment="main", of=1),
        reasons=[],
        likely_cause=None,
        criteria=[],
        rows=24,
        rows_allowed=24,
        forecast=msgspec.structs.replace(forecast, answering=SLOW),
        learning_curve=None,
        overridden=False,
        sample=[],
    )
    files.write_json(tmp_path / "decision.json", decision)
    (tmp_path / "general.jsonl").write_text('{"text": "a"}\n' * 30, encoding="utf-8")
    chosen = answering.within_hours(
        limits(max_rows=200, max_hours=hours),  # type: ignore[arg-type]  # the keys that it reads are the same
        tmp_path / "decision.json",
        tmp_path / "general.jsonl",
    )
    assert chosen.max_rows == rows
    assert ("longer than evaluate.max_hours (0.1)" in capsys.readouterr().err) == (rows < 200)


@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.data())
def test_fewer_rows_are_among_more_and_keep_their_order(total: int, seed: int, data: st.DataObject) -> None:
    records: list[Any] = [{"id": str(number)} for number in range(total)]
    few = data.draw(st.integers(1, total))
    many = data.draw(st.integers(few, total))
    some, more = sample_rows(records, few, seed), sample_rows(records, many, seed)
    assert [row for row in more if row in some] == some
    assert len(some) == few
