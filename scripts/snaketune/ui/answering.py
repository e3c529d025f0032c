"""Models that answer a person's question, token by token: base, prompted, the file to deploy, and earlier versions.

Each answers as the file will be used: with the sampling of its Modelfile, or always with the likeliest token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from snaketune.config.sections import RunConfig, load
from snaketune.contracts.data import Message, ModelManifest, ReadAs
from snaketune.engines.decoding import Sampling, context_length, truncate_left
from snaketune.engines.interface import GenerationRequest, LanguageModel
from snaketune.errors import EvaluationError, UserError
from snaketune.evaluate.requests import few_shot_messages, with_prefix
from snaketune.evaluate.variants import ModelVariant
from snaketune.files import read_json
from snaketune.model.manifest import read_as
from snaketune.tokens.chat_template import Renderer

BASES = ("base", "prompted")


class ModelName(msgspec.Struct, frozen=True, order=True):
    """A model that can be asked: a variant of a run, such as base, prompted or gguf-q8_0."""

    run: str
    variant: str


@dataclass(frozen=True)
class Answerer:
    """A loaded model with all that turns a question into its prompt."""

    model: LanguageModel
    renderer: Renderer
    config: RunConfig
    context: int
    prefix: list[Message]

    def answer(self, conversation: list[Message], *, greedy: bool, seed: int) -> Iterator[str]:
        """The answer to the last turn as it grows: all of it each time."""
        system: list[Message] = []
        if self.config.data.system:
            system = [{"role": "system", "content": self.config.data.system}]
        messages = with_prefix(self.prefix, [*system, *conversation])
        prompt_ids = self.renderer.prompt_ids(messages)
        prompt = truncate_left(prompt_ids, self.context, self.config.evaluate.max_new_tokens)
        request = GenerationRequest(prompt.prompt_ids, prompt.max_new_tokens, seed)
        drawn: list[int] = []
        for token in self.model.stream(request, stop_ids=self.renderer.stop_ids, sampling=self._sampling(greedy)):
            drawn.append(token)
            yield self.renderer.decode(drawn)

    def _sampling(self, greedy: bool) -> Sampling:
        ollama = self.config.package.ollama
        return Sampling() if greedy else Sampling(ollama.temperature, ollama.top_p, ollama.top_k)


class Answerers:
    """Loads models once; the base and the prompted base share their weights."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._loaded: dict[ModelName, Answerer] = {}

    def get(self, name: ModelName) -> Answerer:
        """A model, loaded if it was not yet."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: ModelName) -> Answerer:
        run = self.results / name.run
        config = load(read_json(run / "config.json"))
        manifest = run / "model" / "base.json"
        chosen = read_as(
            read_json(manifest, ModelManifest),
            ReadAs(chat_template=config.model.chat_template, dtype=config.model.dtype),
        )
        gguf = None if name.variant in BASES else gguf_of(run, name)
        variant = ModelVariant("base" if gguf is None else name.variant, model=manifest, gguf=gguf)
        chosen, context = variant.read_as(chosen), context_length(variant.folder)
        renderer = Renderer(variant.folder, chosen.chat_template, chosen.num_virtual_tokens)
        twin = next((self._loaded.get(ModelName(name.run, one)) for one in BASES if one != name.variant), None)
        if gguf is None and twin is not None:
            model = twin.model
        else:
            model = variant.load(dtype=chosen.dtype, context_length=context, threads=config.threads)
        prefix = _prefix(run, config, renderer, context) if name.variant == "prompted" else []
        return Answerer(model, renderer, config, context, prefix)


def _prefix(run: Path, config: RunConfig, renderer: Renderer, context: int) -> list[Message]:
    few_shot = config.evaluate.few_shot
    return few_shot_messages(few_shot, run / "data" / "train.jsonl", renderer, context, config.seed)


def gguf_of(run: Path, name: ModelName) -> Path:
    """The GGUF file of a variant; EvaluationError where it was not made."""
    path = run / "model" / f"{name.run}-{name.variant.removeprefix('gguf-')}.gguf"
    if not path.is_file():
        raise EvaluationError(
            f"{name.run} has no {name.variant}", where=str(path), fix="Make it: the stage package of that run"
        )
    return path


def known_models(results: Path, run: str) -> list[ModelName]:
    """The models that can be asked beside a run's own, the run's first: its file, its base, other runs' files."""
    found = _of(results, run)
    others = sorted(path.parent.parent.name for path in results.glob("*/model/Modelfile"))
    return found + [one for name in others if name != run for one in _of(results, name) if one.variant not in BASES]


def _of(results: Path, run: str) -> list[ModelName]:
    folder = results / run
    if not (folder / "config.json").is_file() or not (folder / "model" / "base.json").is_file():
        return []
    try:
        kinds = load(read_json(folder / "config.json")).package.gguf
    except UserError:  # a run of another version, whose settings are not these
        return []
    files = [f"gguf-{kind}" for kind in kinds if (folder / "model" / f"{run}-{kind}.gguf").is_file()]
    has_rows = (folder / "data" / "train.jsonl").is_file()
    return [ModelName(run, one) for one in (*files[:1], "base", *(["prompted"] if has_rows else []), *files[1:])]
