"""What live servers feed their model, compared with what was trained: real ones, and stand-ins by their protocol."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaged_models import Chain, make_chain
from snaketune import files
from snaketune.contracts.package import ServedPrompts, ServerPrompts
from snaketune.errors import PackageError
from snaketune.package import served_prompts
from snaketune.package.served_prompts import Products
from snaketune.tokens.chat_template import Renderer
from unit.tokens.test_chat_template import renderer

TIMEOUT = 300.0


def fed_by_servers(chain: Chain, folder: Path, products: Products | None = None) -> dict[str, Any]:
    """The record of what each server feeds, by the server's name."""
    own = products or Products(chain.gguf("q8_0"), chain.folder / "fused")
    found = served_prompts.check(own, Renderer(chain.base, chain.template), folder / "prompts.json", timeout=TIMEOUT)
    return {one.server: one for one in found.servers}


def test_real_servers_feed_the_model_what_was_trained(chain: Chain, tmp_path: Path) -> None:
    found = fed_by_servers(chain, tmp_path)
    assert {"llama-cpp-python", "mlx_lm.server"} <= found.keys()
    assert {name: (one.prompts, one.differences, one.problem) for name, one in found.items()} == dict.fromkeys(
        found, (12, 0, None)
    )
    assert "prompts are as trained: llama-cpp-python, mlx_lm.server" in served_prompts.require_same(
        tmp_path / "prompts.json"
    )


def test_a_server_that_renders_otherwise_is_named_with_what_it_renders(chain: Chain, tmp_path: Path) -> None:
    """The template in the folder is not the one that was trained with."""
    import shutil

    folder = tmp_path / "changed"
    shutil.copytree(chain.folder / "fused", folder)
    config = files.read_json(folder / "tokenizer_config.json")
    config["chat_template"] = "{% for message in messages %}Q: {{ message.content }}\n{% endfor %}"
    files.write_json(folder / "tokenizer_config.json", config)
    found = fed_by_servers(chain, tmp_path, Products(chain.gguf("q8_0"), folder))
    assert found["llama-cpp-python"].differences == 0
    assert found["mlx_lm.server"].differences == 12
    assert found["mlx_lm.server"].examples[0].found.startswith("Q: ")
    with pytest.raises(PackageError, match=r"mlx_lm\.server: 12 of 12 prompts"):
        served_prompts.require_same(tmp_path / "prompts.json")


TOOL_TEMPLATES = {"qwen25-tools": "qwen2", "llama31-tools": "llama-bpe", "mistral-tools": "mistral"}


@pytest.mark.slow
@pytest.mark.parametrize("template", TOOL_TEMPLATES)
def test_real_servers_feed_calls_of_tools_as_trained_but_for_llama_cpp_pythons_arguments(
    template: str, tmp_path: Path
) -> None:
    chain = make_chain(tmp_path / "chain", TOOL_TEMPLATES[template], template=template)
    found = fed_by_servers(chain, tmp_path)
    counts = {
        name: (one.conversations, one.calls, one.different_conversations, one.problem) for name, one in found.items()
    }
    assert counts == dict.fromkeys(found, (12, 2, 0, None))
    assert found["mlx_lm.server"].different_calls == 0
    assert found["llama-cpp-python"].different_calls == 1
    (example,) = found["llama-cpp-python"].examples
    assert '": "{\\"place\\"' in example.found
    assert '": {"place"' in example.expected
    passed = served_prompts.require_same(tmp_path / "prompts.json")
    assert passed == "prompts are as trained: llama-cpp-python (but for calls of tools), mlx_lm.server\n"


def record(folder: Path, *different_calls: int) -> Path:
    """The record of servers that feed twelve conversations as trained, and so many of two calls otherwise."""
    servers = [
        ServerPrompts(
            server=f"server {number}",
            prompts=14,
            differences=different,
            problem=None,
            examples=[],
            calls=2,
            different_calls=different,
        )
        for number, different in enumerate(different_calls)
    ]
    files.write_json(folder / "prompts.json", ServedPrompts(servers=servers))
    return folder / "prompts.json"


def test_calls_that_no_server_feeds_as_trained_stop_the_run(tmp_path: Path) -> None:
    assert "server 0 (but for calls of tools), server 1\n" in served_prompts.require_same(record(tmp_path, 1, 0))
    with pytest.raises(PackageError, match="server 0: 1 of 14 prompts; server 1: 2 of 14 prompts"):
        served_prompts.require_same(record(tmp_path, 1, 2))


def with_tools(folder: Path) -> Renderer:
    return renderer(folder, "qwen2", "qwen25-tools")


def test_calls_of_tools_are_asked_where_the_template_states_them(tmp_path: Path) -> None:
    prompts = served_prompts.conversations(with_tools(tmp_path))
    assert len(prompts) == 14
    call = prompts[-1].body()["messages"][1]["tool_calls"][0]["function"]
    assert json.loads(call["arguments"]) == {"place": "Tromsø", "days": [1, 2]}
    assert isinstance(prompts[-1].messages[1]["tool_calls"][0]["function"]["arguments"], dict)


class Handler(BaseHTTPRequestHandler):
    """Renders as llama-server and Ollama do, by the endpoints that they have for it."""

    renderer: Renderer
    changes: bool = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(self.reply(body))

    def do_GET(self) -> None:
        self.answer({})

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.path == "/tokenize":
            ids = self.renderer.tokenizer(body["content"], add_special_tokens=False)["input_ids"]
            return {"tokens": self.renderer.encode_prompt(body["content"]) if body["add_special"] else ids}
        for message in body["messages"]:
            for call in message.get("tool_calls", []):
                if isinstance(call["function"]["arguments"], str):
                    call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        text = self.renderer.rendered_prompt(body["messages"], body.get("tools")) + (" " if self.changes else "")
        if self.path == "/apply-template":
            return {"prompt": text}
        assert body["_debug_render_only"] is True
        return {"model": body["model"], "_debug_info": {"rendered_template": text}}

    def answer(self, content: dict[str, Any]) -> None:
        encoded = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def stand_in(tmp_path: Path) -> Any:
    """A function that starts a server which renders as a model with tools does; its address and the rendering."""
    started = []

    def start(*, changes: bool) -> tuple[str, Renderer]:
        made = with_tools(tmp_path)
        handler = type("Own", (Handler,), {"renderer": made, "changes": changes})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}", made

    yield start
    for server in started:
        server.shutdown()


@pytest.mark.parametrize("changes", [False, True])
def test_ollama_is_compared_by_what_it_says_it_renders(changes: bool, stand_in: Any) -> None:
    address, made = stand_in(changes=changes)
    prompts = served_prompts.conversations(made)

    def feed(found: Any) -> list[served_prompts.Fed]:
        return [served_prompts.ollama(address, "mine:v1", one, TIMEOUT) for one in found]

    record = served_prompts.compared("Ollama", feed, prompts, made)
    assert (record.prompts, record.differences) == (14, 14 if changes else 0)


def test_llama_server_is_started_and_compared_by_its_endpoints(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in its place, which takes its options and answers at /health, /apply-template and /tokenize."""
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    lines = [
        f"#!{sys.executable}",
        f"import sys; sys.path[:0] = {[str(Path(__file__).parents[3] / 'scripts'), *sys.path]!r}",
        "from http.server import ThreadingHTTPServer",
        "from unit.package.test_served_prompts import Handler, Renderer",
        f"Handler.renderer = Renderer({str(chain.base)!r})",
        "port = int(sys.argv[sys.argv.index('--port') + 1])",
        "assert '--jinja' in sys.argv",
        "ThreadingHTTPServer(('127.0.0.1', port), Handler).serve_forever()",
    ]
    program.write_text("\n".join(lines))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    made = Renderer(chain.base)
    prompts = served_prompts.conversations(made)
    fed = served_prompts.llama_server(str(program), chain.gguf("q8_0"), prompts, TIMEOUT)
    assert fed == [made.prompt_ids(one.messages, one.tools) for one in prompts]


def test_a_server_that_does_not_come_up_is_a_problem_and_no_difference(chain: Chain) -> None:
    def broken(_prompts: object) -> list[served_prompts.Fed]:
        with served_prompts.serving_process([sys.executable, "absent.py"], 1, "/", 5):
            raise AssertionError

    found = served_prompts.compared("mlx_lm.server", broken, [], Renderer(chain.base))
    assert found.differences == 0
    assert "absent.py did not come up" in (found.problem or "")
