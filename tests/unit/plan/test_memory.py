"""The memory forecast and the advice that makes a run fit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from snaketune.config.sections import TrainConfig, section
from snaketune.contracts.plan import BatchShape
from snaketune.engines import get_capabilities
from snaketune.engines.mlx import language_model
from snaketune.engines.torch import capabilities
from snaketune.plan import architecture, plan, resources

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 512,
    "intermediate_size": 160,
}
MODEL = architecture.read(SMALL)
TRAIN = section(TrainConfig)
TRAINS = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["lora", "dora", "full"]),
        "rank": st.integers(1, 64),
        "dropout": st.sampled_from([0.0, 0.1]),
        "batch_size": st.integers(1, 32),
        "gradient_accumulation_steps": st.integers(1, 8),
        "gradient_checkpointing": st.booleans(),
        "num_layers": st.sampled_from([None, 1, 2, 99]),
        "optimizer": st.sampled_from(["adamw", "sgd", "adafactor", "lion"]),
    }
).map(lambda given: replace(TRAIN, **given))


def batch_of(train: TrainConfig, length: int) -> BatchShape:
    return BatchShape(train.batch_size, length, max(1, train.batch_size * length // 2))


def total(train: TrainConfig, batch: BatchShape, number: int = 4, model: Any = MODEL) -> int:
    return resources.forecast_memory(model, train, batch, number).total


@given(train=TRAINS, length=st.integers(1, 2048), number=st.sampled_from([2, 4]))
def test_the_parts_add_up_to_the_total_and_none_is_negative(train, length, number):
    parts = resources.forecast_memory(MODEL, train, batch_of(train, length), number)
    sizes = msgspec.structs.astuple(parts)
    assert sum(sizes) == 2 * parts.total
    assert min(sizes) >= 0


@given(train=TRAINS, length=st.integers(1, 2048))
def test_more_rows_or_longer_ones_never_take_less(train, length):
    batch = batch_of(train, length)
    assert total(train, batch) <= total(train, BatchShape(batch.rows + 1, length, batch.num_target_tokens))
    assert total(train, batch) <= total(train, BatchShape(batch.rows, length + 1, batch.num_target_tokens))


def test_checkpointing_saves_activations_where_there_are_many_layers():
    deep = architecture.read({**SMALL, "num_hidden_layers": 24})
    batch = BatchShape(4, 512, 1024)
    held = {kept: total(replace(TRAIN, gradient_checkpointing=kept), batch, model=deep) for kept in (True, False)}
    assert held[True] < held[False] / 3


def test_full_training_holds_more_than_four_copies_of_the_model():
    weights = resources.weight_bytes(MODEL, 4)
    assert total(replace(TRAIN, method="full"), BatchShape(1, 8, 4)) > 4 * weights


def test_only_the_last_layers_keep_activations_where_only_they_are_trained():
    parts = {
        n: resources.forecast_memory(
            MODEL, replace(TRAIN, num_layers=n, gradient_checkpointing=False), BatchShape(4, 64, 128), 4
        )
        for n in (1, 3)
    }
    assert parts[1].activations * 3 == parts[3].activations


def even(length):
    """A function from settings to the largest micro-batches of rows that are all so long, half of each trained."""

    def batches(train, cut):
        width = min(length, cut or length)
        return [BatchShape(train.batch_size, width, train.batch_size * width // 2)]

    return batches


@settings(max_examples=50)
@given(train=TRAINS, length=st.integers(64, 2048), share=st.floats(0.2, 0.95))
def test_advice_gets_cheaper_step_by_step_and_says_when_it_fits(train, length, share):
    usable = int(share * total(train, *even(length)(train, None)))
    steps = resources.advice(MODEL, train, even(length), 4, usable, "cpu")
    totals = [bytes_after for _, bytes_after in steps]
    assert totals == sorted(totals, reverse=True)
    assert all(after > usable for after in totals[:-1])


def test_advice_names_the_smallest_change_first():
    train = replace(TRAIN, batch_size=8, gradient_accumulation_steps=2, gradient_checkpointing=False)
    usable = int(0.8 * total(train, BatchShape(8, 256, 1024)))
    words, after = resources.advice(MODEL, train, even(256), 4, usable, "cpu")[0]
    assert words.startswith("train.batch_size 4 with gradient_accumulation_steps 4")
    assert after == total(replace(train, batch_size=4, gradient_accumulation_steps=4), BatchShape(4, 256, 512))


LARGE = architecture.read({**SMALL, "hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 32000})


@pytest.mark.parametrize(("quantized", "bytes_each"), [(False, 2.0), (True, 4.5 / 8)])
def test_a_quantized_base_weighs_its_bits(quantized, bytes_each):
    model = LARGE.with_bits(4.5) if quantized else LARGE
    assert resources.weight_bytes(model, 2) == pytest.approx(model.parameters * bytes_each, rel=0.01)


def test_a_base_in_nf4_keeps_its_embedding_and_head_in_16_bits():
    blocks = LARGE.num_layers * LARGE.block_weights * 4.5 / 8
    expected = blocks + 2 * LARGE.embedding_weights
    assert resources.weight_bytes(LARGE.with_bits(4.5, "nf4"), 2) == pytest.approx(expected, rel=0.001)


HUGE = architecture.read(
    {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}
    | {"vocab_size": 128256, "intermediate_size": 28672}
)
SPREAD = replace(TRAIN, workers=8, fsdp=True, batch_size=1)


def test_a_worker_holds_its_part_of_a_spread_base_two_blocks_and_what_is_not_spread():
    blocks, rest = 80 * 2 * HUGE.block_weights, 2 * (HUGE.embedding_weights + HUGE.norm_weights)
    found = resources.forecast_memory(HUGE, SPREAD, BatchShape(1, 512, 256), 2).weights
    assert found == blocks // 8 + 2 * 2 * HUGE.block_weights + rest


@pytest.mark.parametrize(
    ("engine", "system", "changed", "capped", "counted"),
    [
        ("mlx", "linux", {}, False, True),
        ("torch", "linux", {}, False, False),
        ("torch", "darwin", {}, False, True),
        ("torch", "linux", {"packing": True}, False, True),
        ("torch", "linux", {}, True, True),
    ],
)
def test_attentions_probabilities_are_counted_where_the_engine_holds_them(
    engine, system, changed, capped, counted, monkeypatch
):
    monkeypatch.setenv("SNAKETUNE_ENGINE", engine)
    monkeypatch.setattr(capabilities, "ATTENTION_IN_TILES", system != "darwin")
    model = architecture.read(SMALL | ({"attn_logit_softcapping": 50.0} if capped else {}))
    found = resources.forecast_memory(model, replace(TRAIN, **changed), BatchShape(4, 512, 256), 4)
    assert (found.attention > 0) is counted


def test_no_quantized_base_is_advised_where_the_base_is_spread(monkeypatch):
    monkeypatch.setenv("SNAKETUNE_ENGINE", "torch")
    steps = resources.advice(HUGE, SPREAD, even(2048), 2, 20 * 10**9, "cpu")
    assert steps
    assert not [words for words, _ in steps if "4-bit" in words]
    assert all(after > 0 for _, after in steps)


@pytest.mark.parametrize(
    ("engine", "device", "words"),
    [
        ("mlx", "cpu", "a 4-bit base: model.quantize {bits: 4}"),
        ("mlx", "cuda", "a 4-bit base: model.quantize {bits: 4}"),
        ("torch", "cuda", "a 4-bit base: model.quantize {bits: 4, group_size: 64, mode: nf4}"),
        ("torch", "cpu", "engine: mlx with a 4-bit base: model.quantize {bits: 4}"),
        ("torch", "metal", "engine: mlx with a 4-bit base: model.quantize {bits: 4}"),
    ],
)
def test_the_four_bits_that_are_advised_are_those_that_memory_holds(engine, device, words, monkeypatch):
    monkeypatch.setenv("SNAKETUNE_ENGINE", engine)
    said, after = resources.advice(HUGE, TRAIN, even(64), 2, 60 * 10**9, device)[-1]
    assert said.startswith(words)
    bits, group, mode = (4, 64, "nf4") if "nf4" in said else (4, None, "affine")
    monkeypatch.setenv("SNAKETUNE_ENGINE", "mlx" if "mlx" in said else engine)
    held = plan.held(HUGE.with_bits(architecture.quantized_bits(bits, group, mode), mode), device)
    smallest = replace(TRAIN, batch_size=1, gradient_accumulation_steps=16, gradient_checkpointing=True)
    assert after == total(smallest, BatchShape(1, 64, 32), 2, held) < 60 * 10**9


@pytest.mark.parametrize(
    ("engine", "workers", "method", "advised"),
    [
        ("torch", 8, "lora", True),
        ("torch", 8, "full", True),
        ("torch", 1, "lora", False),
        ("mlx", 8, "lora", False),
    ],
)
def test_spreading_the_base_is_advised_where_there_are_workers_and_the_engine_can(
    engine, workers, method, advised, monkeypatch
):
    monkeypatch.setenv("SNAKETUNE_ENGINE", engine)
    train = replace(SPREAD, workers=workers, fsdp=False, method=method)
    steps = dict(resources.advice(HUGE, train, even(512), 2, 40 * 10**9, "cpu"))
    assert ("train.fsdp true" in steps) is advised
    if advised:
        assert steps["train.fsdp true"] < 40 * 10**9


@pytest.mark.parametrize(
    ("engine", "mode", "device", "bits"),
    [
        ("mlx", "affine", "cpu", 4.5),
        ("torch", "affine", "cuda", 16),
        ("torch", "nf4", "cuda", 4.5),
        ("torch", "nf4", "cpu", 16),
    ],
)
def test_a_base_that_the_engine_has_no_kernels_for_is_held_dequantized(engine, mode, device, bits, monkeypatch):
    monkeypatch.setenv("SNAKETUNE_ENGINE", engine)
    assert plan.held(LARGE.with_bits(4.5, mode), device).bits == bits


def test_forecasts_count_with_as_many_completions_at_once_as_the_engine_generates():
    assert get_capabilities().COMPLETION_BATCH == language_model.BATCH
