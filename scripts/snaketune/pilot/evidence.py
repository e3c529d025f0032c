"""What base and pilot make of the same validation rows: log-likelihoods, and a scored sample of answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from snaketune.contracts.evaluate import Prediction
from snaketune.contracts.plan import Plan, SampledAnswer
from snaketune.engines import get_capabilities, load_model
from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import (
    AdaptedModel,
    GenerationRequest,
    LanguageModel,
    LoadOptions,
    LoglikelihoodRequest,
)
from snaketune.evaluate.metrics import METRICS
from snaketune.files import StrPath, read_json
from snaketune.pilot.forecast import DecisionSettings, EvidenceTiming, SampleTiming
from snaketune.pilot.scored_rows import Exchange, Look, SwappedPair, looks, sample_size, split_exchange
from snaketune.tokens.chat_template import Renderer
from snaketune.tokens.token_store import TokenStore
from snaketune.tokens.virtual_tokens import kept_positions

T = TypeVar("T")
TIMED_TOKENS, FEWEST_TIMED_TOKENS = 16, 6  # of answers that are generated for their speed
SLOW = 0.05  # seconds a token of one answer, above which the fewest are timed of many
METRIC = "chrF++"


@dataclass(frozen=True)
class RowScores:
    """Log-likelihoods that the criteria are computed from; arrays have one entry a row.

    base and pilot: of the rows' targets; own and other: of responses after their own prompt and after another's.
    """

    base: np.ndarray
    pilot: np.ndarray
    num_target_tokens: np.ndarray
    own: np.ndarray
    other: np.ndarray
    swapped_targets: np.ndarray

    def joined(self, more: RowScores) -> RowScores:
        """Those of these rows and of others."""
        names = [each.name for each in fields(self)]
        return RowScores(**{name: np.concatenate([getattr(self, name), getattr(more, name)]) for name in names})


@dataclass(frozen=True)
class Evidence:
    """What the criteria are computed from.

    rows_allowed: as many as `scores` would hold if the first rows had not decided; looks: how many times rows may be
    looked at; base_scores and pilot_scores: chrF++ of the sample, one entry a row.
    """

    scores: RowScores
    rows_allowed: int
    looks: int
    base_scores: np.ndarray
    pilot_scores: np.ndarray
    adapter_norm_ratio: float | None
    sample: list[SampledAnswer]
    timing: EvidenceTiming


@dataclass(frozen=True)
class _Sample:
    """Prompts that are answered, and their references."""

    exchanges: list[Exchange]
    max_new_tokens: int
    renderer: Renderer
    answered_together: int

    def of_base(self, virtual_ids: range) -> _Sample:
        """The same as the base reads it, without the virtual tokens of prompt tuning."""
        if not virtual_ids:
            return self
        exchanges = [
            Exchange(prompt[kept_positions(prompt.tolist(), virtual_ids)], response)
            for prompt, response in self.exchanges
        ]
        return replace(self, exchanges=exchanges)


@dataclass(frozen=True)
class _BaseResult:
    """looks: the log-likelihoods of each look's rows, of the first one or of all; scored: its (seconds, tokens)."""

    looks: list[list[float]]
    answers: list[str]
    timing: SampleTiming
    load_seconds: float
    scored: tuple[float, int]


def collect(
    model: StrPath,
    adapter: Path,
    valid: TokenStore,
    settings: DecisionSettings,
    plan: Plan,
    is_decided: Callable[[RowScores], bool],
) -> Evidence:
    """Run base and pilot on the validation rows. model: the base's manifest; adapter: the pilot's folder.

    Of a large base few rows are scored first, and the others where `is_decided` says that those do not decide.
    """
    parameters, test_rows = plan.experiments[settings.experiment].parameters, plan.rows["test"]
    folder = read_json(model)["folder"]
    chosen = looks(valid, parameters, settings.seed)
    found = [Look.of(valid, rows, settings.seed) for rows in chosen]
    exchanges = [split_exchange(valid, int(row)) for row in chosen[0][: sample_size(settings.pilot.sample, chosen)]]
    sample = _Sample(
        [pair for pair in exchanges if pair is not None],
        settings.max_new_tokens,
        Renderer(folder, settings.model.chat_template),
        max(1, min(get_capabilities().COMPLETION_BATCH, test_rows, settings.max_rows)),
    )
    of_base = [look.of_base(valid.virtual_ids) for look in found]
    dtype = settings.model.dtype
    base, pilot = _run_base_and_load_pilot(folder, dtype, adapter, of_base, sample.of_base(valid.virtual_ids))
    scores = _scores_of(pilot, found[0], base.looks[0])
    answers, timing = _generate(pilot, sample)
    if len(found) > 1 and not is_decided(scores):
        scores = scores.joined(_scores_of(pilot, found[1], _base_of_second(pilot, base, of_base[1])))
    references = [sample.renderer.decode(pair.response.tolist()) for pair in sample.exchanges]
    prompts = [sample.renderer.decode(pair.prompt.tolist()) for pair in sample.exchanges]
    pairs = zip(prompts, references, base.answers, answers, strict=True)
    return Evidence(
        scores=scores,
        rows_allowed=sum(map(len, chosen)),
        looks=len(chosen),
        base_scores=_scores(base.answers, references),
        pilot_scores=_scores(answers, references),
        adapter_norm_ratio=pilot.adapter_norm_ratio(),
        sample=[
            SampledAnswer(prompt=prompt, reference=reference, base=before, pilot=after)
            for prompt, reference, before, after in pairs
        ],
        timing=EvidenceTiming(
            start_seconds=base.load_seconds,
            scoring=base.scored,
            row_tokens=float(np.mean([len(request.ids) for request in found[0].requests])),
            base=base.timing,
            pilot=timing,
            reference_tokens=float(np.mean([len(pair.response) for pair in sample.exchanges])) if references else 0.0,
        ),
    )


def _scores_of(pilot: LanguageModel, look: Look, base: list[float]) -> RowScores:
    """Score a look's rows with the pilot. base: the base's log-likelihoods of them."""
    loglikelihoods = list(pilot.loglikelihood(look.requests))
    own = _own_loglikelihoods(pilot, look.swaps, look.requests, loglikelihoods)
    other = list(pilot.loglikelihood([swap.other_prompt for swap in look.swaps]))
    return RowScores(
        base=np.array(base),
        pilot=np.array(loglikelihoods),
        num_target_tokens=look.num_target_tokens,
        own=np.array(own),
        other=np.array(other),
        swapped_targets=np.array([swap.num_target_tokens for swap in look.swaps]),
    )


def _run_base_and_load_pilot(
    folder: StrPath, dtype: str, adapter: Path, of_base: list[list[LoglikelihoodRequest]], sample: _Sample
) -> tuple[_BaseResult, AdaptedModel]:
    """The base's results and the loaded pilot, from one reading of the base where the adapter can be taken off.

    of_base: the rows of each look. Of a base that is read for itself all are scored.
    """
    adapted = LoadOptions(dtype=dtype, adapter=adapter)
    load_seconds, pilot = _timed(lambda: load_model(folder, adapted))
    with pilot.without_adapter() as is_base:
        if is_base:
            return _run_base(pilot, of_base[:1], sample, load_seconds), pilot
    pilot.close()  # it has changed the weights themselves, and one model at a time is in memory
    load_seconds, alone = _timed(lambda: load_model(folder, LoadOptions(dtype=dtype)))
    base = _run_base(alone, of_base, sample, load_seconds)
    alone.close()
    return base, load_model(folder, adapted)


def _run_base(
    model: LanguageModel, rows: list[list[LoglikelihoodRequest]], sample: _Sample, load_seconds: float
) -> _BaseResult:
    """Run the base on the rows of some looks, and on the sample."""
    seconds, scored = _timed(lambda: [list(model.loglikelihood(requests)) for requests in rows])
    answers, timing = _generate(model, sample)
    tokens = sum(len(request.ids) for requests in rows for request in requests)
    return _BaseResult(scored, answers, timing, load_seconds, (seconds, tokens))


def _base_of_second(pilot: AdaptedModel, base: _BaseResult, requests: list[LoglikelihoodRequest]) -> list[float]:
    """The base's log-likelihoods of the second look's rows."""
    if len(base.looks) > 1:
        return base.looks[1]
    with pilot.without_adapter():
        return list(pilot.loglikelihood(requests))


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


def _generate(model: LanguageModel, sample: _Sample) -> tuple[list[str], SampleTiming]:
    """Return greedy answers to the prompts, none far longer than its reference, and what they took."""
    if not sample.exchanges:
        return [], SampleTiming(0.0, 0.0, 0.0)
    limit = sample.max_new_tokens
    requests = [
        GenerationRequest(prompt.tolist(), min(limit, 2 * len(response) + 8)) for prompt, response in sample.exchanges
    ]

    found = sorted(model.generate(requests, stop_ids=sample.renderer.stop_ids, sampling=Sampling()))
    lengths = [len(ids) + stopped for _, ids, stopped in found]  # the token that stops is generated too
    ends = [length if stopped else limit for length, (_, _, stopped) in zip(lengths, found, strict=True)]
    alone = _seconds_per_token(model, requests, 1, TIMED_TOKENS)
    tokens = TIMED_TOKENS if alone < SLOW else FEWEST_TIMED_TOKENS
    together = _seconds_per_token(model, requests, sample.answered_together, tokens)
    return [sample.renderer.decode(ids) for _, ids, _ in found], SampleTiming(alone, together, float(np.mean(ends)))


def _seconds_per_token(model: LanguageModel, requests: list[GenerationRequest], rows: int, tokens: int) -> float:
    """Return what a new token of so many answers takes, each of so many tokens; hardly anything of a prompt is read."""
    short = [GenerationRequest(requests[row % len(requests)].prompt_ids[:2], tokens) for row in range(rows)]
    seconds, _ = _timed(lambda: list(model.generate(short, stop_ids=frozenset(), sampling=Sampling())))
    return seconds / (rows * tokens)


def _scores(answers: list[str], references: list[str]) -> np.ndarray:
    """chrF++ (0 to 100) of each answer."""
    pairs = zip(answers, references, strict=True)
    return METRICS["chrf"].row_scores(
        [Prediction(id="", prompt="", answer=answer, reference=reference) for answer, reference in pairs]
    )
