"""Base and tuned model side by side at a prompt: `python -m snaketune.evaluate.chat results/RUN`.

Each question stands by itself, rendered and generated as in the run's evaluation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from snaketune.contracts.data import ModelManifest, ReadAs
from snaketune.engines.decoding import Sampling, context_length, truncate_left
from snaketune.engines.interface import GenerationRequest, LanguageModel
from snaketune.errors import EvaluationError, UserError
from snaketune.evaluate.variants import ModelVariant
from snaketune.files import read_json
from snaketune.model.manifest import read_as
from snaketune.runtime.step import block_torch
from snaketune.tokens.chat_template import Renderer

WELCOME = "{} and {}. Ask; an empty line ends.\n"


def main(run: str) -> None:
    """Answer questions from the terminal until an empty line."""
    config = _config(Path(run))
    ask, names = asker(Path(run), config)
    print(WELCOME.format(*names))
    for question in _questions():
        for name, answer in zip(names, ask(question), strict=True):
            print(f"{name}:\n  {answer.strip()}\n")


def asker(run: Path, config: dict[str, Any]) -> tuple[Callable[[str], list[str]], list[str]]:
    """A function from a question to the answers of the base and the recommended file, and the names of these two."""
    model = run / "model" / "base.json"
    kind = config["package"]["gguf"][0]
    gguf = run / "model" / f"{config['run']}-{kind}.gguf"
    for path in (model, gguf):
        if not path.is_file():
            raise EvaluationError(
                f"{path} is missing",
                where=str(run),
                why="This run has no file to try yet",
                fix="Run `snakemake package --configfile ...` with its configuration first",
            )
    configured = ReadAs(chat_template=config["model"]["chat_template"], dtype=config["model"]["dtype"])
    chosen = read_as(read_json(model, ModelManifest), configured)
    both = [ModelVariant("base", model=model), ModelVariant(f"gguf-{kind}", model=model, gguf=gguf)]
    base = both[0].folder
    rendered_as = [one.read_as(chosen) for one in both]
    renderers = [Renderer(base, one.chat_template, one.num_virtual_tokens) for one in rendered_as]
    context = context_length(base)
    models = [one.load(dtype=chosen.dtype, context_length=context, threads=os.cpu_count() or 1) for one in both]
    sampling = Sampling(**config["evaluate"]["generation"])
    system = [{"role": "system", "content": config["data"]["system"]}] if config["data"]["system"] else []

    def answer(model: LanguageModel, renderer: Renderer, question: str) -> str:
        prompt_ids = renderer.prompt_ids([*system, {"role": "user", "content": question}])
        prompt = truncate_left(prompt_ids, context, config["evaluate"]["max_new_tokens"])
        request = GenerationRequest(prompt.prompt_ids, prompt.max_new_tokens, config["seed"])
        (found,) = model.generate([request], stop_ids=renderer.stop_ids, sampling=sampling)
        return renderer.decode(found.ids)

    def ask(question: str) -> list[str]:
        return [answer(model, renderer, question) for model, renderer in zip(models, renderers, strict=True)]

    return ask, [one.name for one in both]


def _config(run: Path) -> dict[str, Any]:
    if not (run / "config.json").is_file():
        raise EvaluationError(
            f"there is no run at {run}", fix="Name one: make chat RUN=name, for results/name", where="make chat"
        )
    return read_json(run / "config.json")


def _questions() -> Iterable[str]:
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            return
        if not question:
            return
        yield question


if __name__ == "__main__":
    block_torch()
    try:
        main(sys.argv[1])
    except UserError as error:
        raise SystemExit(f"snaketune: {error}") from None
