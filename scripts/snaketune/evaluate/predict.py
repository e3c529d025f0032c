"""Predictions of a model variant on the evaluated rows: generated answers and log-likelihoods of the references."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import msgspec

from snaketune.config.schema import canonical
from snaketune.contracts.data import DataRecord, ModelManifest, ReadAs
from snaketune.contracts.evaluate import Prediction
from snaketune.engines.decoding import Sampling, context_length, row_seed, sliding_windows, truncate_left
from snaketune.engines.interface import GenerationRequest, LanguageModel, LoglikelihoodRequest
from snaketune.errors import EvaluationError
from snaketune.evaluate.requests import (
    EvalRequest,
    Messages,
    as_plain_text,
    clusters,
    few_shot_messages,
    free_prompt,
    general_records,
    row_requests,
    sample_rows,
)
from snaketune.evaluate.step_config import PredictionConfig
from snaketune.evaluate.variants import ModelVariant
from snaketune.files import StrPath, dumps, read_json, read_jsonl, write_jsonl
from snaketune.model.manifest import read_as
from snaketune.runtime import locks, stopping
from snaketune.runtime.progress import progress
from snaketune.tokens.chat_template import Renderer

Requests = dict[str, EvalRequest]


@dataclass(frozen=True)
class PredictionInputs:
    """rows: the evaluated split; general: the general set; train: the rows that worked examples are drawn from."""

    rows: StrPath
    general: StrPath | None = None
    train: StrPath | None = None


@dataclass(frozen=True)
class PredictionOutputs:
    """The files to write; general and prompts are skipped where None."""

    predictions: StrPath
    general: StrPath | None = None
    prompts: StrPath | None = None


def run(
    variant: ModelVariant,
    inputs: PredictionInputs,
    outputs: PredictionOutputs,
    config: PredictionConfig,
    threads: int = 1,
) -> None:
    """Write the predictions of a variant for all outputs, loading the model once.

    What is done so far is kept in unfinished.jsonl in the folder of the predictions, and a killed step continues there.
    """
    configured = ReadAs(chat_template=config.chat_template, dtype=config.dtype)
    chosen = read_as(read_json(variant.model, ModelManifest), configured)
    config = msgspec.structs.replace(config, chat_template=chosen.chat_template, dtype=chosen.dtype)
    renderer = Renderer(variant.folder, None if variant.name == "previous" else config.chat_template)
    context = context_length(variant.folder)
    by_file = _build_requests(renderer, context, inputs, outputs, config)
    requests = {f"{path.name}/{name}": one for path, found in by_file.items() for name, one in found.items()}
    folder = Path(outputs.predictions).parent
    with (
        locks.hold_lock(folder / ".lock", "answering these rows"),
        ResumeLog(folder / "unfinished.jsonl", _fingerprint(variant, config, requests)) as log,
    ):
        predictor = Predictor(variant, renderer, context, config, threads, log)
        predictor.run(requests)
        for path, found in by_file.items():
            write_jsonl(path, (predictor.prediction(f"{path.name}/{name}", one) for name, one in found.items()))
        predictor.report_truncation(requests)
        log.finish()


def _build_requests(
    renderer: Renderer,
    context: int,
    inputs: PredictionInputs,
    outputs: PredictionOutputs,
    config: PredictionConfig,
) -> dict[Path, Requests]:
    """The requests of each output file, by prediction id."""
    prefix: Messages = []
    if config.few_shot is not None:
        prefix = few_shot_messages(config.few_shot, inputs.train, renderer, context, config.seed)
    rows = list(read_jsonl(inputs.rows))
    found = {Path(outputs.predictions): _requests_of(rows, inputs.rows, renderer, prefix, config)}
    if outputs.general is not None and inputs.general is not None:
        general = general_records(inputs.general)
        general = general if renderer.template else as_plain_text(general)
        found[Path(outputs.general)] = _requests_of(general, inputs.general, renderer, prefix, config)
    if outputs.prompts is not None:
        prompts = [free_prompt(i + 1, text, renderer, prefix) for i, text in enumerate(config.prompts)]
        found[Path(outputs.prompts)] = {request.id: request for request in prompts}
    return found


def _requests_of(
    records: list[DataRecord], source: StrPath, renderer: Renderer, prefix: Messages, config: PredictionConfig
) -> Requests:
    if not records:
        raise EvaluationError(
            "there is no row to answer",
            where=str(source),
            why="Without one nothing can be measured",
            fix="Give data.split a larger test share, or add rows",
        )
    rows = sample_rows(records, config.max_rows, config.seed)
    shared = clusters(rows)
    found = (request for record in rows for request in row_requests(record, renderer, prefix, config.turns))
    return {request.id: dataclasses.replace(request, cluster=shared.get(request.row)) for request in found}


def _fingerprint(variant: ModelVariant, config: PredictionConfig, requests: Requests) -> str:
    """A hash of everything that the predictions depend on."""
    contents = {name: dataclasses.asdict(request) for name, request in requests.items()}
    everything = canonical([variant.fingerprint(), msgspec.to_builtins(config), contents])
    return hashlib.sha256(everything.encode("utf-8", "surrogatepass")).hexdigest()


class ResumeLog:
    """Entries by name, appended to a file as they are made.

    The first line is the fingerprint of everything that the entries depend on; with another one they are discarded. A
    line that a kill cut off is dropped.
    """

    def __init__(self, path: StrPath, fingerprint: str) -> None:
        self.path = Path(path)
        self.fingerprint = fingerprint
        self.entries: dict[str, Any] = {}
        self._out: IO[bytes] | None = None

    def __enter__(self) -> ResumeLog:
        kept = self._read()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._out = open(self.path, "r+b" if kept else "wb")
        self._out.truncate(kept)
        self._out.seek(kept)
        if not kept:
            self._write({"fingerprint": self.fingerprint})
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._out is not None:
            self._out.close()

    def add(self, name: str, entry: Any) -> None:
        """Record an entry; once this returns, it survives a kill of the process."""
        self.entries[name] = entry
        self._write({"name": name, "entry": entry})

    def finish(self) -> None:
        """Delete the file: the evaluation is complete."""
        self.path.unlink(missing_ok=True)

    def _write(self, line: Mapping[str, object]) -> None:
        assert self._out is not None
        self._out.write(dumps(line).encode() + b"\n")
        self._out.flush()

    def _read(self) -> int:
        """Load the entries of an earlier process; returns how many bytes of its file are valid."""
        if not self.path.is_file():
            return 0
        kept = 0
        with open(self.path, "rb") as lines:
            for number, line in enumerate(lines):
                try:
                    found = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                if number == 0:
                    if found.get("fingerprint") != self.fingerprint:
                        return 0
                else:
                    self.entries[found["name"]] = found["entry"]
                kept += len(line)
        return kept


class Predictor:
    """Generates and scores what a variant has not done yet, and makes predictions of it."""

    def __init__(
        self,
        variant: ModelVariant,
        renderer: Renderer,
        context: int,
        config: PredictionConfig,
        threads: int,
        log: ResumeLog,
    ) -> None:
        self.variant, self.renderer, self.context, self.config = variant, renderer, context, config
        self.sampling = Sampling(**msgspec.structs.asdict(config.generation))
        self.threads, self.log = threads, log

    def run(self, requests: Requests) -> None:
        """Score and generate whatever the log does not have yet."""
        done = self.log.entries
        prompts = {name: self._truncated(one) for name, one in requests.items() if one.prompt is not None}
        to_score = [name for name, one in requests.items() if one.reference is not None and f"score:{name}" not in done]
        to_generate = [name for name in prompts if f"answer:{name}" not in done]
        if not to_score and not to_generate:
            return
        self._keep()
        longest = max(
            max((min(len(requests[name].ids), self.context) for name in to_score), default=0),
            max((len(prompts[name][0]) + prompts[name][1] for name in to_generate), default=0),
        )
        model = self.variant.load(dtype=self.config.dtype, context_length=longest, threads=self.threads)
        self._consume(self._score(model, requests, to_score), len(to_score), "scored", "rows")
        self._consume(self._generate(model, prompts, to_generate), len(to_generate), "answered", "answers")

    def _consume(self, names: Iterator[str], total: int, what: str, unit: str) -> None:
        """Run the iterator to its end while showing the progress."""
        label = f"{self.variant.name}, {what}"
        for _ in progress(names, what, total, unit=unit):
            self._keep()
        if total:
            _print(f"{label}: {total}")

    def _keep(self) -> None:
        """Note what an interruption leaves."""
        if done := len(self.log.entries):
            stopping.keep(f"the {done:,} answers and scores so far are kept")

    def _truncated(self, request: EvalRequest) -> tuple[list[int], int, int]:
        assert request.prompt is not None
        return truncate_left(request.prompt, self.context, self.config.max_new_tokens)

    def _score(self, model: LanguageModel, requests: Requests, names: Sequence[str]) -> Iterator[str]:
        windows = [list(sliding_windows(requests[name].ids, requests[name].loss_mask, self.context)) for name in names]
        logprobs = model.loglikelihood([LoglikelihoodRequest(*window) for row in windows for window in row])
        for name, row in zip(names, windows, strict=True):
            total = sum(next(logprobs) for _ in row)
            if not math.isfinite(total):
                raise EvaluationError(
                    f"{self.variant.name} gives probabilities that are not numbers",
                    where=name,
                    why="The model's weights are damaged, so nothing it is scored with would mean anything",
                    fix="Train again with a smaller train.learning_rate, or make the file anew",
                )
            self.log.add(f"score:{name}", total)
            yield name

    def _generate(
        self, model: LanguageModel, prompts: dict[str, tuple[list[int], int, int]], names: Sequence[str]
    ) -> Iterator[str]:
        pending = [GenerationRequest(*prompts[name][:2], row_seed(self.config.seed, name)) for name in names]
        for index, new, stopped in model.generate(pending, stop_ids=self.renderer.stop_ids, sampling=self.sampling):
            entry = {"answer": self.renderer.decode(new), "new_tokens": len(new), "stopped": stopped}
            self.log.add(f"answer:{names[index]}", entry)
            yield names[index]

    def prediction(self, name: str, request: EvalRequest) -> Prediction:
        """The finished prediction of one request."""
        found = Prediction(
            id=request.id,
            prompt=request.prompt_text,
            row=request.row if request.row != request.id else None,
            cluster=request.cluster,
            category=request.category,
        )
        if request.prompt is not None:
            cut = self._truncated(request)[2]
            found = msgspec.structs.replace(found, **self.log.entries[f"answer:{name}"], cut=cut or None)
        if request.reference is None:
            return found
        return msgspec.structs.replace(
            found,
            reference=request.reference,
            logprob=self.log.entries[f"score:{name}"],
            num_target_tokens=sum(request.loss_mask),
            bytes=len(request.reference.encode("utf-8", "surrogatepass")),
        )

    def report_truncation(self, requests: Requests) -> None:
        """Print how many prompts and rows exceeded the context."""
        cut = sum(1 for one in requests.values() if one.prompt is not None and self._truncated(one)[2])
        long = sum(1 for one in requests.values() if len(one.ids) > self.context)
        if cut:
            _print(f"{cut} of {len(requests)} questions were cut on the left to fit a context of {self.context} tokens")
        if long:
            _print(f"{long} of {len(requests)} rows exceed that context and were scored in overlapping pieces")


def _print(text: str) -> None:
    print(f"snaketune: {text}", file=sys.stderr)
