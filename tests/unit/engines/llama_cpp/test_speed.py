"""The speeds of llama.cpp on this machine, by which forecasts are made."""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import pytest
from snaketune.engines.interface import LoadOptions
from snaketune.engines.llama_cpp import gguf_model, speed


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is drawn in no time; its speed says nothing."""
    for name, value in {"WIDTH": 256, "INNER": 512, "HEADS": 4, "KV_HEADS": 2, "READ": 32, "DRAWN": 1 << 12}.items():
        monkeypatch.setattr(speed, name, value)
    sizes = {"llama.embedding_length": 256, "llama.feed_forward_length": 512, "llama.attention.head_count": 4}
    monkeypatch.setattr(speed, "_SETTINGS", speed._SETTINGS | sizes | {"llama.attention.head_count_kv": 2})


def test_model_that_is_drawn_has_for_llama_cpp_the_weights_that_are_counted(tmp_path: Path, small: None) -> None:
    path = tmp_path / "drawn.gguf"
    weights = speed.write_drawn_model(path)
    llama = gguf_model.open_gguf(path, LoadOptions(context_length=64, threads=1))
    assert llama_cpp.llama_model_n_params(llama.model) == weights
    (logprobs,) = gguf_model.next_token_logprobs(llama, [[1, 2, 3]], [[0, 2]])
    assert logprobs.shape == (2, speed.VOCABULARY)
    assert logprobs.std() > 0
    llama.close()


def test_each_type_has_the_time_of_reading_of_one_answer_and_of_many(tmp_path: Path, small: None) -> None:
    found = speed.seconds_per_weight(["f16", "q8_0"], tmp_path, 1)
    assert list(found) == ["f16", "q8_0"]
    assert all(0 < each < 1e-3 for kind in found.values() for each in (kind.read, kind.alone, kind.together))


def test_importance_matrix_makes_quantizing_slower_where_llama_cpp_then_searches_by_it() -> None:
    plain, calibrated = (max(speed.weights_per_second("q4_0", imatrix=each) for _ in range(3)) for each in (False, True))
    assert plain > 3 * calibrated  # twenty times, were the machine quiet
