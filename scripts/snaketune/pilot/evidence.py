"""What base and pilot make of the same validation rows: log-likelihoods, prompt dependence, a scored sample of answers.

All rows come from a token store: what precedes a row's first target token is its prompt as the model reads it,
chat template included.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from snaketune.config.sections import FidelityConfig, ModelConfig, PilotConfig
from snaketune.contracts.evaluate import Prediction
from snaketune.contracts.plan import SampledAnswer
from snaketune.engines import load_model
from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import (
    AdaptedModel,
    Completion,
    GenerationRequest,
    LanguageModel,
    LoadOptions,
    LoglikelihoodRequest,
)
from snaketune.evaluate.metrics import METRICS
from snaketune.files import Record, StrPath, read_json
from snaketune.tokens.chat_template import Renderer
from snaketune.tokens.token_store import TokenStore
from snaketune.tokens.virtual_tokens import kept_positions
from snaketune.train.batches import nested_subset

T = TypeVar("T")
SCORED_ROWS = 128  # validation rows whose log-likelihoods are compared
TIMED_TOKENS = 16  # of one answer that is generated alone, for its speed
METRIC = "chrF++"


class DecisionSettings(Record, frozen=True, kw_only=True):
    """The settings that the pilot's decision depends on.

    experiment: the one that the pilot trained, whose `model` section and rows in a step follow.

    The rest are settings of later stages, for the forecast only. general_rows: the file of evaluate.forgetting.rows.
    """

    experiment: str
    pilot: PilotConfig
    rows_per_step: int
    model: ModelConfig
    seed: int
    max_rows: int
    max_new_tokens: int
    max_hours: float | None
    general_rows: str | None
    variants: list[str]
    gguf: list[str]
    mlx: list[str]
    fidelity: FidelityConfig
    threads: int
    imatrix: bool | str = "auto"


class Exchange(NamedTuple):
    """The ids of a prompt, and of the response that follows it."""

    prompt: np.ndarray
    response: np.ndarray


@dataclass(frozen=True)
class SwappedPair:
    """A response after its own prompt and after another row's, as requests; num_target_tokens: its tokens."""

    own_prompt: LoglikelihoodRequest
    other_prompt: LoglikelihoodRequest
    num_target_tokens: int


@dataclass(frozen=True)
class SampleTiming:
    """What generating the sample took.

    alone: (seconds, new tokens) of the beginning of the first answer; together: (seconds, new tokens, steps) of all;
    tokens_each: mean length of answers, those that did not stop counted as the longest allowed.
    """

    alone: tuple[float, int]
    together: tuple[float, int, int]
    tokens_each: float


@dataclass(frozen=True)
class EvidenceTiming:
    """What the forecast of evaluation is made from.

    start_seconds: until the model was loaded; scoring: (seconds, tokens) of log-likelihoods; row_tokens and
    reference_tokens: means.
    """

    start_seconds: float
    scoring: tuple[float, int]
    row_tokens: float
    base: SampleTiming
    pilot: SampleTiming
    reference_tokens: float


@dataclass(frozen=True)
class Evidence:
    """What the criteria are computed from; arrays have one entry a row.

    base and pilot: log-likelihoods of the rows' targets; own and other: of responses after their own prompt and after
    another's; base_scores and pilot_scores: chrF++ of the sample.
    """

    base: np.ndarray
    pilot: np.ndarray
    num_target_tokens: np.ndarray
    own: np.ndarray
    other: np.ndarray
    swapped_targets: np.ndarray
    base_scores: np.ndarray
    pilot_scores: np.ndarray
    adapter_norm_ratio: float | None
    sample: list[SampledAnswer]
    timing: EvidenceTiming


@dataclass(frozen=True)
class _Rows:
    requests: list[LoglikelihoodRequest]
    exchanges: list[Exchange]
    max_new_tokens: int
    renderer: Renderer

    def of_base(self, virtual_ids: range) -> _Rows:
        """The same rows as the base reads them, without the virtual tokens of prompt tuning."""
        if not virtual_ids:
            return self
        requests = []
        for ids, loss_mask in self.requests:
            kept = kept_positions(ids, virtual_ids)
            requests.append(LoglikelihoodRequest([ids[i] for i in kept], [loss_mask[i] for i in kept]))
        exchanges = [
            Exchange(prompt[kept_positions(prompt.tolist(), virtual_ids)], response)
            for prompt, response in self.exchanges
        ]
        return replace(self, requests=requests, exchanges=exchanges)


@dataclass(frozen=True)
class _BaseResult:
    loglikelihoods: list[float]
    answers: list[str]
    timing: SampleTiming
    load_seconds: float
    scoring_seconds: float


def collect(model: StrPath, adapter: Path, valid: TokenStore, settings: DecisionSettings) -> Evidence:
    """Run base and pilot on the validation rows. model: the base's manifest; adapter: the pilot's folder."""
    folder = read_json(model)["folder"]
    chosen = nested_subset(valid, SCORED_ROWS, settings.seed)
    swaps = swapped_pairs(valid, chosen, settings.seed)
    rows = _Rows(
        [_request(*valid.row(int(row))) for row in chosen],
        [pair for row in chosen[: settings.pilot.sample] if (pair := split_exchange(valid, int(row))) is not None],
        settings.max_new_tokens,
        Renderer(folder, settings.model.chat_template),
    )
    base, pilot = _run_base_and_load_pilot(folder, settings.model.dtype, adapter, rows.of_base(valid.virtual_ids))
    loglikelihoods = list(pilot.loglikelihood(rows.requests))
    own = _own_loglikelihoods(pilot, swaps, rows.requests, loglikelihoods)
    other = list(pilot.loglikelihood([swap.other_prompt for swap in swaps]))
    answers, timing = _generate(pilot, rows)
    references = [rows.renderer.decode(pair.response.tolist()) for pair in rows.exchanges]
    tokens = [len(request.ids) for request in rows.requests]
    return Evidence(
        base=np.array(base.loglikelihoods),
        pilot=np.array(loglikelihoods),
        num_target_tokens=valid.num_target_tokens[chosen],
        own=np.array(own),
        other=np.array(other),
        swapped_targets=np.array([swap.num_target_tokens for swap in swaps]),
        base_scores=_scores(base.answers, references),
        pilot_scores=_scores(answers, references),
        adapter_norm_ratio=pilot.adapter_norm_ratio(),
        sample=[
            SampledAnswer(prompt=prompt, reference=reference, base=before, pilot=after)
            for prompt, reference, before, after in zip(
                [rows.renderer.decode(pair.prompt.tolist()) for pair in rows.exchanges],
                references,
                base.answers,
                answers,
                strict=True,
            )
        ],
        timing=EvidenceTiming(
            start_seconds=base.load_seconds,
            scoring=(base.scoring_seconds, sum(tokens)),
            row_tokens=float(np.mean(tokens)),
            base=base.timing,
            pilot=timing,
            reference_tokens=float(np.mean([len(pair.response) for pair in rows.exchanges])) if rows.exchanges else 0.0,
        ),
    )


def split_exchange(store: TokenStore, row: int) -> Exchange | None:
    """Return the ids before a row's first target and that first run of targets; None for plain text."""
    ids, loss_mask = store.row(row)
    starts = np.flatnonzero(loss_mask)
    if len(starts) == 0 or starts[0] <= 1:
        return None
    begin = int(starts[0])
    gaps = np.flatnonzero(~loss_mask[begin:])
    end = begin + int(gaps[0]) if len(gaps) else len(ids)
    return Exchange(ids[:begin], ids[begin:end])


def swapped_pairs(store: TokenStore, rows: np.ndarray, seed: int) -> list[SwappedPair]:
    """Return each row's response with its own prompt and with another's, drawn among those that differ from it."""
    exchanges = [pair for row in rows if (pair := split_exchange(store, int(row))) is not None]
    source = np.random.default_rng(seed)
    found = []
    for prompt, response in exchanges:
        for pick in source.permutation(len(exchanges)):
            other = exchanges[pick]
            if not np.array_equal(other.prompt, prompt) and not np.array_equal(other.response, response):
                swapped = _joined(other.prompt, response)
                found.append(SwappedPair(_joined(prompt, response), swapped, len(response)))
                break
    return found


def _joined(prompt: np.ndarray, response: np.ndarray) -> LoglikelihoodRequest:
    return _request(np.concatenate([prompt, response]), np.repeat([False, True], [len(prompt), len(response)]))


def _request(ids: np.ndarray, loss_mask: np.ndarray) -> LoglikelihoodRequest:
    return LoglikelihoodRequest(ids.tolist(), loss_mask.tolist())


def _run_base_and_load_pilot(
    folder: StrPath, dtype: str, adapter: Path, rows: _Rows
) -> tuple[_BaseResult, AdaptedModel]:
    """The base's results and the loaded pilot, from one reading of the base where the adapter can be taken off."""
    adapted = LoadOptions(dtype=dtype, adapter=adapter)
    load_seconds, pilot = _timed(lambda: load_model(folder, adapted))
    with pilot.without_adapter() as is_base:
        if is_base:
            return _run_base(pilot, rows, load_seconds), pilot
    pilot.close()  # it has changed the weights themselves, and one model at a time is in memory
    load_seconds, alone = _timed(lambda: load_model(folder, LoadOptions(dtype=dtype)))
    base = _run_base(alone, rows, load_seconds)
    alone.close()
    return base, load_model(folder, adapted)


def _run_base(model: LanguageModel, rows: _Rows, load_seconds: float) -> _BaseResult:
    """Run the base on the rows."""
    scoring_seconds, loglikelihoods = _timed(lambda: list(model.loglikelihood(rows.requests)))
    answers, timing = _generate(model, rows)
    return _BaseResult(loglikelihoods, answers, timing, load_seconds, scoring_seconds)


def _own_loglikelihoods(
    pilot: LanguageModel, swaps: list[SwappedPair], requests: list[LoglikelihoodRequest], known: list[float]
) -> list[float]:
    """The log-likelihoods of responses after their own prompts; a row that is such a pair was scored already."""
    found = {
        (tuple(request.ids), tuple(request.loss_mask)): value for request, value in zip(requests, known, strict=True)
    }
    pairs = [(tuple(swap.own_prompt.ids), tuple(swap.own_prompt.loss_mask)) for swap in swaps]
    missing = [swap.own_prompt for swap, pair in zip(swaps, pairs, strict=True) if pair not in found]
    others = pilot.loglikelihood(missing)
    return [found[pair] if pair in found else next(others) for pair in pairs]


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds that the work took, and its result."""
    started = time.monotonic()
    result = work()
    return time.monotonic() - started, result


def _generate(model: LanguageModel, rows: _Rows) -> tuple[list[str], SampleTiming]:
    """Return greedy answers to the prompts, none far longer than its reference, and what they took."""
    if not rows.exchanges:
        return [], SampleTiming((0.0, 0), (0.0, 0, 0), 0.0)
    limit = rows.max_new_tokens
    requests = [
        GenerationRequest(prompt.tolist(), min(limit, 2 * len(response) + 8)) for prompt, response in rows.exchanges
    ]

    def generated(wanted: list[GenerationRequest]) -> list[Completion]:
        return sorted(model.generate(wanted, stop_ids=rows.renderer.stop_ids, sampling=Sampling()))

    together, found = _timed(lambda: generated(requests))
    short = GenerationRequest(requests[0].prompt_ids, min(TIMED_TOKENS, requests[0].max_new_tokens))
    alone, (first,) = _timed(lambda: generated([short]))
    lengths = [len(ids) + stopped for _, ids, stopped in found]  # the token that stops is generated too
    ends = [length if stopped else limit for length, (_, _, stopped) in zip(lengths, found, strict=True)]
    timing = SampleTiming(
        (alone, len(first.ids) + first.stopped), (together, sum(lengths), max(lengths)), float(np.mean(ends))
    )
    return [rows.renderer.decode(ids) for _, ids, _ in found], timing


def _scores(answers: list[str], references: list[str]) -> np.ndarray:
    """chrF++ (0 to 100) of each answer."""
    pairs = zip(answers, references, strict=True)
    return METRICS["chrf"].row_scores(
        [Prediction(id="", prompt="", answer=answer, reference=reference) for answer, reference in pairs]
    )
