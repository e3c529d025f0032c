"""The finished model in Ollama: created under the run's tag, and compared with the evaluation's answers."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from snaketune import files
from snaketune.contracts.package import OllamaCheck
from snaketune.errors import PackageError, ResourceError
from snaketune.files import StrPath
from snaketune.package.serving import ReplaySettings, replay_requests

MISSING = "`ollama` is not installed here, so the model was not created in it; https://ollama.com/download has it.\n"


@dataclass(frozen=True)
class OllamaModel:
    """The name under which the model is created, its Modelfile, and where Ollama listens."""

    name: str
    modelfile: StrPath
    address: str = "http://127.0.0.1:11434"


def register(
    model: OllamaModel, predictions: StrPath, rows: StrPath, settings: ReplaySettings, registered: StrPath
) -> None:
    """`ollama create`, then greedy answers through Ollama's API, compared with the evaluation's; writes what was found.

    Where `ollama` is not installed, that is all that is written.
    """
    if shutil.which("ollama") is None:
        files.write_json(registered, OllamaCheck(model=None, message=MISSING.strip()))
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
    answers = [ask(model, request.messages, settings.max_new_tokens, settings.timeout) for request in requests]
    same = sum(a.strip() == b.answer.strip() for a, b in zip(answers, requests, strict=True))
    record = OllamaCheck(
        model=model.name,
        message=f"{same} of {len(requests)} answers through Ollama are those of the evaluation",
        file=Path(model.modelfile).name,
        prompts=len(requests),
        same=same,
    )
    files.write_json(registered, record)


def ask(model: OllamaModel, messages: list[dict[str, Any]], max_tokens: int, timeout: float) -> str:
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
