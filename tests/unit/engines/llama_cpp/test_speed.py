"""The speeds of llama.cpp on this machine, by which forecasts are made."""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import pytest
from snaketune.engines.interface import LoadOptions
from snaketune.engines.llama_cpp import gguf_model, speed

SMALL = speed.DrawnShape(width=256, inner=512, heads=4, kv_heads=2)


def test_model_that_is_drawn_has_for_llama_cpp_the_weights_that_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "drawn.gguf"
    weights = speed.write_drawn_model(path, SMALL)
    llama = gguf_model.open_gguf(path, LoadOptions(context_length=64, threads=1))
    assert llama_cpp.llama_model_n_params(llama.model) == weights
    (logprobs,) = gguf_model.next_token_logprobs(llama, [[1, 2, 3]], [[0, 2]])
    assert logprobs.shape == (2, speed.VOCABULARY)
    assert logprobs.std() > 0
    llama.close()


def test_each_type_has_the_time_of_reading_of_one_answer_and_of_many(tmp_path: Path) -> None:
    found = speed.seconds_per_weight(["f16", "q8_0"], tmp_path, 1, SMALL)
    assert list(found) == ["f16", "q8_0"]
    assert all(0 < each < 1e-3 for kind in found.values() for each in (kind.read, kind.alone, kind.together))


@pytest.mark.parametrize("kind", ["q8_0", "q4_k_m", "iq4_xs", "iq3_m"])
@pytest.mark.parametrize("imatrix", [False, True])
def test_quantizing_has_a_speed_for_each_type_with_a_matrix_and_without(kind: str, imatrix: bool) -> None:
    assert 1e4 < speed.weights_per_second(kind, imatrix=imatrix) < 1e12
