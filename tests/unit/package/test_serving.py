"""The file serves: over HTTP it gives the evaluation's answers, and a bad day ends in a clear error."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import loopback
import psutil
import pytest
from loopback import Handler
from packaged_models import Chain
from snaketune import files
from snaketune.contracts.package import OllamaCheck, ServingCheck, ServingTiming
from snaketune.engines import load_gguf
from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import GenerationRequest, LoadOptions
from snaketune.errors import PackageError, ResourceError
from snaketune.package import serving
from snaketune.package.serving import OllamaModel, ReplayRequest, ReplaySettings
from snaketune.tokens.chat_template import Renderer

SETTINGS = ReplaySettings(num_prompts=10, max_new_tokens=12, timeout=100)


def predictions(chain: Chain, target: Path) -> Path:
    """What the evaluation writes of the q8_0 file: its greedy answers."""
    renderer = Renderer(chain.folder / "fused")
    rows = list(files.read_jsonl(chain.folder / "test.jsonl"))
    model = load_gguf(chain.gguf("q8_0"), LoadOptions(context_length=256))
    requests = [GenerationRequest(renderer.prompt_ids(row["messages"][:1]), 12) for row in rows]
    completions = model.generate(requests, stop_ids=renderer.stop_ids, sampling=Sampling())
    answers = {number: renderer.decode(new) for number, new, _ in completions}
    files.write_jsonl(target, [{"id": row["id"], "answer": answers[i]} for i, row in enumerate(rows)])
    return target


@pytest.mark.slow
def test_server_gives_the_evaluations_answers_in_sequence_and_eight_at_once(chain: Chain, tmp_path: Path) -> None:
    path = predictions(chain, tmp_path / "predictions.jsonl")
    requests = serving.replay_requests(path, chain.folder / "test.jsonl", SETTINGS.num_prompts)
    serving.check(chain.gguf("q8_0"), requests, SETTINGS, tmp_path / "served.json")
    served = files.read_json(tmp_path / "served.json", ServingCheck)
    timing = files.read_json(tmp_path / "timing.json", ServingTiming)
    assert serving.require_passed(tmp_path / "served.json") == "it answered all 20 requests\n"
    assert served.prompts == 10
    assert served.same_sequential >= 9
    assert served.same_concurrent >= 9
    assert timing.load_seconds > 0
    assert timing.memory_bytes > 1e6
    sequential = timing.sequential
    assert 0 < sequential.first_token_seconds <= sequential.p50_seconds <= sequential.p95_seconds
    assert timing.concurrent.tokens_per_second > 0


@pytest.mark.parametrize(("is_built_for_a_card", "layers"), [(True, "-1"), (False, "0")])
def test_server_computes_where_the_evaluation_does(
    is_built_for_a_card: bool, layers: str, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("llama_cpp.llama_supports_gpu_offload", lambda: is_built_for_a_card)
    with serving.running(chain.gguf("q8_0"), context=256, timeout=100) as (_, _, process):
        options = psutil.Process(process.pid).cmdline()
    assert options[options.index("--n_gpu_layers") + 1] == layers


SERVER_ON_A_FULL_CARD = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if given["--n_gpu_layers"] != "0":
    sys.exit("ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory")
BaseHTTPRequestHandler.do_GET = lambda self: (self.send_response(200), self.end_headers())
HTTPServer((given["--host"], int(given["--port"])), BaseHTTPRequestHandler).serve_forever()
"""


def test_server_that_does_not_fit_the_card_is_started_on_the_cpu_and_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = tmp_path / "llama_cpp" / "server"
    server.mkdir(parents=True)
    for folder in (server.parent, server):
        (folder / "__init__.py").touch()
    (server / "__main__.py").write_text(SERVER_ON_A_FULL_CARD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("llama_cpp.llama_supports_gpu_offload", lambda: True)
    with serving.running("model.gguf", context=256, timeout=60) as (_, _, process):
        options = psutil.Process(process.pid).cmdline()
    assert options[options.index("--n_gpu_layers") + 1] == "0"
    assert "the server of model.gguf did not start on the NVIDIA card" in capsys.readouterr().err


def test_serving_a_damaged_gguf_is_recorded_with_the_servers_last_lines(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and nothing else")
    request = ReplayRequest([{"role": "user", "content": "a"}], "b")
    (tmp_path / "timing.json").write_text("of an earlier run")
    began = time.monotonic()
    serving.check(tmp_path / "bad.gguf", [request], SETTINGS, tmp_path / "served.json")
    assert time.monotonic() - began < 90
    assert not (tmp_path / "timing.json").exists()
    with pytest.raises(PackageError, match=r"bad\.gguf could not be served: .*ended by itself"):
        serving.require_passed(tmp_path / "served.json")


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind((serving.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"port {port} is in use"):
            with serving.running("x.gguf", context=256, timeout=1, port=port):
                pass


def test_hanging_server_is_an_error_within_its_timeout() -> None:
    with socket.socket() as silent:
        silent.bind((serving.HOST, 0))
        silent.listen()
        with pytest.raises(PackageError, match="did not answer a question"):
            serving.ask(silent.getsockname()[1], [{"role": "user", "content": "a"}], 4, timeout=0.3)


def test_register_without_ollama_installed_is_recorded_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    serving.register_ollama(OllamaModel("mine:v1", "Modelfile"), "p", "r", SETTINGS, tmp_path / "ollama.json")
    found = files.read_json(tmp_path / "ollama.json", OllamaCheck)
    assert found.model is None
    assert found.message.startswith("`ollama` is not installed")


class StandIn(Handler):
    """Answers /api/chat as Ollama does, with the letter that the test has put into `says`."""

    says: ClassVar[dict[str, str]] = {}
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.body())
        self.asked.append(body | {"path": self.path})
        content = self.says[body["messages"][-1]["content"]]
        self.answer(200, json.dumps({"message": {"content": content}}).encode())


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server in Ollama's place, and a program `ollama` that writes down how it was called."""
    program = tmp_path / "bin" / "ollama"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" > "$(dirname "$0")/called"\nexit "${OLLAMA_FAILS:-0}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    StandIn.says, StandIn.asked = {"one?": "1", "two?": "not 2"}, []
    with loopback.serving(StandIn) as server:
        yield server.address


def registered(folder: Path, address: str) -> OllamaCheck:
    rows = [{"id": name, "messages": [{"role": "user", "content": f"{name}?"}]} for name in ("one", "two")]
    files.write_jsonl(folder / "rows.jsonl", rows)
    files.write_jsonl(folder / "p.jsonl", [{"id": "one", "answer": "1"}, {"id": "two", "answer": "2"}])
    model = OllamaModel("mine:v1", folder / "Modelfile", address)
    serving.register_ollama(model, folder / "p.jsonl", folder / "rows.jsonl", SETTINGS, folder / "ollama.json")
    return files.read_json(folder / "ollama.json", OllamaCheck)


def test_ollama_gets_the_runs_own_tag_and_its_answers_are_compared(stand_in: str, tmp_path: Path) -> None:
    found = registered(tmp_path, stand_in)
    assert (tmp_path / "bin/called").read_text().split() == ["create", "mine:v1", "-f", str(tmp_path / "Modelfile")]
    assert (found.model, found.same, found.prompts) == ("mine:v1", 1, 2)
    assert StandIn.asked[0]["path"] == "/api/chat"
    assert StandIn.asked[0]["model"] == "mine:v1"
    assert StandIn.asked[0]["options"] | {"temperature": 0, "num_predict": 12} == StandIn.asked[0]["options"]


def test_a_failing_ollama_is_a_sentence(stand_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResourceError, match="Ollama does not answer"):
        registered(tmp_path, "http://127.0.0.1:9")
    monkeypatch.setenv("OLLAMA_FAILS", "1")
    with pytest.raises(PackageError, match="`ollama create mine:v1` failed"):
        registered(tmp_path, stand_in)
