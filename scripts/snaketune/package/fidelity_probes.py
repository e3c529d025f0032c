"""The probes that every form of a model is given, and the distances between two forms' results.

Every form reads the same rows and completes the same prompts: the trained adapter over its base, the fused model, each
GGUF. The results are next-token distributions at chosen positions, the log-probability of the reference responses, and
greedy completions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec
import numpy as np

from snaketune.contracts.data import DataRecord, Message
from snaketune.contracts.package import VariantFidelity
from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import GenerationRequest, LanguageModel
from snaketune.package.fidelity_checks import MOST_POSITIONS
from snaketune.package.modelfile import uses_tools
from snaketune.runtime.progress import progress
from snaketune.tokens.chat_template import Rendered, Renderer
from snaketune.tokens.row_samples import cut_around_answer, spread
from snaketune.tokens.virtual_tokens import kept_positions

MAX_TOKENS = 512  # of a row that are read
MAX_BYTES = 256 << 20  # of distributions kept to compare with
MAX_POSITIONS = 2048
WORK = 2e11  # weights x tokens of the first look at a large model: 161 tokens of one with 1.24 billion weights
FEWEST_ROWS, FEWEST_PROMPTS = 4, 1
FEWEST_TOKENS, FEWEST_NEW_TOKENS = 64, 8  # of a row or prompt that are read, and of a completion
NEW_TOKEN_COST = 16  # a token that is generated costs as much as so many that are read: each reads all weights
TOP_K = 8  # tokens whose log-probabilities are kept at each position of a completion
NOTHING_COMPARED = np.zeros((0, 0), np.float32)
COMPARED_AT_ONCE = 1 << 20  # numbers of two distributions: as many as a processor's own memory holds


@dataclass(frozen=True)
class ProbeLimits:
    """How many rows and prompts are taken, and how long rows and completions may be.

    in_memory: whether the model fits into memory in float32; if not, a few short rows and no prompts are taken.
    tokens: of all rows of a first look, where fewer than all rows are enough for one. mixture: whether the model is one
    of experts, whose routing is undecided at some positions.
    """

    rows: int
    prompts: int
    max_new_tokens: int
    in_memory: bool = True
    tokens: int | None = None
    row_tokens: int = MAX_TOKENS
    mixture: bool = False

    def first_look(self, parameters: int) -> ProbeLimits:
        """The same with a first look at a model with so many weights, at a cost that hardly grows with them."""
        tokens = int(WORK // parameters)
        row_tokens = min(self.row_tokens, max(FEWEST_TOKENS, tokens // FEWEST_ROWS))
        if not self.in_memory:
            return replace(self, rows=min(self.rows, FEWEST_ROWS), prompts=0, tokens=tokens, row_tokens=row_tokens)
        prompts = max(FEWEST_PROMPTS, tokens // (4 * FEWEST_TOKENS))
        new_tokens = max(FEWEST_NEW_TOKENS, tokens // NEW_TOKEN_COST)
        return replace(
            self,
            prompts=min(self.prompts, prompts),
            max_new_tokens=min(self.max_new_tokens, new_tokens),
            tokens=tokens,
            row_tokens=row_tokens,
        )


@dataclass(frozen=True)
class ProbeSet:
    """Rows of ids, the positions after which a distribution is wanted, and prompts.

    target_positions[i] are the positions in rows[i] of the ids to predict, compared_positions[i] the positions whose
    whole distribution is compared: of a row after the first look none. A distribution at position p predicts the id at
    p + 1. first_look: rows that are read first; the others, where those do not decide.
    """

    rows: list[list[int]]
    target_positions: list[list[int]]
    compared_positions: list[list[int]]
    prompts: list[list[int]]
    texts: list[str]
    conversations: list[list[Message]]
    stop_ids: frozenset[int]
    limits: ProbeLimits
    first_look: int
    uses_tools: bool = False
    virtual_ids: range = range(0)

    @property
    def words(self) -> int | None:
        """How many tokens of a distribution are compared: those before the virtual ones, which are never to be said."""
        return self.virtual_ids.start if self.virtual_ids else None

    def later_looks(self) -> Iterator[tuple[int, int]]:
        """Where the rows of each look after the first begin and end."""
        return later_looks(self.first_look, len(self.rows))

    def part(self, start: int, end: int) -> ProbeSet:
        """Some of the rows; prompts are completed with the first ones."""
        part = slice(start, end)
        return replace(
            self,
            rows=self.rows[part],
            target_positions=self.target_positions[part],
            compared_positions=self.compared_positions[part],
            prompts=[] if start else self.prompts,
        )

    def of_base(self) -> ProbeSet:
        """The same rows as the base reads them: without the virtual tokens of prompt tuning, compared with nothing."""
        rows, targets = [], []
        for row, wanted in zip(self.rows, self.target_positions, strict=True):
            kept = kept_positions(row, self.virtual_ids)
            moved = {position: new for new, position in enumerate(kept)}
            rows.append([row[position] for position in kept])
            targets.append([moved[position] for position in wanted])
        return replace(self, rows=rows, target_positions=targets, compared_positions=[[] for _ in rows])

    def positions(self, row: int) -> list[int]:
        """The positions of a row at which a distribution is wanted, for its response or to compare; ascending."""
        return sorted({*(target - 1 for target in self.target_positions[row]), *self.compared_positions[row]})

    def num_target_tokens(self, rows: int) -> int:
        """Tokens of the first rows' reference responses."""
        return sum(map(len, self.target_positions[:rows]))

    def max_length(self) -> int:
        """Tokens of the longest row or prompt."""
        return max(map(len, [*self.rows, *self.prompts]))


@dataclass(frozen=True)
class ProbeResult:
    """One model's results: distributions at the compared positions, ln p of each row's response, and its completions.

    top_logprobs: of each completion, the likeliest tokens at every position, its end included: {id: ln p}, the
    likeliest first.
    """

    distributions: np.ndarray
    row_logprobs: list[float]
    completions: list[list[int]] = field(default_factory=list)
    top_logprobs: list[list[dict[int, float]]] = field(default_factory=list)

    def with_rows(self, more: ProbeResult) -> ProbeResult:
        """The same as if the rows of `more` had been read after these; they are compared with nothing."""
        return replace(self, row_logprobs=self.row_logprobs + more.row_logprobs)


def make_probes(renderer: Renderer, rows: Sequence[DataRecord], limits: ProbeLimits, *, vocab_size: int) -> ProbeSet:
    """Take rows evenly from the test rows that can be rendered, and the prompts of the first ones.

    Where few tokens of a row are read at first, twice as many are in each look after that: what the first rows do not
    decide, the whole of long answers may.
    """
    taken = spread(rows, limits.rows, partial(_rendered, renderer))
    chosen = [row for row, _ in taken]
    rendered = [_cut(renderer, limits.row_tokens, row) for _, row in taken]
    lengths = [len(row.ids) for row in rendered]
    first_look = len(rendered) if limits.tokens is None else _enough_rows(lengths, limits.tokens)
    for look, (start, end) in enumerate(later_looks(first_look, len(taken)), 1):
        row_tokens = min(MAX_TOKENS, limits.row_tokens << look)
        rendered[start:end] = [_cut(renderer, row_tokens, row) for _, row in taken[start:end]]
    ids = [row.ids for row in rendered]
    chats = [row for row in chosen if "messages" in row]
    texts = [renderer.conversation_text(row["messages"], row.get("tools")) for row in chats]
    return ProbeSet(
        rows=ids,
        target_positions=[[i for i, hit in enumerate(row.loss_mask) if hit and i] for row in rendered],
        compared_positions=compared_positions(ids[:first_look], vocab_size) + [[] for _ in ids[first_look:]],
        prompts=[_prompt(renderer, limits.row_tokens, row) for row in chats[: limits.prompts]],
        texts=texts + [row["text"] for row in chosen if "text" in row],
        conversations=[row["messages"] for row in chats],
        stop_ids=frozenset(renderer.stop_ids),
        limits=limits,
        first_look=first_look,
        uses_tools=any(map(uses_tools, chats)),
        virtual_ids=renderer.virtual_ids,
    )


def later_looks(first: int, rows: int) -> Iterator[tuple[int, int]]:
    """Where the rows of each look after the first begin and end: as many as were read before it."""
    while first < rows:
        yield first, min(2 * first, rows)
        first *= 2


def _rendered(renderer: Renderer, row: DataRecord) -> tuple[DataRecord, Rendered] | None:
    """A row as it is and as it was trained; None for one that the chat template refuses."""
    found = renderer.record_or_reason(row)
    return None if isinstance(found, str) else (row, found)


def _cut(renderer: Renderer, max_tokens: int, row: Rendered) -> Rendered:
    """What is read of a row."""
    whole_prompt = 2 * (1 + len(renderer.virtual_ids))  # half of what is read may be a row's beginning
    return cut_around_answer(row, max(max_tokens, whole_prompt), renderer.virtual_ids)


def _enough_rows(lengths: list[int], tokens: int) -> int:
    """How many rows hold so many tokens; never fewer than FEWEST_ROWS."""
    held = 0
    for count, length in enumerate(lengths):
        if held + length > tokens and count >= FEWEST_ROWS:
            return count
        held += length
    return len(lengths)


def _prompt(renderer: Renderer, max_tokens: int, row: DataRecord) -> list[int]:
    """The conversation up to its last response: its beginning, and as much of its end as is read of a row."""
    messages = row["messages"]
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    ids = renderer.prompt_ids(messages[:last], row.get("tools"))
    return _cut(renderer, max_tokens, Rendered(ids, [False] * (len(ids) - 1) + [True])).ids


def compared_positions(rows: list[list[int]], vocab_size: int) -> list[list[int]]:
    """Positions spread evenly over all that are no other row's too, as many as MAX_BYTES holds distributions."""
    own = _own_positions(rows)
    total = sum(map(len, own))
    budget = min(MAX_POSITIONS, max(1, MAX_BYTES // (4 * vocab_size)), total)
    chosen = {i * total // budget for i in range(budget)}
    positions, start = [], 0
    for row in own:
        positions.append([position for i, position in enumerate(row) if start + i in chosen])
        start += len(row)
    return positions


def _own_positions(rows: list[list[int]]) -> list[list[int]]:
    """The positions of each row up to which it is not the beginning of an earlier one.

    What a chat template puts before every conversation would else be compared in every row, and one near-tie there
    counted as often.
    """
    known: dict[tuple[int, int], int] = {}  # (what was read so far, the next id): what is read then
    own: list[list[int]] = []
    for row in rows:
        read, new = 0, []
        for position, token in enumerate(row):
            before = len(known)
            read = known.setdefault((read, token), before + 1)
            if len(known) > before:
                new.append(position)
        own.append(new)
    return own


def run_probes(
    model: LanguageModel, probes: ProbeSet, *, generate: bool = True, keep_top_logprobs: bool = False
) -> ProbeResult:
    """Give the probes to one model.

    generate: its greedy completions too; keep_top_logprobs: also the likeliest tokens along them, so that others can be
    compared with this model.
    """
    distributions, totals = [], [0.0] * len(probes.rows)
    numbers = [number for number in range(len(probes.rows)) if probes.positions(number)]
    positions = [probes.positions(number) for number in numbers]
    results = model.next_token_logprobs([probes.rows[number] for number in numbers], positions)
    results = progress(results, "probing", len(numbers))
    for number, wanted, logprobs in zip(numbers, positions, results, strict=True):
        index = {position: i for i, position in enumerate(wanted)}
        ids = probes.rows[number]
        targets = probes.target_positions[number]
        totals[number] = float(sum(logprobs[index[target - 1], ids[target]] for target in targets))
        compared = logprobs[[index[position] for position in probes.compared_positions[number]]]
        distributions.append(compared[:, : probes.words])
    completions = greedy_completions(model, probes) if generate and probes.prompts else []
    top = [top_logprobs(model, *pair) for pair in zip(probes.prompts, completions, strict=False) if keep_top_logprobs]
    return ProbeResult(np.concatenate(distributions) if numbers else NOTHING_COMPARED, totals, completions, top)


def probe_and_close(model: LanguageModel, probes: ProbeSet, *, generate: bool) -> ProbeResult:
    """Give the probes to a model that is not needed after that."""
    try:
        return run_probes(model, probes, generate=generate)
    finally:
        model.close()


def greedy_completions(model: LanguageModel, probes: ProbeSet) -> list[list[int]]:
    """The new ids of each prompt's greedy completion."""
    requests = [GenerationRequest(prompt, probes.limits.max_new_tokens) for prompt in probes.prompts]
    completions = model.generate(requests, stop_ids=probes.stop_ids, sampling=Sampling())
    return [completion.ids for completion in sorted(progress(completions, "answering", len(requests), unit="answers"))]


def top_logprobs(model: LanguageModel, prompt: Sequence[int], completion: Sequence[int]) -> list[dict[int, float]]:
    """The likeliest tokens at every position of a completion, as `ProbeResult.top_logprobs` holds them."""
    ids = [*prompt, *completion]
    (logprobs,) = model.next_token_logprobs([ids], [range(len(prompt) - 1, len(ids))])
    order = np.argsort(-logprobs, axis=-1)[:, :TOP_K]
    return [{int(token): float(row[token]) for token in likely} for row, likely in zip(logprobs, order, strict=True)]


def compare(baseline_name: str, baseline: ProbeResult, other: ProbeResult) -> VariantFidelity:
    """How far a model is from its baseline: the distance of distributions and the completions that are the same."""
    return msgspec.structs.replace(
        distance(baseline, other),
        baseline=baseline_name,
        greedy_same=same_completions(baseline, other) if other.completions else None,
        greedy_total=len(baseline.completions) if other.completions else None,
    )


def same_completions(baseline: ProbeResult, other: ProbeResult) -> int:
    """How many prompts two models complete with the same ids."""
    return sum(a == b for a, b in zip(baseline.completions, other.completions, strict=True))


def divergence_margin(reference: ProbeResult, other: ProbeResult, stop_ids: Set[int]) -> float | None:
    """Largest log-probability margin (nats) of the reference's token at the first differing token; None if all match.

    Rounding alone makes completions differ where a model is undecided, and then the margin is small; a token that is
    not among the TOP_K counts as the last of them.
    """
    margins = []
    for ours, theirs, likely_at in zip(reference.completions, other.completions, reference.top_logprobs, strict=True):
        if ours == theirs:
            continue
        shorter = min(len(ours), len(theirs))
        at = next((i for i in range(shorter) if ours[i] != theirs[i]), shorter)
        chosen = {theirs[at]} if at < len(theirs) else stop_ids
        likely = likely_at[at]
        of_chosen = [likely[token] for token in chosen if token in likely]
        margins.append(max(likely.values()) - max(of_chosen, default=min(likely.values())))
    return round(max(margins), 6) if margins else None


def distance(baseline: ProbeResult, other: ProbeResult) -> VariantFidelity:
    """The distance of two models' next-token distributions; their vocabularies may be padded to different sizes."""
    width = min(baseline.distributions.shape[1], other.distributions.shape[1])
    ours, theirs = baseline.distributions[:, :width], other.distributions[:, :width]
    positions, step = len(ours), max(1, COMPARED_AT_ONCE // max(width, 1))
    largest = np.zeros(positions, np.float32)
    gap_sum = kl_sum = 0.0
    same_top = not_finite = 0
    for start in range(0, positions, step):
        part = slice(start, start + step)
        apart = ours[part] - theirs[part]
        kl_sum += float(np.nansum(np.exp(ours[part]) * apart, dtype=np.float64))
        gap = np.abs(apart, out=apart)
        largest[part] = np.nanmax(gap, axis=-1, initial=0.0)
        gap_sum += float(np.nansum(gap, dtype=np.float64))
        same_top += int((ours[part].argmax(-1) == theirs[part].argmax(-1)).sum())
        not_finite += int((~np.isfinite(theirs[part])).any(-1).sum())
    return VariantFidelity(
        max_dlogp=round(float(largest.max(initial=0.0)), 6),
        most_dlogp=round(float(np.quantile(largest, MOST_POSITIONS)), 6) if positions else None,
        mean_dlogp=round(gap_sum / max(positions * width, 1), 8),
        kl=round(max(kl_sum, 0.0) / max(positions, 1), 10),
        top1=round(same_top / max(positions, 1), 6),
        positions=positions,
        not_finite=not_finite,
    )
