"""A model's answers to the rows, and how probable it finds theirs: one line a row in predictions.jsonl."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from snaketune.config.schema import canonical
from snaketune.engines.context_window import context_length, sliding_windows, truncate_left
from snaketune.engines.interface import GenerationRequest, LanguageModel, LoglikelihoodRequest
from snaketune.engines.sampling import Sampling, row_seed
from snaketune.errors import EvaluationError
from snaketune.evaluate import general_set
from snaketune.evaluate.requests import Item, Messages, chosen, examples, items, question
from snaketune.evaluate.resume_log import Journal
from snaketune.evaluate.variants import ModelVariant
from snaketune.files import StrPath, read_json, read_jsonl, write_jsonl
from snaketune.model.manifest import read_as
from snaketune.runtime import locks
from snaketune.runtime.progress import progress
from snaketune.tokens.chat_template import Renderer

Named = dict[str, Item]
LEAD_SHARE = 2  # the prompted base's lead may fill one in this many tokens of the context


def run(
    artefact: ModelVariant,
    *,
    rows: StrPath,
    config: dict[str, Any],
    predictions: StrPath,
    general_rows: StrPath | None = None,
    general: StrPath | None = None,
    prompts: StrPath | None = None,
    train: StrPath | None = None,
    threads: int = 1,
) -> None:
    """Answer and score at most `evaluate.max_rows` of the test rows, in one load of the artefact.

    Also those of the general set into `general` and `evaluate.prompts` into `prompts`, where these are given. config:
    what `settings.answering` gives. train: the prompted base's examples.
    What is done lies in unfinished.jsonl beside the predictions until all is.
    """
    settings, seed = config["evaluate"], config["seed"]
    model = read_as(read_json(artefact.model), config["model"])
    config = config | {"model": model}
    renderer = Renderer(artefact.folder, None if artefact.name == "previous" else model["chat_template"])
    context = context_length(artefact.folder)
    lead = _lead(settings["few_shot"], train, renderer, context, seed) if artefact.name == "prompted" else []
    sets = {Path(predictions): _asked(list(read_jsonl(rows)), rows, settings, renderer, lead, seed)}
    if general is not None and general_rows is not None:
        kept = general_set.records(general_rows)
        kept = kept if renderer.template else general_set.as_text(kept)
        sets[Path(general)] = _asked(kept, general_rows, settings, renderer, lead, seed)
    if prompts is not None:
        asked = [question(i + 1, text, renderer, lead) for i, text in enumerate(settings["prompts"])]
        sets[Path(prompts)] = {item.id: item for item in asked}
    named = {f"{path.name}/{name}": item for path, found in sets.items() for name, item in found.items()}
    everything = canonical([artefact.fingerprint(), config, {name: vars(item) for name, item in named.items()}])
    fingerprint = hashlib.sha256(everything.encode("utf-8", "surrogatepass")).hexdigest()
    here = Path(predictions).parent
    with (
        locks.hold_lock(here / ".lock", "answering these rows"),
        Journal(here / "unfinished.jsonl", fingerprint) as journal,
    ):
        work = _Work(artefact, renderer, context, config, threads, journal)
        work.do(named)
        for path, found in sets.items():
            write_jsonl(path, (work.line(f"{path.name}/{name}", item) for name, item in found.items()))
        work.report(named)
        journal.finish()


def _asked(
    records: list[dict[str, Any]],
    source: StrPath,
    settings: dict[str, Any],
    renderer: Renderer,
    lead: Messages,
    seed: int,
) -> Named:
    """What the rows of a file ask, by prediction id."""
    if not records:
        raise EvaluationError(
            "there is no row to answer",
            where=str(source),
            why="Without one nothing can be measured",
            fix="Give data.split a larger test share, or add rows",
        )
    rows = chosen(records, settings["max_rows"], seed)
    return {item.id: item for record in rows for item in items(record, renderer, lead, settings["turns"])}


def _lead(prompted: dict[str, Any], train: StrPath | None, renderer: Renderer, context: int, seed: int) -> Messages:
    """The system prompt and the worked examples that stand before each question put to the prompted base."""
    if not prompted["system"] and not prompted["num_examples"]:
        raise EvaluationError(
            "the prompted base has neither a system prompt nor an example",
            where="evaluate.few_shot",
            why="It would be the base once more",
            fix="Set evaluate.few_shot.system, or num_examples above 0, or leave `prompted` out of evaluate.models",
        )
    system = [{"role": "system", "content": prompted["system"]}] if prompted["system"] else []
    worked = examples(read_jsonl(train), prompted["num_examples"], seed) if train is not None else []
    probe = [{"role": "user", "content": "?"}]
    lead = system
    for count in range(len(worked), 0, -1):
        lead = system + [message for exchange in worked[:count] for message in exchange]
        if len(renderer.prompt(lead + probe)) * LEAD_SHARE <= context:
            break
        lead = system
    found = sum(message["role"] == "assistant" for message in lead)
    if found < prompted["num_examples"]:
        why = (
            f"no more fit into half a context of {context} tokens" if worked else "no training row is a single exchange"
        )
        _say(f"the prompted base gets {found} of {prompted['num_examples']} examples: {why}")
    return lead


class _Work:
    """What an artefact still has to score and to answer, and the lines that come of it."""

    def __init__(
        self,
        artefact: ModelVariant,
        renderer: Renderer,
        context: int,
        config: dict[str, Any],
        threads: int,
        journal: Journal,
    ) -> None:
        self.artefact, self.renderer, self.context = artefact, renderer, context
        self.limit = config["evaluate"]["max_new_tokens"]
        self.sampling = Sampling(**config["evaluate"]["generation"])
        self.dtype, self.seed, self.threads = config["model"]["dtype"], config["seed"], threads
        self.journal = journal

    def do(self, named: Named) -> None:
        """Score and answer whatever the journal does not know yet."""
        known = self.journal.known
        prompts = {name: self._fitted(item) for name, item in named.items() if item.prompt is not None}
        to_score = [name for name, item in named.items() if item.reference is not None and f"score:{name}" not in known]
        to_answer = [name for name in prompts if f"answer:{name}" not in known]
        if not to_score and not to_answer:
            return
        longest = max(
            max((min(len(named[name].ids), self.context) for name in to_score), default=0),
            max((len(prompts[name][0]) + prompts[name][1] for name in to_answer), default=0),
        )
        model = self.artefact.load(dtype=self.dtype, context_length=longest, threads=self.threads)
        self._tell(self._score(model, named, to_score), len(to_score), "scored")
        self._tell(self._answer(model, prompts, to_answer), len(to_answer), "answered")

    def _tell(self, steps: Iterator[str], total: int, done: str) -> None:
        """Take the steps while showing how many are done."""
        label = f"{self.artefact.name}, {done}"
        for _ in progress(steps, label, total):
            pass
        if total:
            _say(f"{label}: {total}")

    def _fitted(self, item: Item) -> tuple[list[int], int, int]:
        assert item.prompt is not None
        return truncate_left(item.prompt, self.context, self.limit)

    def _score(self, model: LanguageModel, named: Named, names: Sequence[str]) -> Iterator[str]:
        parts = [list(sliding_windows(named[name].ids, named[name].targets, self.context)) for name in names]
        sums = model.loglikelihood([LoglikelihoodRequest(*piece) for part in parts for piece in part])
        for name, part in zip(names, parts, strict=True):
            total = sum(next(sums) for _ in part)
            if not math.isfinite(total):
                raise EvaluationError(
                    f"{self.artefact.name} gives probabilities that are not numbers",
                    where=name,
                    why="The model's weights are damaged, so nothing it is scored with would mean anything",
                    fix="Train again with a smaller train.learning_rate, or make the file anew",
                )
            self.journal.add(f"score:{name}", total)
            yield name

    def _answer(
        self, model: LanguageModel, prompts: dict[str, tuple[list[int], int, int]], names: Sequence[str]
    ) -> Iterator[str]:
        requests = [GenerationRequest(*prompts[name][:2], row_seed(self.seed, name)) for name in names]
        for index, new, stopped in model.generate(requests, stop_ids=self.renderer.stop_ids, sampling=self.sampling):
            fact = {"answer": self.renderer.decode(new), "new_tokens": len(new), "stopped": stopped}
            self.journal.add(f"answer:{names[index]}", fact)
            yield names[index]

    def line(self, name: str, item: Item) -> dict[str, Any]:
        """The prediction of one item."""
        line: dict[str, Any] = {"id": item.id, "prompt": item.shown}
        if item.row != item.id:
            line["row"] = item.row
        if item.category is not None:
            line["category"] = item.category
        if item.prompt is not None:
            line |= self.journal.known[f"answer:{name}"]
            if cut := self._fitted(item)[2]:
                line["cut"] = cut
        if item.reference is not None:
            line |= {
                "reference": item.reference,
                "logprob": self.journal.known[f"score:{name}"],
                "targets": sum(item.targets),
                "bytes": len(item.reference.encode("utf-8", "surrogatepass")),
            }
        return line

    def report(self, named: Named) -> None:
        """Say what did not fit."""
        cut = sum(1 for item in named.values() if item.prompt is not None and self._fitted(item)[2])
        long = sum(1 for item in named.values() if len(item.ids) > self.context)
        if cut:
            _say(f"{cut} of {len(named)} questions were cut on the left to fit a context of {self.context} tokens")
        if long:
            _say(f"{long} of {len(named)} rows exceed that context and were scored in overlapping pieces")


def _say(text: str) -> None:
    print(f"snaketune: {text}", file=sys.stderr)
