"""A GGUF on a machine with an NVIDIA card that has no room for it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from llama_cpp import Llama
from snaketune.engines.interface import LoadOptions
from snaketune.engines.llama_cpp import gguf_model, speed
from snaketune.errors import PackageError

OPTIONS = LoadOptions(context_length=64)
SMALL = speed.DrawnShape(width=256, inner=512, heads=4, kv_heads=2)


class OnAFullCard(Llama):
    """llama.cpp where the card has no room for a single layer; `attempts` has the layers that were wanted of it."""

    attempts: ClassVar[list[int]] = []

    def __init__(self, *given: Any, n_gpu_layers: int, **more: Any) -> None:
        self.attempts.append(n_gpu_layers)
        if n_gpu_layers:
            self._stack = contextlib.ExitStack()  # which closing it asks for
            raise ValueError("Failed to load model from file")
        super().__init__(*given, n_gpu_layers=n_gpu_layers, **more)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layers that were wanted of the full card, in the order of the attempts."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("llama_cpp.llama_supports_gpu_offload", lambda: True)
    monkeypatch.setattr(gguf_model, "Llama", OnAFullCard)
    monkeypatch.setattr(OnAFullCard, "attempts", [])
    return OnAFullCard.attempts


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "drawn.gguf"
    speed.write_drawn_model(path, SMALL)
    return path


def test_gguf_that_does_not_fit_the_card_is_computed_on_the_cpu_and_a_warning_says_so(
    gguf: Path, attempts: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    llama = gguf_model.open_gguf(gguf, OPTIONS)
    assert attempts == [-1, 0]
    assert "drawn.gguf could not be loaded onto the NVIDIA card" in capfd.readouterr().err
    (found,) = gguf_model.next_token_logprobs(llama, [[1, 2, 3]], [[0, 2]])
    (exact,) = gguf_model.next_token_logprobs(Llama(str(gguf), n_ctx=64, verbose=False), [[1, 2, 3]], [[0, 2]])
    np.testing.assert_allclose(found, exact, atol=1e-3)


def test_what_must_be_exact_asks_nothing_of_a_card(
    gguf: Path, attempts: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    gguf_model.open_gguf(gguf, LoadOptions(context_length=64, exact=True))
    assert attempts == [0]
    assert "card" not in capfd.readouterr().err


def test_broken_gguf_is_called_broken_on_a_machine_with_a_card_too(
    tmp_path: Path, attempts: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(PackageError, match="cannot load this file"):
        gguf_model.open_gguf(tmp_path / "bad.gguf", OPTIONS)
    assert attempts == [-1, 0]
    assert "card" not in capfd.readouterr().err
