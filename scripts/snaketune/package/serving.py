"""Serving the finished model: llama-cpp-python's HTTP server and Ollama repeat the evaluation's requests.

`check` serves a GGUF with llama-cpp-python's OpenAI-compatible server, with requests in sequence and at once;
`register_ollama` creates the model in Ollama under the run's tag.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlparse

from snaketune import files
from snaketune.contracts.data import Message
from snaketune.contracts.package import OllamaCheck, ServingCheck, ServingLatency, ServingTiming
from snaketune.engines import gguf_gpu_layers
from snaketune.errors import PackageError, ResourceError
from snaketune.files import StrPath

HOST = "127.0.0.1"
CONCURRENT = 8
LAST_LINES = 12  # of the server's output in a message
CONTEXT_MULTIPLE = 256  # llama.cpp rounds a context up to it
TEMPLATE_BYTES = 32  # more than a chat template puts around a message
OLLAMA_MISSING = (
    "`ollama` is not installed here, so the model was not created in it; https://ollama.com/download has it.\n"
)


@dataclass(frozen=True)
class ReplaySettings:
    """How many requests of the evaluation are repeated, tokens of an answer, and seconds to wait for one."""

    num_prompts: int
    max_new_tokens: int
    timeout: float


@dataclass(frozen=True)
class ReplayRequest:
    """A conversation that ends with a user's turn, and the answer that the evaluation got."""

    messages: list[Message]
    answer: str

    def max_tokens(self, max_new_tokens: int) -> int:
        """Tokens that surely hold the conversation and its answer: no token is less than a byte."""
        prompt = sum(len(message["content"].encode()) + TEMPLATE_BYTES for message in self.messages)
        return prompt + max_new_tokens


@dataclass(frozen=True)
class TimedResponse:
    """One streamed answer; seconds to its first chunk and to its end."""

    text: str
    time_to_first_token: float
    latency: float
    num_chunks: int


def check(gguf: StrPath, requests: Sequence[ReplayRequest], settings: ReplaySettings, served: StrPath) -> None:
    """Serve `gguf`, repeat requests of the evaluation over HTTP, and write what came back to `served`.

    The times differ from run to run, so they go into a file of their own, timing.json in the same folder. A server that
    fails does not raise, so that the report can show it: `require_passed` does, on the written record.
    """
    timing = Path(served).with_name("timing.json")
    try:
        sequential, concurrent, measured = _replay(gguf, requests, settings)
    except (PackageError, ResourceError) as error:
        files.write_json(served, ServingCheck(file=Path(gguf).name, passed=False, message=str(error)))
        timing.unlink(missing_ok=True)
        return
    record = ServingCheck(
        file=Path(gguf).name,
        passed=True,
        message=f"it answered all {2 * len(requests)} requests",
        prompts=len(requests),
        same_sequential=_num_same(sequential, requests),
        same_concurrent=_num_same(concurrent, requests),
    )
    files.write_json(served, record)
    files.write_json(timing, measured)


def _num_same(responses: Sequence[TimedResponse], requests: Sequence[ReplayRequest]) -> int:
    return sum(a.text.strip() == b.answer.strip() for a, b in zip(responses, requests, strict=True))


def _replay(
    gguf: StrPath, requests: Sequence[ReplayRequest], settings: ReplaySettings
) -> tuple[list[TimedResponse], list[TimedResponse], ServingTiming]:
    """The responses to requests in sequence, those to requests at once, and the times."""
    longest = max(request.max_tokens(settings.max_new_tokens) for request in requests)
    context = CONTEXT_MULTIPLE * -(-longest // CONTEXT_MULTIPLE)

    def respond(request: ReplayRequest) -> TimedResponse:
        return ask(port, request.messages, settings.max_new_tokens, settings.timeout)

    with running(gguf, context=context, timeout=settings.timeout) as (port, load_seconds, process):
        start = time.monotonic()
        sequential = [respond(request) for request in requests]
        middle = time.monotonic()
        with ThreadPoolExecutor(CONCURRENT) as pool:
            concurrent = list(pool.map(respond, requests))
        end = time.monotonic()
        memory = _memory(process.pid)
    timing = ServingTiming(
        load_seconds=load_seconds,
        memory_bytes=memory,
        sequential=_latency(sequential, middle - start),
        concurrent=_latency(concurrent, end - middle),
    )
    return sequential, concurrent, timing


def require_passed(served: StrPath) -> str:
    """The gate: a short text for a file that served; raises PackageError with the server's message otherwise."""
    record = files.read_json(served, ServingCheck)
    if not record.passed:
        raise PackageError(f"{record.file} could not be served: {record.message}", where=str(served))
    return f"{record.message}\n"


def replay_requests(predictions: StrPath, rows: StrPath, count: int) -> list[ReplayRequest]:
    """Up to `count` prompts of test rows with the answer that the evaluation got from the same file.

    predictions: the evaluation's predictions.jsonl of this very file; rows: test.jsonl.
    """
    answers = {row["id"]: row.get("answer") for row in files.read_jsonl(predictions)}
    found = []
    for row in files.read_jsonl(rows):
        if answers.get(row["id"]) is not None and "messages" in row:
            messages = list(row["messages"])
            while messages and messages[-1]["role"] == "assistant":
                messages.pop()
            found.append(ReplayRequest(messages, answers[row["id"]]))
    if not found:
        raise PackageError(
            "there are no answers to compare the server with", where=str(predictions), fix="Leave the check out"
        )
    return found[:count]


@contextlib.contextmanager
def running(
    gguf: StrPath, *, context: int, timeout: float, port: int | None = None
) -> Iterator[tuple[int, float, subprocess.Popen[bytes]]]:
    """A server of `gguf` on the loopback: (its port, seconds until it answered, the process); always stopped.

    Raises ResourceError for a port in use, and PackageError, with the server's last lines, if it ends by itself or
    does not answer within `timeout` seconds.
    """
    chosen = port or free_port()
    if not _is_free(chosen):
        raise ResourceError(f"port {chosen} is in use", where=HOST, fix="End what listens there, or name no port")
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--host", HOST, "--port", str(chosen)]
    command += ["--n_ctx", str(context), "--interrupt_requests", "false", "--n_gpu_layers"]
    # on a card where the evaluation's answers come from one: the server's own default is the CPU
    layers = gguf_gpu_layers()
    until = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        start = time.monotonic()
        try:
            process = stack.enter_context(_answering([*command, str(layers)], chosen, until, gguf))
        except PackageError:
            if not layers:
                raise
            start = time.monotonic()
            process = stack.enter_context(_answering([*command, "0"], chosen, until, gguf))
            print(
                f"snaketune: the server of {Path(gguf).name} did not start on the NVIDIA card, most likely for want "
                "of free memory there, so it computes on the CPU",
                file=sys.stderr,
            )
        yield chosen, time.monotonic() - start, process


@contextlib.contextmanager
def _answering(command: Sequence[str], port: int, until: float, gguf: StrPath) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers on the port; raises PackageError if it ends by itself, or is silent at `until`."""
    with server_process(command) as (process, output):
        _wait(process, port, until, output, gguf)
        yield process


@contextlib.contextmanager
def server_process(command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Start a server, and end it after the block; yields it and the temporary file that has its output."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield process, output
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def _wait(process: subprocess.Popen[bytes], port: int, until: float, output: IO[bytes], gguf: StrPath) -> None:
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(HOST, port, timeout=2)
            connection.request("GET", "/v1/models")
            if connection.getresponse().status == 200:
                return
        ended = process.poll()
        if ended is not None or time.monotonic() > until:
            output.seek(0)
            last = output.read().decode("utf-8", errors="replace").splitlines()[-LAST_LINES:]
            what = "did not answer in time" if ended is None else f"ended by itself (code {ended})"
            raise PackageError(
                f"the server of this file {what}",
                where=str(gguf),
                why="\n".join(["Its last lines were:", *last]) + "\n",
                fix="If it ran out of memory, close other programs; otherwise delete the file and run snakemake again",
            )
        time.sleep(0.1)


def ask(port: int, messages: Sequence[Message], max_tokens: int, timeout: float) -> TimedResponse:
    """The likeliest answer, streamed; raises PackageError when the server fails or hangs."""
    body = {"messages": list(messages), "temperature": 0, "top_k": 1, "max_tokens": max_tokens, "stream": True}
    body |= {"repeat_penalty": 1.0}
    start = time.monotonic()
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    first = 0.0
    chunks: list[str] = []
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise PackageError(f"the server answers with HTTP {response.status}: {response.read()[:300]!r}")
        for line in response:
            data = line.strip().removeprefix(b"data: ")
            if data.startswith(b"{"):
                chunk = json.loads(data)["choices"][0]["delta"].get("content")
                if chunk:
                    first = first or time.monotonic() - start
                    chunks.append(chunk)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise PackageError(
            f"the server did not answer a question ({type(error).__name__}: {error})",
            why="It crashed, or took longer than its timeout",
            fix="Run the check again with nothing else running",
        ) from error
    finally:
        connection.close()
    return TimedResponse("".join(chunks), first, time.monotonic() - start, len(chunks))


def _latency(responses: Sequence[TimedResponse], seconds: float) -> ServingLatency:
    """Medians and the 95th percentile over responses that took `seconds` in all; a streamed chunk is a token."""
    latencies = sorted(response.latency for response in responses)
    return ServingLatency(
        first_token_seconds=statistics.median(response.time_to_first_token for response in responses),
        p50_seconds=statistics.median(latencies),
        p95_seconds=latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))],
        tokens_per_second=sum(response.num_chunks for response in responses) / max(seconds, 1e-9),
    )


def _memory(pid: int) -> int | None:
    """Resident bytes of a process, where the system tells."""
    try:
        output = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
        return 1024 * int(output.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None


@dataclass(frozen=True)
class OllamaModel:
    """The name under which the model is created, its Modelfile, and where Ollama listens."""

    name: str
    modelfile: StrPath
    address: str = "http://127.0.0.1:11434"


def register_ollama(
    model: OllamaModel, predictions: StrPath, rows: StrPath, settings: ReplaySettings, registered: StrPath
) -> None:
    """`ollama create`, then greedy answers through Ollama's API, compared with the evaluation's; writes what was found.

    Where `ollama` is not installed, that is all that is written.
    """
    if shutil.which("ollama") is None:
        files.write_json(registered, OllamaCheck(model=None, message=OLLAMA_MISSING.strip()))
        return
    created = subprocess.run(
        ["ollama", "create", model.name, "-f", str(model.modelfile)], capture_output=True, text=True, check=False
    )
    if created.returncode:
        last_line = (created.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise PackageError(
            f"`ollama create {model.name}` failed: {last_line}",
            where=str(model.modelfile),
            fix="See that Ollama is running (`ollama serve`), and new enough for this model's family",
        )
    requests = replay_requests(predictions, rows, settings.num_prompts)
    answers = [ask_ollama(model, request.messages, settings.max_new_tokens, settings.timeout) for request in requests]
    same = sum(a.strip() == b.answer.strip() for a, b in zip(answers, requests, strict=True))
    record = OllamaCheck(
        model=model.name,
        message=f"{same} of {len(requests)} answers through Ollama are those of the evaluation",
        file=Path(model.modelfile).name,
        prompts=len(requests),
        same=same,
        predictions=files.sha256(predictions),
    )
    files.write_json(registered, record)


def ask_ollama(model: OllamaModel, messages: list[Message], max_tokens: int, timeout: float) -> str:
    """The likeliest answer through /api/chat. Raises ResourceError when nothing answers there."""
    options = {"temperature": 0, "top_k": 1, "num_predict": max_tokens, "repeat_penalty": 1.0}
    body = {"model": model.name, "messages": messages, "stream": False, "options": options}
    url = urlparse(model.address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout)
    try:
        connection.request("POST", "/api/chat", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise PackageError(f"Ollama answers with HTTP {response.status}: {content[:300]!r}", where=model.name)
        return json.loads(content)["message"]["content"]
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise ResourceError(
            f"Ollama does not answer ({type(error).__name__}: {error})",
            where=model.address,
            fix="Start it with `ollama serve` and run snakemake again",
        ) from error
    finally:
        connection.close()
