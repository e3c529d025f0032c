"""What 16 bits take from a small update, and that the GGUF files are made before that."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from packaged_models import Chain, make_chain
from snaketune import files
from snaketune.contracts.package import Fidelity, Rounding
from snaketune.engines import sixteen_bit
from snaketune.engines.mlx import merging
from snaketune.package import fused_model
from snaketune.package.fidelity_checks import Gain


@pytest.fixture(scope="module")
def slightly_adapted(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A bfloat16 base whose adapter gained less than 0.01 nats a token."""
    return make_chain(tmp_path_factory.mktemp("slightly"), "llama-bpe", updates=2, rate=2e-5)


def shares(record: Fidelity) -> dict[str, float]:
    return {check.variant: check.value for check in record.checks if check.check == "gain"}


def test_a_small_gain_is_kept_by_the_gguf_though_the_folder_in_bfloat16_loses_it(
    slightly_adapted: Chain, tmp_path: Path
) -> None:
    chain = slightly_adapted
    record = chain.check(tmp_path / "fidelity.json", ggufs=[chain.gguf("f16"), chain.gguf("q8_0")])
    kept = shares(record)
    gain = record.variants["adapter"].answer_logprob - record.variants["base"].answer_logprob
    assert 0.005 < gain / record.answer_tokens < 0.01
    assert kept["fused"] < 0.8  # half of the update is below half a step of bfloat16
    assert kept["gguf-f16"] > 0.95
    assert kept["gguf-q8_0"] > 0.95
    assert record.passed


def test_manifest_states_what_each_format_would_lose(slightly_adapted: Chain) -> None:
    manifest = files.read_json(slightly_adapted.folder / "fused.json")
    half, brain = manifest["rounding"]["float16"], manifest["rounding"]["bfloat16"]
    assert manifest["dtype"] == "bfloat16"
    assert manifest["gguf_dtype"] == "float16"
    assert half["update_retained"] == pytest.approx(1, abs=0.01)
    assert brain["update_retained"] < 0.8
    assert half["error"] < brain["error"] / 3


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "gemma2", "llama-bpe"])
def test_a_small_gain_over_a_4_bit_base_is_kept_in_f16(family: str, tmp_path: Path) -> None:
    chain = make_chain(tmp_path, family, quantize=4, updates=2, rate=4e-5)
    kept = shares(chain.check(tmp_path / "fidelity.json", ggufs=[chain.gguf("f16")]))
    assert kept["gguf-f16"] > 0.95


@pytest.mark.parametrize(
    ("half", "brain", "wanted"),
    [
        ((1e-4, True), (8e-4, True), "float16"),
        ((1e-4, False), (8e-4, True), "bfloat16"),
        ((3e-3, True), (0, True), "bfloat16"),
    ],
)
def test_the_gguf_gets_the_format_that_holds_all_weights_and_loses_least(
    half: tuple[float, bool], brain: tuple[float, bool], wanted: str
) -> None:
    found = {
        name: Rounding(error=error, update_retained=None, in_range=in_range)
        for name, (error, in_range) in {"float16": half, "bfloat16": brain}.items()
    }
    assert fused_model.least_rounding(found) == wanted


def test_weights_beyond_float16_are_measured_and_subnormal_ones_lose_more_there() -> None:
    draw = np.random.default_rng(7)
    meter = sixteen_bit.RoundingMeter()
    tiny = draw.normal(size=(64, 96)).astype(np.float32) * 1e-7
    large = np.full((2, 4), 1e6, np.float32)
    bits = sixteen_bit.rounded(large.reshape(-1), "bfloat16")
    meter.add(sixteen_bit.Sample(tiny, None), 1.0, in_float16=True)
    alone = meter.result()
    assert alone["float16"].error > 10 * alone["bfloat16"].error
    meter.add(
        sixteen_bit.Sample(large, None), 1.0, sixteen_bit.largest_bits(bits) <= sixteen_bit.LARGEST_FLOAT16["bfloat16"]
    )
    assert not meter.result()["float16"].in_range
    assert meter.result()["bfloat16"].in_range


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_numbers_are_rounded_as_mlx_rounds_them_and_nothing_wild_becomes_a_number(dtype: str) -> None:
    values = np.random.default_rng(1).normal(size=5000).astype(np.float32) * np.logspace(-9, 4, 5000, dtype=np.float32)
    expected = np.array(mx.array(values).astype(merging.SIXTEEN_BIT[dtype]).view(mx.uint16))
    assert (sixteen_bit.rounded(values, dtype) == expected).all()
    for wild in (np.nan, -np.nan, np.inf, -np.inf):
        odd = np.full(3, wild, np.float32)
        odd.view(np.uint32)[1] |= 0x7FFF
        assert sixteen_bit.largest_bits(sixteen_bit.rounded(odd, dtype)) >= sixteen_bit.INFINITE[dtype]


BASE, ADAPTER = [-20.0, -21, -19, -20], [-10.0, -11, -9, -10]
GAIN = Gain(BASE, ADAPTER, [10] * 4)


def test_rows_that_differ_little_decide_and_rows_that_differ_much_do_not() -> None:
    steady, wild = [-10.1, -11.1, -9.1, -10.1], [-2.0, -20, -3, -18]
    assert GAIN.is_decided(steady, 0.9)
    assert not GAIN.is_decided(wild, 0.9)
    assert GAIN.share_error(steady) < 0.001
    assert GAIN.retained_check("gguf-q2_k", wild, 0.95).passed
    assert not GAIN.retained_check("gguf-q2_k", [-15.0, -16, -14, -15], 0.95).passed


def test_variant_of_which_fewer_rows_were_read_is_compared_over_those() -> None:
    more = Gain([*BASE, -50, -60], [*ADAPTER, -10, -11], [*GAIN.tokens, 20, 30])
    for logprobs in ([-11.0, -12, -9, -10], [-15.0, -21, -9, -10]):
        assert more.share(logprobs) == GAIN.share(logprobs)
        assert more.share_error(logprobs) == GAIN.share_error(logprobs)
        assert more.retained_check("gguf-q8_0", logprobs, 0.9) == GAIN.retained_check("gguf-q8_0", logprobs, 0.9)


@pytest.mark.parametrize("spoiled", ["adapter", "variant"])
def test_probabilities_that_are_no_numbers_pass_no_check_and_need_no_more_rows(spoiled: str) -> None:
    nothing = [float("nan")] * 4
    gain = Gain(BASE, nothing, GAIN.tokens) if spoiled == "adapter" else GAIN
    logprobs = ADAPTER if spoiled == "adapter" else nothing
    assert not gain.retained_check("gguf-q8_0", logprobs, 0.9).passed
    assert gain.is_decided(logprobs, 0.9)


@pytest.mark.parametrize(
    ("gains", "is_decided"), [([-4.0, 5, -3, 2], False), ([0.02, 0, 0.02, 0], True), ([0] * 4, True)]
)
def test_rows_without_a_gain_decide_only_where_they_show_that_there_is_none(
    gains: list[float], is_decided: bool
) -> None:
    gain = Gain(BASE, [base + more for base, more in zip(BASE, gains, strict=True)], [20] * 4)
    broken = [base - 5 for base in BASE]
    assert gain.retained_check("gguf-q4_k_m", broken, 0.9).passed  # so no share of these rows could tell it
    assert gain.is_decided(broken, 0.9) is is_decided
    assert gain.is_decided([float("nan")] * 4, 0.9)


@pytest.mark.parametrize(("rows", "says_enough"), [(4, False), (24, True)])
def test_few_rows_must_be_further_from_the_minimum_to_fail_a_file(rows: int, says_enough: bool) -> None:
    gain = Gain([-20.0] * rows, [-10.0] * rows, [10] * rows)
    apart = np.array([-1.0, 1] * (rows // 2))
    apart *= 0.1 * rows**0.5 / apart.std(ddof=1)  # so that the share has a standard error of 0.1
    logprobs = (-10 - 10 * (0.1 + 0.25) + 10 * apart).tolist()  # 2.5 of them below the minimum
    assert gain.share(logprobs) == pytest.approx(0.65)
    assert gain.retained_check("gguf-q2_k", logprobs, 0.9).passed is not says_enough
    assert not gain.is_decided(logprobs, 0.9)  # all rows that there are must say so


def test_a_folder_is_only_excused_by_another_merge_that_lost_as_much() -> None:
    gain = Gain([-100.0], [-90.0], [100])
    assert gain.retained_check("fused", [-95.0], 0.9, rounded=("bfloat16", [-95.1])).passed
    assert not gain.retained_check("fused", [-95.0], 0.9, rounded=("bfloat16", [-91.0])).passed


def test_a_folder_that_lost_as_much_as_another_merge_needs_no_more_rows_and_any_other_does() -> None:
    lossy, as_lossy, whole = ([of - part for of in ADAPTER] for part in (5.0, 5.1, 0.0))
    assert GAIN.is_decided(lossy, 0.9, as_lossy)
    assert not GAIN.is_decided(lossy, 0.9, whole)
    assert not GAIN.is_decided(lossy, 0.9)
