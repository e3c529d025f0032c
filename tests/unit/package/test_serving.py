"""The file serves: over HTTP it gives the evaluation's answers, and a bad day ends in a clear error."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from chains import Chain
from snaketune import files
from snaketune.errors import PackageError, ResourceError
from snaketune.llama_engine import generation, loading
from snaketune.model.rendering import Renderer
from snaketune.package import forms, ollama, serving

CONFIG = {
    "run": "v1",
    "package": {"name": "mine", "fidelity": {"prompts": 10}, "serve_timeout": 60},
    "evaluate": {"max_new_tokens": 12},
}


def predictions(chain: Chain, target: Path) -> Path:
    """What the evaluation writes of the q8_0 file: its greedy answers."""
    renderer = Renderer(chain.folder / "fused")
    rows = list(files.read_jsonl(chain.folder / "test.jsonl"))
    llama = loading.open_gguf(chain.gguf("q8_0"), context=256, threads=1)
    prompts = [renderer.prompt(row["messages"][:1]) for row in rows]
    count = len(prompts)
    said = generation.answers(llama, prompts, [12] * count, renderer.stop_ids, forms.GREEDY, [0] * count)
    answers = {number: renderer.decode(new) for number, new, _ in said}
    files.write_jsonl(target, [{"id": row["id"], "answer": answers[i]} for i, row in enumerate(rows)])
    return target


@pytest.mark.slow
def test_the_server_gives_the_evaluations_answers_alone_and_eight_at_once(chain: Chain, tmp_path: Path) -> None:
    serving.check(
        gguf=chain.gguf("q8_0"),
        predictions=predictions(chain, tmp_path / "predictions.jsonl"),
        rows=chain.folder / "test.jsonl",
        config=CONFIG,
        served=tmp_path / "served.json",
        timing=tmp_path / "timing.json",
    )
    served, timing = files.read_json(tmp_path / "served.json"), files.read_json(tmp_path / "timing.json")
    assert served["prompts"] == 10
    assert served["same_alone"] >= 9
    assert served["same_together"] >= 9
    assert timing["load_seconds"] > 0
    assert timing["memory_bytes"] > 1e6
    assert (
        0 < timing["alone"]["first_piece_seconds"] <= timing["alone"]["p50_seconds"] <= timing["alone"]["p95_seconds"]
    )


def test_a_file_that_cannot_be_loaded_ends_with_the_servers_words(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and nothing else")
    began = time.monotonic()
    with pytest.raises(PackageError, match="ended by itself"):
        with serving.running(tmp_path / "bad.gguf", context=256, patience=100):
            pass
    assert time.monotonic() - began < 90


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind((serving.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"port {port} is in use"):
            with serving.running("x.gguf", context=256, patience=1, port=port):
                pass


def test_a_server_that_hangs_is_an_error_within_its_timeout() -> None:
    with socket.socket() as silent:
        silent.bind((serving.HOST, 0))
        silent.listen()
        with pytest.raises(PackageError, match="did not answer a question"):
            serving.ask(silent.getsockname()[1], [{"role": "user", "content": "a"}], 4, patience=0.3)


def test_without_ollama_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ollama.register(
        modelfile="Modelfile", predictions="p", rows="r", config=CONFIG, registered=tmp_path / "ollama.json"
    )
    found = files.read_json(tmp_path / "ollama.json")
    assert found["model"] is None
    assert found["says"].startswith("`ollama` is not installed")
