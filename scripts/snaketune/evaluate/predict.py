"""Predictions of a model variant on the evaluated rows: generated answers and log-likelihoods of the references."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec
from msgspec.structs import asdict, replace

from snaketune.config.schema import canonical
from snaketune.contracts.data import DataRecord, ModelManifest, ReadAs
from snaketune.contracts.evaluate import Prediction
from snaketune.engines.decoding import (
    Sampling,
    TruncatedPrompt,
    context_length,
    row_seed,
    sliding_windows,
    truncate_left,
)
from snaketune.engines.interface import GenerationRequest, LanguageModel, LoglikelihoodRequest
from snaketune.errors import EvaluationError
from snaketune.evaluate.requests import (
    EvalRequest,
    Messages,
    answerable,
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
from snaketune.files import Record, StrPath, dumps, read_json, read_jsonl, write_jsonl
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
    configured = ReadAs(
        chat_template=config.chat_template, dtype=config.dtype, num_virtual_tokens=config.num_virtual_tokens
    )
    chosen = variant.read_as(read_as(read_json(variant.model, ModelManifest), configured))
    config = replace(config, **asdict(chosen))
    renderer = Renderer(variant.folder, chosen.chat_template, chosen.num_virtual_tokens)
    context = context_length(variant.folder)
    by_file = _build_requests(renderer, context, inputs, outputs, config)
    requests = {f"{path.name}/{name}": one for path, found in by_file.items() for name, one in found.items()}
    folder = Path(outputs.predictions).parent
    with (
        locks.hold_lock(folder / ".lock", "answering these rows"),
        ResumeLog(folder / "unfinished.jsonl", _fingerprint(variant, config, requests)) as log,
    ):
        predictions = Predictor(variant, renderer, context, config, threads, log).run(requests)
        for path, found in by_file.items():
            write_jsonl(path, (predictions[f"{path.name}/{name}"] for name in found))
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
    rows = answerable(sample_rows(records, config.max_rows, config.seed), renderer)
    if not rows:
        raise EvaluationError(
            "there is no row to answer",
            where=str(source),
            why="Without one nothing can be measured",
            fix="Give data.split a larger test share, or add rows",
        )
    shared = clusters(rows)
    found = (request for record in rows for request in row_requests(record, renderer, prefix, config.turns))
    return {request.id: dataclasses.replace(request, cluster=shared.get(request.row)) for request in found}


def _fingerprint(variant: ModelVariant, config: PredictionConfig, requests: Requests) -> str:
    """A hash of everything that the predictions depend on."""
    contents = {name: dataclasses.asdict(request) for name, request in requests.items()}
    everything = canonical([variant.fingerprint(), msgspec.to_builtins(config), contents])
    return hashlib.sha256(everything.encode("utf-8", "surrogatepass")).hexdigest()


class LoggedPrediction(Record, frozen=True, kw_only=True):
    """A line of unfinished.jsonl after the first, which holds the fingerprint: a prediction as far as it is made."""

    name: str
    prediction: Prediction


class ResumeLog:
    """Predictions by name, appended to a file as they are scored and answered; a later line replaces an earlier one.

    The first line is the fingerprint of everything that the predictions depend on; with another one they are discarded.
    A line that a kill cut off is dropped.
    """

    def __init__(self, path: StrPath, fingerprint: str) -> None:
        self.path = Path(path)
        self.fingerprint = fingerprint
        self.predictions: dict[str, Prediction] = {}
        self.num_lines = 0
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

    def add(self, name: str, prediction: Prediction) -> None:
        """Record a score or an answer; once this returns, it survives a kill of the process."""
        line = LoggedPrediction(name=name, prediction=prediction)
        self._keep(line)
        self._write(line)

    def finish(self) -> None:
        """Delete the file: the evaluation is complete."""
        self.path.unlink(missing_ok=True)

    def _keep(self, line: LoggedPrediction) -> None:
        self.predictions[line.name] = line.prediction
        self.num_lines += 1

    def _write(self, line: object) -> None:
        assert self._out is not None
        self._out.write(dumps(line).encode() + b"\n")
        self._out.flush()

    def _read(self) -> int:
        """Load the predictions of an earlier process; returns how many bytes of its file are valid."""
        if not self.path.is_file():
            return 0
        with open(self.path, "rb") as lines:
            first = lines.readline()
            if first != dumps({"fingerprint": self.fingerprint}).encode() + b"\n":
                return 0
            kept = len(first)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._keep(msgspec.json.decode(line, type=LoggedPrediction))
                kept += len(line)
        return kept


class Predictor:
    """Makes the predictions of a variant: scores and generates what the log does not have yet."""

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

    def run(self, requests: Requests) -> dict[str, Prediction]:
        """The prediction of each request."""
        prompts = {name: self._truncated(one) for name, one in requests.items() if one.prompt_ids is not None}
        found = {name: _unanswered(one, prompts.get(name)) for name, one in requests.items()} | self.log.predictions
        to_score = [name for name, one in requests.items() if one.reference is not None and found[name].logprob is None]
        to_generate = [name for name in prompts if found[name].answer is None]
        if to_score or to_generate:
            self._keep()
            longest = max(
                max((min(len(requests[name].ids), self.context) for name in to_score), default=0),
                max((len(prompts[name].prompt_ids) + prompts[name].max_new_tokens for name in to_generate), default=0),
            )
            model = self.variant.load(dtype=self.config.dtype, context_length=longest, threads=self.threads)
            scored = self._scored(model, {name: requests[name] for name in to_score}, found)
            found |= self._logged(scored, len(to_score), "scored", "rows")
            answered = self._answered(model, {name: prompts[name] for name in to_generate}, found)
            found |= self._logged(answered, len(to_generate), "answered", "answers")
        self._report_truncation(requests, prompts)
        return found

    def _logged(
        self, predictions: Iterator[tuple[str, Prediction]], total: int, what: str, unit: str
    ) -> dict[str, Prediction]:
        """Collect predictions as they come, into the log too, while showing the progress."""
        found = {}
        for name, prediction in progress(predictions, what, total, unit=unit):
            found[name] = prediction
            self.log.add(name, prediction)
            self._keep()
        if total:
            _print(f"{self.variant.name}, {what}: {total}")
        return found

    def _keep(self) -> None:
        """Note what an interruption leaves."""
        if done := self.log.num_lines:
            stopping.keep(f"the {done:,} answers and scores so far are kept")

    def _truncated(self, request: EvalRequest) -> TruncatedPrompt:
        assert request.prompt_ids is not None
        return truncate_left(request.prompt_ids, self.context, self.config.max_new_tokens)

    def _scored(
        self, model: LanguageModel, requests: Requests, predictions: Mapping[str, Prediction]
    ) -> Iterator[tuple[str, Prediction]]:
        """The predictions of the requests with the log-likelihood of their references."""
        windows = [list(sliding_windows(one.ids, one.loss_mask, self.context)) for one in requests.values()]
        logprobs = model.loglikelihood([LoglikelihoodRequest(*window) for row in windows for window in row])
        for name, row in zip(requests, windows, strict=True):
            total = sum(next(logprobs) for _ in row)
            if not math.isfinite(total):
                raise EvaluationError(
                    f"{self.variant.name} gives probabilities that are not numbers",
                    where=name,
                    why="The model's weights are damaged, so nothing it is scored with would mean anything",
                    fix="Train again with a smaller train.learning_rate, or make the file anew",
                )
            yield name, replace(predictions[name], logprob=total)

    def _answered(
        self, model: LanguageModel, prompts: Mapping[str, TruncatedPrompt], predictions: Mapping[str, Prediction]
    ) -> Iterator[tuple[str, Prediction]]:
        """The predictions of the prompts with their answers, in the order in which these end."""
        names = list(prompts)
        requests = [
            GenerationRequest(one.prompt_ids, one.max_new_tokens, row_seed(self.config.seed, name))
            for name, one in prompts.items()
        ]
        for completion in model.generate(requests, stop_ids=self.renderer.stop_ids, sampling=self.sampling):
            name = names[completion.request_index]
            yield (
                name,
                replace(
                    predictions[name],
                    answer=self.renderer.decode(completion.ids),
                    new_tokens=len(completion.ids),
                    stopped=completion.stopped,
                ),
            )

    def _report_truncation(self, requests: Requests, prompts: Mapping[str, TruncatedPrompt]) -> None:
        """Print how many prompts and rows exceeded the context."""
        cut = sum(1 for one in prompts.values() if one.num_cut)
        long = sum(1 for one in requests.values() if len(one.ids) > self.context)
        if cut:
            _print(f"{cut} of {len(requests)} questions were cut on the left to fit a context of {self.context} tokens")
        if long:
            _print(f"{long} of {len(requests)} rows exceed that context and were scored in overlapping pieces")


def _unanswered(request: EvalRequest, prompt: TruncatedPrompt | None) -> Prediction:
    """What is known of a prediction before its model has been asked."""
    found = Prediction(
        id=request.id,
        prompt=request.prompt,
        row=request.row if request.row != request.id else None,
        cluster=request.cluster,
        category=request.category,
        cut=prompt.num_cut or None if prompt else None,
    )
    if request.reference is None:
        return found
    return replace(
        found,
        reference=request.reference,
        num_target_tokens=sum(request.loss_mask),
        bytes=len(request.reference.encode("utf-8", "surrogatepass")),
    )


def _print(text: str) -> None:
    print(f"snaketune: {text}", file=sys.stderr)
