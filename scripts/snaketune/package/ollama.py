"""The finished model in Ollama itself: created there under the run's tag, and asked the evaluation's questions."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from snaketune import files
from snaketune.errors import PackageError, ResourceError
from snaketune.files import StrPath
from snaketune.package.serving import questions

MISSING = "`ollama` is not installed here, so the model was not created in it; https://ollama.com/download has it.\n"


def register(
    *,
    modelfile: StrPath,
    predictions: StrPath,
    rows: StrPath,
    config: dict[str, Any],
    registered: StrPath,
    address: str = "http://127.0.0.1:11434",
) -> None:
    """`ollama create`, then greedy answers through Ollama's API beside the evaluation's; writes what was found.

    config: {"run", "package": {"name", "fidelity": {"num_prompts"}, "serve_timeout"}, "evaluate": {"max_new_tokens"}}.
    Where there is no `ollama`, that is all that is written, in one sentence.
    """
    if shutil.which("ollama") is None:
        files.write_json(registered, {"model": None, "says": MISSING.strip()})
        return
    model = f"{config['package']['name']}:{config['run']}"
    made = subprocess.run(
        ["ollama", "create", model, "-f", str(modelfile)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise PackageError(
            f"`ollama create {model}` failed: {(made.stderr.strip().splitlines() or ['it said nothing'])[-1]}",
            where=str(modelfile),
            fix="See that Ollama is running (`ollama serve`), and new enough for this model's family",
        )
    asked = questions(predictions, rows, config["package"]["fidelity"]["num_prompts"])
    limit, patience = config["evaluate"]["max_new_tokens"], config["package"]["serve_timeout"]
    said = [ask(address, model, row["messages"], limit, patience) for row in asked]
    same = sum(a.strip() == row["answer"].strip() for a, row in zip(said, asked, strict=True))
    files.write_json(
        registered,
        {
            "model": model,
            "file": Path(modelfile).name,
            "prompts": len(asked),
            "same": same,
            "says": f"{same} of {len(asked)} answers through Ollama are those of the evaluation",
        },
    )


def ask(address: str, model: str, messages: list[dict[str, Any]], limit: int, patience: float) -> str:
    """The likeliest answer through /api/chat. Raises ResourceError when nothing answers there."""
    options = {"temperature": 0, "top_k": 1, "num_predict": limit, "repeat_penalty": 1.0}
    body = {"model": model, "messages": messages, "stream": False, "options": options}
    place = urlparse(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=patience)
    try:
        connection.request("POST", "/api/chat", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise PackageError(f"Ollama answers with HTTP {response.status}: {content[:300]!r}", where=model)
        return json.loads(content)["message"]["content"]
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise ResourceError(
            f"Ollama does not answer ({type(error).__name__}: {error})",
            where=address,
            fix="Start it with `ollama serve` and run snakemake again",
        ) from error
    finally:
        connection.close()
