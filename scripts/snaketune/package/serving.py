"""Whether a GGUF serves: llama-cpp-python's own OpenAI-compatible server, asked one at a time and eight at once."""

from __future__ import annotations

import contextlib
import http.client
import json
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
from typing import Any

from snaketune import files
from snaketune.errors import PackageError, ResourceError
from snaketune.files import StrPath

HOST = "127.0.0.1"
AT_ONCE = 8
SHOWN = 12  # lines of the server's own words in a message


@dataclass(frozen=True)
class Answered:
    """One answer, with seconds to its first piece and to its end."""

    text: str
    first: float
    whole: float
    pieces: int


def check(
    *, gguf: StrPath, predictions: StrPath, rows: StrPath, config: dict[str, Any], served: StrPath, timing: StrPath
) -> None:
    """Serve `gguf`, ask the first prompts of the evaluation again over HTTP, and write what came back.

    predictions: the evaluation's predictions.jsonl of this very file; rows: test.jsonl; config: {"package":
    {"fidelity": {"num_prompts"}, "serve_timeout"}, "evaluate": {"max_new_tokens"}}. `served`: {"file", "passed",
    "says"} and how many answers are those of the evaluation, alone and eight at once; `timing` holds load time,
    first-token and answer latency, tokens a second and memory, apart because it differs from run to run. A
    server that fails does not raise, so that the report can show it: `require` does, on the written record.
    """
    asked = questions(predictions, rows, config["package"]["fidelity"]["num_prompts"])
    try:
        alone, together, measured = _asked(gguf, asked, config)
    except (PackageError, ResourceError) as error:
        files.write_json(served, {"file": Path(gguf).name, "passed": False, "says": str(error)})
        Path(timing).unlink(missing_ok=True)
        return
    expected = [row["answer"].strip() for row in asked]
    same = [sum(a.text.strip() == b for a, b in zip(found, expected, strict=True)) for found in (alone, together)]
    record = {"file": Path(gguf).name, "passed": True, "says": f"it served {2 * len(asked)} answers"}
    files.write_json(served, record | {"prompts": len(asked), "same_alone": same[0], "same_together": same[1]})
    files.write_json(timing, measured)


def _asked(
    gguf: StrPath, asked: Sequence[dict[str, Any]], config: dict[str, Any]
) -> tuple[list[Answered], list[Answered], dict[str, Any]]:
    """The answers one at a time, those eight at once, and the times."""
    limit, patience = config["evaluate"]["max_new_tokens"], config["package"]["serve_timeout"]
    context = 256 * -(-max(_room(row["messages"], limit) for row in asked) // 256)
    with running(gguf, context=context, patience=patience) as (port, load, process):
        began = time.monotonic()
        alone = [ask(port, row["messages"], limit, patience) for row in asked]
        between = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            together = list(pool.map(lambda row: ask(port, row["messages"], limit, patience), asked))
        ended = time.monotonic()
        memory = _memory(process.pid)
    times = {"alone": _times(alone, between - began), "together": _times(together, ended - between)}
    return alone, together, {"load_seconds": load, "memory_bytes": memory} | times


def require(served: StrPath) -> str:
    """The gate: a short text for a file that served; raises PackageError with the server's own words otherwise."""
    record = files.read_json(served)
    if not record["passed"]:
        raise PackageError(f"{record['file']} could not be served: {record['says']}", where=str(served))
    return f"{record['says']}\n"


def questions(predictions: StrPath, rows: StrPath, count: int) -> list[dict[str, Any]]:
    """Up to `count` questions with the answer that the evaluation got from the same file."""
    said = {row["id"]: row.get("answer") for row in files.read_jsonl(predictions)}
    found = []
    for row in files.read_jsonl(rows):
        if said.get(row["id"]) is not None and "messages" in row:
            turns = list(row["messages"])
            while turns and turns[-1]["role"] == "assistant":
                turns.pop()
            found.append({"messages": turns, "answer": said[row["id"]]})
    if not found:
        raise PackageError(
            "there are no answered questions to ask the server", where=str(predictions), fix="Leave the check out"
        )
    return found[:count]


def _room(messages: list[dict[str, Any]], limit: int) -> int:
    """Tokens that surely hold a question and its answer: no token is less than a byte."""
    return sum(len(message["content"].encode()) + 32 for message in messages) + limit


@contextlib.contextmanager
def running(
    gguf: StrPath, *, context: int, patience: float, port: int | None = None
) -> Iterator[tuple[int, float, subprocess.Popen[bytes]]]:
    """A server of `gguf` on the loopback: (its port, seconds until it answered, the process); always stopped.

    Raises ResourceError for a port in use, and PackageError, with the server's last words, if it ends by itself or
    does not answer within `patience` seconds.
    """
    chosen = port or free_port()
    if not _is_free(chosen):
        raise ResourceError(f"port {chosen} is in use", where=HOST, fix="End what listens there, or name no port")
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--host", HOST, "--port", str(chosen)]
    command += ["--n_ctx", str(context), "--interrupt_requests", "false"]
    with tempfile.TemporaryFile() as words:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=words, stderr=words)
        try:
            _wait(process, chosen, began + patience, words, gguf)
            yield chosen, time.monotonic() - began, process
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


def _wait(process: subprocess.Popen[bytes], port: int, until: float, words: Any, gguf: StrPath) -> None:
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(HOST, port, timeout=2)
            connection.request("GET", "/v1/models")
            if connection.getresponse().status == 200:
                return
        ended = process.poll()
        if ended is not None or time.monotonic() > until:
            words.seek(0)
            last = words.read().decode("utf-8", errors="replace").splitlines()[-SHOWN:]
            what = "did not answer in time" if ended is None else f"ended by itself (code {ended})"
            raise PackageError(
                f"the server of this file {what}",
                where=str(gguf),
                why="\n".join(["Its last words were:", *last]) + "\n",
                fix="If it ran out of memory, close other programs; otherwise delete the file and run snakemake again",
            )
        time.sleep(0.1)


def ask(port: int, messages: Sequence[dict[str, Any]], limit: int, patience: float) -> Answered:
    """The likeliest answer, streamed; raises PackageError when the server fails or hangs."""
    body = {"messages": list(messages), "temperature": 0, "top_k": 1, "max_tokens": limit, "stream": True}
    body |= {"repeat_penalty": 1.0}
    began = time.monotonic()
    connection = http.client.HTTPConnection(HOST, port, timeout=patience)
    first, pieces = 0.0, []
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise PackageError(f"the server answers with HTTP {response.status}: {response.read()[:300]!r}")
        for line in response:
            data = line.strip().removeprefix(b"data: ")
            if data.startswith(b"{"):
                piece = json.loads(data)["choices"][0]["delta"].get("content")
                if piece:
                    first = first or time.monotonic() - began
                    pieces.append(piece)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise PackageError(
            f"the server did not answer a question ({type(error).__name__}: {error})",
            why="It crashed, or took longer than its timeout",
            fix="Run the check again with nothing else running",
        ) from error
    finally:
        connection.close()
    return Answered("".join(pieces), first, time.monotonic() - began, len(pieces))


def _times(found: Sequence[Answered], seconds: float) -> dict[str, float]:
    """Medians and the 95th percentile over answers that took `seconds` together; a streamed piece is a token."""
    whole = sorted(one.whole for one in found)
    return {
        "first_token_seconds": statistics.median(one.first for one in found),
        "p50_seconds": statistics.median(whole),
        "p95_seconds": whole[min(len(whole) - 1, int(0.95 * len(whole)))],
        "tokens_per_second": sum(one.pieces for one in found) / max(seconds, 1e-9),
    }


def _memory(pid: int) -> int | None:
    """Resident bytes of a process, where the system tells."""
    try:
        said = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
        return 1024 * int(said.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None
