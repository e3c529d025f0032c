"""Whether a live server feeds its model the text that was trained: the ids of conversations and calls of tools.

A server renders with code of its own: llama-server's engine for Jinja, Ollama's Go templates, what mlx_lm.server
does to contents and calls before its template sees them. So each server that is here is started on the product, asked
twelve conversations and the calls of tools, and what reaches its model is compared with the training's rendering.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import msgspec

from snaketune import files
from snaketune.contracts.data import Message
from snaketune.contracts.package import OllamaCheck, PromptDifference, ServedPrompts, ServerPrompts
from snaketune.errors import PackageError
from snaketune.files import StrPath
from snaketune.package.modelfile import probe_conversations
from snaketune.package.serving import HOST, free_port, server_process
from snaketune.tokens.chat_template import Renderer

PROGRAMS = Path(files.__file__).with_name("engines")
OLLAMA = "http://127.0.0.1:11434"
MAX_EXAMPLES = 3
POLL = 0.2  # seconds
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather_at",
        "description": "Says what the weather is.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
CALL = {"name": "weather_at", "arguments": {"place": "Tromsø", "days": [1, 2]}}


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends with a user's turn or a tool's, and the tools that it may call."""

    messages: list[Message]
    tools: list[Any] | None = None

    def body(self) -> dict[str, object]:
        """As OpenAI's protocol has it: the arguments of a call are a text of JSON."""
        turns: list[Message] = [{**message} for message in self.messages]
        for turn in turns:
            if "tool_calls" in turn:
                turn["tool_calls"] = [_as_text(call) for call in turn["tool_calls"]]
        return {"messages": turns} | ({"tools": self.tools} if self.tools else {})


def _as_text(call: Any) -> Any:
    function = call["function"] | {"arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}
    return call | {"function": function}


def conversations(renderer: Renderer) -> list[Prompt]:
    """The twelve conversations, and those with tools where the template states them."""
    prompts = [Prompt(list(messages)) for messages in probe_conversations()]
    if renderer.template and "tool" in renderer.template:
        question: Message = {"role": "user", "content": "Does it rain in Tromsø?"}
        called: Message = {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "id": "call00001", "function": CALL}],
        }
        answer: Message = {"role": "tool", "content": '{"rain": true}', "tool_call_id": "call00001"}
        prompts += [Prompt([question], [WEATHER]), Prompt([question, called, answer], [WEATHER])]
    return prompts


Fed = list[int] | str
"""What reached a model: ids, or from a server that tells no ids its text."""
Feed = Callable[[Sequence[Prompt]], list[Fed]]


@dataclass(frozen=True)
class Products:
    """What is served: a GGUF, and a folder for MLX."""

    gguf: StrPath
    folder: StrPath


def check(products: Products, renderer: Renderer, target: StrPath, *, timeout: float) -> ServedPrompts:
    """Ask every server that is here, and write what was found; a difference does not raise, so that it can be shown.

    renderer: gives the expected ids.
    """
    found = ServedPrompts(servers=[])
    if renderer.template:
        prompts = conversations(renderer)
        servers = dict(_servers(products, timeout))
        found = ServedPrompts(servers=[compared(name, feed, prompts, renderer) for name, feed in servers.items()])
    files.write_json(target, found)
    return found


def compare_ollama(registered: StrPath, renderer: Renderer, timeout: float) -> None:
    """Add to the record of a model that was created in Ollama what Ollama feeds it."""
    record = files.read_json(registered, OllamaCheck)
    name = record.model
    if name is None or not renderer.template:
        return

    def feed(prompts: Sequence[Prompt]) -> list[Fed]:
        return [ollama(OLLAMA, name, one, timeout) for one in prompts]

    fed = compared("Ollama", feed, conversations(renderer), renderer)
    files.write_json(registered, msgspec.structs.replace(record, fed=fed))


def folder_of(manifest: StrPath) -> str:
    """The folder that a manifest of the fused model or of a folder for MLX is about."""
    folder: str = files.read_json(manifest)["folder"]
    return folder


def require_same(prompts: StrPath) -> str:
    """The gate: a short text where every server feeds what was trained; PackageError with the servers that do not.

    Calls of tools that one server feeds as trained are right in the product: a server that changes them is at fault
    itself, which the report says.
    """
    record = files.read_json(prompts, ServedPrompts)
    calls_are_right = bool(record.with_calls_as_trained())
    wrong = [
        server
        for server in record.servers
        if server.problem or (server.different_conversations if calls_are_right else server.differences)
    ]
    if wrong:
        text = "; ".join(
            f"{one.server}: {one.problem or f'{one.differences} of {one.prompts} prompts'}" for one in wrong
        )
        raise PackageError(
            f"what a server feeds the model is not what was trained: {text}",
            where=str(prompts),
            why="The model then reads texts that it has never seen the like of",
            fix="docs/deployment.md says what each server does of its own; serve with another one",
        )
    but = {one.server: " (but for calls of tools)" for one in record.with_other_calls()}
    names = ", ".join(f"{one.server}{but.get(one.server, '')}" for one in record.servers) or "no server is here"
    return f"prompts are as trained: {names}\n"


def compared(name: str, feed: Feed, prompts: Sequence[Prompt], renderer: Renderer) -> ServerPrompts:
    """What one server feeds its model, compared with training's rendering."""
    try:
        fed = feed(prompts)
    except (PackageError, OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return ServerPrompts(server=name, prompts=len(prompts), differences=0, problem=str(error), examples=[])
    wrong = [pair for pair in zip(prompts, fed, strict=True) if not _same(renderer, *pair)]
    examples = [PromptDifference(expected=_shown(renderer, one), found=_text(renderer, found)) for one, found in wrong]
    return ServerPrompts(
        server=name,
        prompts=len(prompts),
        differences=len(wrong),
        problem=None,
        examples=examples[:MAX_EXAMPLES],
        calls=sum(bool(one.tools) for one in prompts),
        different_calls=sum(bool(one.tools) for one, _ in wrong),
    )


def _same(renderer: Renderer, prompt: Prompt, found: Fed) -> bool:
    if isinstance(found, str):  # a begin token is put before it when it is tokenized
        begin = renderer.tokenizer.bos_token or ""
        return found.removeprefix(begin) == _shown(renderer, prompt).removeprefix(begin)
    return found == renderer.prompt_ids(prompt.messages, prompt.tools)


def _shown(renderer: Renderer, prompt: Prompt) -> str:
    return renderer.rendered_prompt(prompt.messages, prompt.tools)


def _text(renderer: Renderer, found: Fed) -> str:
    return found if isinstance(found, str) else str(renderer.tokenizer.decode(found))


def _servers(products: Products, timeout: float) -> Iterator[tuple[str, Feed]]:
    """The servers that are here, each with what asks it."""
    context = ["--n_ctx", "2048", "--interrupt_requests", "false"]
    llama = ["--model", str(products.gguf), "--host", HOST, *context]
    python = PROGRAMS / "llama_cpp/recording_server.py"
    yield "llama-cpp-python", lambda prompts: _recorded(python, llama, prompts, timeout)
    if _has_mlx():
        mlx = ["--model", str(products.folder), "--host", HOST]
        yield "mlx_lm.server", lambda prompts: _recorded(PROGRAMS / "mlx/recording_server.py", mlx, prompts, timeout)
    program = shutil.which("llama-server")
    if program:
        yield "llama-server", lambda prompts: llama_server(program, products.gguf, prompts, timeout)


def _has_mlx() -> bool:
    from importlib.util import find_spec

    return find_spec("mlx_lm") is not None


def _recorded(program: Path, options: list[str], prompts: Sequence[Prompt], timeout: float) -> list[Fed]:
    """What a server of Python's feeds its model, written down by a program that runs it."""
    with tempfile.TemporaryDirectory() as scratch:
        record, port = Path(scratch, "prompts.jsonl"), free_port()
        command = [sys.executable, str(program), str(record), *options, "--port", str(port)]
        found: list[Fed] = []
        with serving_process(command, port, "/v1/models", timeout):
            for one in prompts:
                body = one.body() | {"max_tokens": 1, "temperature": 0}
                post(f"http://{HOST}:{port}", "/v1/chat/completions", body, timeout)
                lines = record.read_text(encoding="utf-8").splitlines()
                found.append(json.loads(lines[-1]) if len(lines) > len(found) else [])
        return found


def llama_server(program: str, gguf: StrPath, prompts: Sequence[Prompt], timeout: float) -> list[Fed]:
    """What llama.cpp's own server makes of conversations, by its endpoints that render and tokenize."""
    port = free_port()
    command = [program, "--model", str(gguf), "--host", HOST, "--port", str(port), "--jinja", "--ctx-size", "2048"]
    with serving_process(command, port, "/health", timeout):
        return [_rendered_by_llama_server(f"http://{HOST}:{port}", one, timeout) for one in prompts]


def _rendered_by_llama_server(address: str, prompt: Prompt, timeout: float) -> Fed:
    text = post(address, "/apply-template", prompt.body(), timeout)["prompt"]
    body = {"content": text, "add_special": True, "parse_special": True}
    return [int(token) for token in post(address, "/tokenize", body, timeout)["tokens"]]


def ollama(address: str, name: str, prompt: Prompt, timeout: float) -> Fed:
    """The text that Ollama renders, which it tells instead of answering where it is asked to."""
    turns = [{**message} for message in prompt.messages]  # its arguments are objects, not texts
    body = {"model": name, "messages": turns, "stream": False, "_debug_render_only": True, "truncate": False}
    found = post(address, "/api/chat", body | ({"tools": prompt.tools} if prompt.tools else {}), timeout)
    return str(found["_debug_info"]["rendered_template"])


@contextlib.contextmanager
def serving_process(command: list[str], port: int, ready: str, timeout: float) -> Iterator[None]:
    """Run a server until the end of the block; PackageError where it does not answer at `ready` within the timeout."""
    with server_process(command) as (process, output):
        until = time.monotonic() + timeout
        while not _answers(port, ready):
            if process.poll() is not None or time.monotonic() > until:
                output.seek(0)
                last = output.read().decode("utf-8", errors="replace").splitlines()[-3:]
                raise PackageError(f"{Path(command[1]).name} did not come up: {' / '.join(last)}")
            time.sleep(POLL)
        yield


def _answers(port: int, path: str) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection(HOST, port, timeout=2)
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False


def post(address: str, path: str, body: Mapping[str, object], timeout: float) -> Any:
    """The JSON that a server answers a request with; PackageError for another status than 200."""
    url = urlparse(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise PackageError(f"{path} answers with HTTP {response.status}: {content[:200]!r}")
    return json.loads(content)
