"""Mixtures of experts: an expert that changes hands at a near-tie is no fault, and a fault is not hidden by that."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import families
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaged_models import make_chain
from snaketune.package import fidelity_checks, fidelity_probes, gguf_conversion
from snaketune.package.fidelity_probes import ProbeLimits, ProbeResult
from snaketune.tokens.chat_template import Renderer


def result(distributions: np.ndarray) -> ProbeResult:
    return ProbeResult(distributions, [0.0])


def moved(distributions: np.ndarray, positions: int, by: float) -> ProbeResult:
    """The same distributions with one log-probability moved at the first so many positions."""
    changed = distributions.copy()
    changed[:positions, 0] += by
    return result(changed)


@pytest.mark.parametrize(("positions", "dense", "mixture"), [(0, True, True), (3, False, True), (30, False, False)])
def test_positions_of_a_mixture_may_differ_where_few_do(positions: int, dense: bool, mixture: bool) -> None:
    plain = np.full((100, 7), -np.log(7), np.float32)
    distance = fidelity_probes.distance(result(plain), moved(plain, positions, 0.9))
    assert fidelity_checks.logprob_check("gguf-f16", "adapter", distance).passed == dense
    assert fidelity_checks.logprob_check("gguf-f16", "adapter", distance, mixture=True).passed == mixture


def test_mixture_may_be_as_far_from_the_adapter_as_rounding_alone_takes_it_but_not_farther() -> None:
    plain = np.full((50, 5), -np.log(5), np.float32)
    rounding = fidelity_probes.distance(result(plain), moved(plain, 25, 0.2))
    limit = fidelity_checks.noise_limit(rounding)
    assert limit == pytest.approx(0.4)
    for by, passed in ((0.3, True), (0.5, False)):
        distance = fidelity_probes.distance(result(plain), moved(plain, 40, by))
        check = fidelity_checks.logprob_check("gguf-f16", "adapter", distance, mixture=True, limit=limit)
        assert check.passed == passed
    assert fidelity_checks.noise_limit(fidelity_probes.distance(result(plain), result(plain))) == 0.05


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=8))
def test_each_beginning_of_the_rows_is_compared_once(rows: list[list[int]]) -> None:
    chosen = fidelity_probes.compared_positions(rows, vocab_size=4)
    beginnings = [tuple(row[: position + 1]) for row, found in zip(rows, chosen, strict=True) for position in found]
    every = {tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)}
    assert sorted(beginnings) == sorted(every)
    assert all(first < second for found in chosen for first, second in pairwise(found))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.build(tmp_path_factory.mktemp("chatml") / "base", "qwen3")


def test_template_before_every_conversation_is_compared_in_the_first_row_alone(base: Path) -> None:
    renderer = Renderer(base)
    rows = families.conversations(6)
    probes = fidelity_probes.make_probes(renderer, rows, ProbeLimits(6, 2, 8), vocab_size=len(renderer.tokenizer))
    first, *others = (found[0] for found in probes.compared_positions)
    assert first == 0
    assert min(others) > 3
    assert probes.num_target_tokens(len(rows)) == sum(sum(renderer.record(row).loss_mask) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mixtral", "qwen3-moe"])
def test_two_experts_in_each_other_s_place_are_caught(family: str, tmp_path: Path) -> None:
    chain = make_chain(tmp_path, family)
    assert chain.check(tmp_path / "right.json", ggufs=[chain.gguf("f16")]).passed
    spoiled = tmp_path / "spoiled"
    shutil.copytree(tmp_path / "fused", spoiled)
    weights = mx.load(str(spoiled / "model.safetensors"))
    assert isinstance(weights, dict)
    block, down = ("block_sparse_moe", "w2") if family == "mixtral" else ("mlp", "down_proj")
    first, second = (f"model.layers.1.{block}.experts.{number}.{down}.weight" for number in (0, 1))
    mx.save_safetensors(
        str(spoiled / "model.safetensors"),
        weights | {first: weights[second], second: weights[first]},
        {"format": "mlx"},
    )
    bad = tmp_path / "bad" / "tiny-f16.gguf"
    bad.parent.mkdir()
    gguf_conversion.convert(spoiled, bad, name="tiny")
    record = chain.check(tmp_path / "wrong.json", ggufs=[bad])
    assert ("logprobs", "gguf-f16") in {(check.check, check.variant) for check in record.checks if not check.passed}
