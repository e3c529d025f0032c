"""Of a large model few rows are read first, and more where those do not decide; the distance of two distributions."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import families
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaged_models import Chain
from snaketune import files
from snaketune.engines import load_model
from snaketune.engines.interface import LoadOptions
from snaketune.package import fidelity_checks, fidelity_probes
from snaketune.package.fidelity_probes import ProbeLimits, ProbeResult, distance, make_probes
from snaketune.tokens.chat_template import Renderer

ROWS = 12


def look_as_at_a_large_model(chain: Chain, monkeypatch: pytest.MonkeyPatch, tokens: int = 1) -> None:
    """Let a first look at this tiny model take so many tokens, as if it were a large one."""
    weights = files.read_json(chain.folder / "fused.json")["parameters"]
    monkeypatch.setattr(fidelity_probes, "WORK", weights * tokens)
    monkeypatch.setattr(fidelity_probes, "FEWEST_TOKENS", 512)  # so that all rows stay whole


def test_first_look_that_decides_is_all_that_is_taken_and_the_record_says_so(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = chain.check(tmp_path / "whole.json")
    look_as_at_a_large_model(chain, monkeypatch)
    record = chain.check(tmp_path / "few.json")
    assert (whole.rows, whole.rows_allowed, whole.prompts) == (ROWS, ROWS, 4)
    assert (record.rows, record.rows_allowed, record.prompts) == (4, ROWS, 1)
    assert record.passed
    assert {variant.rows for variant in record.variants.values()} == {4}
    assert record.answer_tokens < whole.answer_tokens
    assert record.variants["gguf-f16"].positions < whole.variants["gguf-f16"].positions
    text = [
        [(check.check, check.variant, check.value) for check in each.checks if check.check not in ("gain", "logprobs")]
        for each in (record, whole)
    ]
    assert text[0] == text[1]  # every conversation is tokenized and rendered all the same


def test_only_the_file_that_is_undecided_reads_more_rows_and_all_of_them_give_what_they_give_at_once(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, ggufs = "gguf-q4_k_m", [chain.gguf("q8_0"), chain.gguf("q4_k_m")]
    whole = chain.check(tmp_path / "whole.json", ggufs=ggufs)
    minimum = whole.variants[name].gain_retained
    assert minimum is not None
    look_as_at_a_large_model(chain, monkeypatch)
    record = chain.check(tmp_path / "joined.json", ggufs=ggufs, min_gain_retained=minimum)
    assert record.rows == ROWS
    assert {key: variant.rows for key, variant in record.variants.items() if variant.rows == ROWS}.keys() == {
        "base",
        "adapter",
        name,
    }
    assert record.variants["gguf-q8_0"].rows == 4
    for key in ("base", "adapter", name):
        assert record.variants[key].answer_logprob == pytest.approx(whole.variants[key].answer_logprob, abs=1e-3)
    assert record.variants[name].gain_retained == pytest.approx(minimum, abs=1e-4)


def test_fused_folder_is_judged_on_as_many_rows_as_a_product_unless_another_merge_lost_as_much(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_as_at_a_large_model(chain, monkeypatch)
    impossible = 1.5  # of the gain
    excused = chain.check(tmp_path / "excused.json", ggufs=[chain.gguf("f16")], min_gain_retained=impossible)
    rows = {name: variant.rows for name, variant in excused.variants.items()}
    assert (rows["gguf-f16"], rows["fused"], rows["rounded"]) == (ROWS, 4, 4)
    monkeypatch.setattr(fidelity_checks, "SAME_SHARE", -1.0)  # no merge excuses it
    judged = chain.check(tmp_path / "judged.json", ggufs=[chain.gguf("f16")], min_gain_retained=impossible)
    assert {variant.rows for variant in judged.variants.values()} == {ROWS}
    monkeypatch.undo()
    whole = chain.check(tmp_path / "whole.json", ggufs=[chain.gguf("f16")])
    for name in ("fused", "rounded"):
        assert judged.variants[name].answer_logprob == pytest.approx(whole.variants[name].answer_logprob, abs=1e-3)


def test_larger_model_takes_fewer_and_shorter_rows_and_answers_but_never_too_few() -> None:
    asked = ProbeLimits(24, 8, 32)
    small, billion, large = (asked.first_look(weights) for weights in (10**6, 1_240_000_000, 8_000_000_000))
    assert (small.prompts, small.max_new_tokens, small.row_tokens) == (8, 32, 512)
    assert (billion.prompts, billion.max_new_tokens, billion.row_tokens) == (1, 10, 64)
    assert (large.prompts, large.max_new_tokens, large.row_tokens) == (1, 8, 64)
    assert ProbeLimits(24, 0, 8).first_look(8_000_000_000).max_new_tokens == 8
    assert ProbeLimits(24, 0, 8).first_look(8_000_000_000).prompts == 0
    assert ProbeLimits(24, 8, 8, in_memory=False).first_look(10**10).rows == 4


@given(tokens=st.integers(1, 400), rows=st.integers(1, 12))
def test_parts_of_the_probes_are_the_probes(chain: Chain, tokens: int, rows: int) -> None:
    renderer = Renderer(chain.base)
    limits = ProbeLimits(rows, 4, 8, tokens=tokens)
    probes = make_probes(renderer, families.conversations(rows), limits, vocab_size=len(renderer.tokenizer))
    assert min(rows, 4) <= probes.first_look <= rows
    held = sum(map(len, probes.rows[: probes.first_look]))
    assert held <= tokens or probes.first_look <= 4
    first, rest = probes.part(0, probes.first_look), probes.part(probes.first_look, rows)
    assert first.rows + rest.rows == probes.rows
    assert first.target_positions + rest.target_positions == probes.target_positions
    assert all(first.compared_positions)
    assert not any(rest.compared_positions)
    assert (first.prompts, rest.prompts) == (probes.prompts, [])


def test_of_rows_with_long_answers_each_look_reads_twice_as_much_as_the_one_before(chain: Chain) -> None:
    rows = families.conversations(24)
    for row in rows:
        row["messages"][-1]["content"] *= 60
    limits = ProbeLimits(24, 0, 8, tokens=1, row_tokens=64)
    renderer = Renderer(chain.base)
    probes = make_probes(renderer, rows, limits, vocab_size=len(renderer.tokenizer))
    looks = [(0, probes.first_look), *probes.later_looks()]
    assert looks == [(0, 4), (4, 8), (8, 16), (16, 24)]
    read = [{len(row) for row in probes.rows[start:end]} for start, end in looks]
    assert read == [{64}, {128}, {256}, {512}]
    predicted = [min(map(len, probes.target_positions[start:end])) for start, end in looks]
    assert all(later > before for before, later in pairwise(predicted))


@pytest.mark.parametrize("virtual", [0, 40])
def test_of_a_long_prompt_its_beginning_and_its_end_are_completed(chain: Chain, virtual: int) -> None:
    rows = families.conversations(2)
    for row in rows:
        row["messages"][0]["content"] *= 60
    renderer = Renderer(chain.base, None, virtual)
    limits = ProbeLimits(2, 1, 8, row_tokens=100)
    (prompt,) = make_probes(renderer, rows, limits, vocab_size=len(renderer.tokenizer)).prompts
    whole = renderer.prompt_ids(rows[0]["messages"][:-1])
    assert len(whole) > 512
    assert len(prompt) == 100
    assert prompt[0] == whole[0]
    assert [token for token in prompt if token in renderer.virtual_ids] == list(renderer.virtual_ids)
    assert prompt[-50:] == whole[-50:]


def test_rows_of_prompt_tuning_are_read_with_all_their_virtual_tokens_however_few_tokens_are_read(chain: Chain) -> None:
    renderer = Renderer(chain.base, None, 40)
    limits = ProbeLimits(4, 0, 8, tokens=1, row_tokens=48)
    probes = make_probes(renderer, families.conversations(4), limits, vocab_size=len(renderer.tokenizer))
    for row, targets in zip(probes.rows, probes.target_positions, strict=True):
        assert [token for token in row if token in renderer.virtual_ids] == list(renderer.virtual_ids)
        assert len(row) <= 82
        assert targets


def test_rows_without_a_trained_answer_have_no_probability_and_are_no_obstacle(chain: Chain) -> None:
    rows = families.conversations(4)
    for row in rows:
        row["messages"][-1]["trained"] = False
    renderer = Renderer(chain.base)
    probes = make_probes(renderer, rows, ProbeLimits(4, 0, 8), vocab_size=len(renderer.tokenizer)).of_base()
    found = fidelity_probes.run_probes(load_model(chain.base, LoadOptions(exact=True)), probes, generate=False)
    assert found.row_logprobs == [0.0] * 4
    assert distance(found, found).positions == 0


def logprobs(draw: np.random.Generator, positions: int, width: int) -> np.ndarray:
    logits = draw.normal(size=(positions, width)) * 3
    return (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)


@pytest.mark.parametrize(("at_once", "positions"), [(1, 7), (100, 7), (1 << 20, 7), (100, 0)])
def test_distance_is_that_of_the_definition_however_many_numbers_are_compared_at_once(
    at_once: int, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity_probes, "COMPARED_AT_ONCE", at_once)
    draw = np.random.default_rng(3)
    ours, theirs = logprobs(draw, positions, 40), logprobs(draw, positions, 43)
    found = distance(ProbeResult(ours, []), ProbeResult(theirs, []))
    p, gap = ours.astype(np.float64), ours.astype(np.float64) - theirs[:, :40]
    assert found.positions == positions
    assert found.not_finite == 0
    if positions:
        assert found.max_dlogp == pytest.approx(np.abs(gap).max(), rel=1e-5)
        assert found.mean_dlogp == pytest.approx(np.abs(gap).mean(), rel=1e-5)
        assert found.kl == pytest.approx((np.exp(p) * gap).sum() / positions, rel=1e-5)
        assert found.top1 == pytest.approx((ours.argmax(-1) == theirs[:, :40].argmax(-1)).mean(), abs=1e-6)


def test_distributions_that_are_not_finite_are_counted_and_the_others_still_compared() -> None:
    draw = np.random.default_rng(5)
    ours = logprobs(draw, 6, 20)
    theirs = ours.copy()
    theirs[1], theirs[4, 3] = np.nan, -np.inf
    found = distance(ProbeResult(ours, []), ProbeResult(theirs, []))
    assert found.not_finite == 2
    assert found.max_dlogp == np.inf
    theirs[4] = ours[4] + 0.25
    found = distance(ProbeResult(ours, []), ProbeResult(theirs, []))
    assert (found.not_finite, found.max_dlogp) == (1, pytest.approx(0.25, abs=1e-5))
