"""The same questions for every form of a model, and its answers in a form that can be compared."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snaketune.engines.interface import LanguageModel
from snaketune.package.distribution_distance import Distance
from snaketune.package.modelfile import uses_tools
from snaketune.tokens.chat_template import Renderer

LONGEST = 512  # tokens of a row that are read
MEMORY = 256 << 20  # bytes of distributions kept to compare with
MOST_PLACES = 2048
FEW_ROWS, FEW_TOKENS = 4, 128  # of a model that is read layer by layer
LIKELIEST = 8  # tokens whose probabilities are kept at each place of an answer


@dataclass
class Sample:
    """What every model is asked: rows of ids, the places after which its distribution is wanted, and prompts.

    targets[i] are the positions in rows[i] of the ids to predict, kept[i] the places whose whole distribution is
    compared; a distribution at place p predicts the id at p + 1.
    """

    rows: list[list[int]]
    targets: list[list[int]]
    kept: list[list[int]]
    prompts: list[list[int]]
    texts: list[str]
    conversations: list[list[dict[str, Any]]]
    tools: bool = False
    """Whether any row uses tools."""

    def places(self, row: int) -> list[int]:
        """Where a distribution of this row is wanted, for its answer or for the comparison; ascending."""
        return sorted({*(target - 1 for target in self.targets[row]), *self.kept[row]})

    def answer_tokens(self) -> int:
        return sum(len(targets) for targets in self.targets)

    def longest(self) -> int:
        """Tokens of the longest row or prompt."""
        return max(map(len, [*self.rows, *self.prompts]))


@dataclass
class Reading:
    """What one model said: distributions at the kept places, the log-probability of all answers, and its own.

    considered: of each of its own answers, the likeliest tokens at every place, the end included: {id: ln p}, the
    likeliest first.
    """

    kept: np.ndarray
    answer_logprob: float
    answers: list[list[int]] = field(default_factory=list)
    considered: list[list[dict[int, float]]] = field(default_factory=list)


def sample(
    renderer: Renderer, rows: Sequence[dict[str, Any]], *, count: int, prompts: int, vocabulary: int, fits: bool = True
) -> Sample:
    """Take `count` rows evenly from the test rows, at most LONGEST tokens of each, and the first turns as prompts.

    fits: whether the model fits into memory in float32; a few short rows and no prompts are taken if it does not.
    """
    count, prompts = (count, prompts) if fits else (min(count, FEW_ROWS), 0)
    longest = LONGEST if fits else FEW_TOKENS
    chosen = [rows[i * len(rows) // count] for i in range(count)] if len(rows) > count else list(rows)
    rendered = [renderer.record(row) for row in chosen]
    ids = [one.ids[:longest] for one in rendered]
    targets = [[i for i, hit in enumerate(one.trained[:longest]) if hit and i] for one in rendered]
    talks = [row for row in chosen if "messages" in row]
    texts = [renderer.conversation_text(row["messages"], row.get("tools")) for row in talks]
    texts += [row["text"] for row in chosen if "text" in row]
    asked = [renderer.prompt(_question(row["messages"]), row.get("tools"))[-LONGEST:] for row in talks[:prompts]]
    spoken = [row["messages"] for row in talks]
    return Sample(ids, targets, _kept(ids, vocabulary), asked, texts, spoken, any(map(uses_tools, talks)))


def _question(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation up to its last answer."""
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    return messages[:last]


def _kept(rows: list[list[int]], vocabulary: int) -> list[list[int]]:
    """Places spread evenly over all rows, as many as MEMORY holds distributions."""
    total = sum(len(row) for row in rows)
    budget = min(MOST_PLACES, max(1, MEMORY // (4 * vocabulary)), total)
    wanted = {i * total // budget for i in range(budget)}
    kept, start = [], 0
    for row in rows:
        kept.append([i for i in range(len(row)) if start + i in wanted])
        start += len(row)
    return kept


def read(model: LanguageModel, asked: Sample) -> Reading:
    """The distributions of the rows, in one pass of the model over them."""
    kept, total = [], 0.0
    numbers = [number for number in range(len(asked.rows)) if asked.places(number)]
    positions = [asked.places(number) for number in numbers]
    results = model.next_token_logprobs([asked.rows[number] for number in numbers], positions)
    for number, places, found in zip(numbers, positions, results, strict=True):
        at = {place: row for row, place in enumerate(places)}
        total += float(sum(found[at[target - 1], asked.rows[number][target]] for target in asked.targets[number]))
        kept.append(found[[at[place] for place in asked.kept[number]]])
    return Reading(np.concatenate(kept), total)


def considered(model: LanguageModel, prompt: Sequence[int], answer: Sequence[int]) -> list[dict[int, float]]:
    """What `Reading.considered` holds of one answer."""
    ids = [*prompt, *answer]
    (found,) = model.next_token_logprobs([ids], [range(len(prompt) - 1, len(ids))])
    order = np.argsort(-found, axis=-1)[:, :LIKELIEST]
    return [{int(token): float(row[token]) for token in likely} for row, likely in zip(found, order, strict=True)]


def compare(reference: Reading, other: Reading) -> dict[str, Any]:
    """How far `other` is from `reference`: Distance's record and how many prompts are answered alike."""
    same = same_answers(reference, other)
    return distance(reference, other) | {"greedy_same": same, "greedy_of": len(reference.answers)}


def distance(reference: Reading, other: Reading) -> dict[str, Any]:
    """How far the distributions are apart: Distance's record."""
    found = Distance()
    found.add(reference.kept, other.kept)
    return found.record()


def same_answers(reference: Reading, other: Reading) -> int:
    """How many prompts two models answer with the same ids."""
    return sum(a == b for a, b in zip(reference.answers, other.answers, strict=True))


def parting(reference: Reading, other: Reading, stop_ids: Set[int]) -> float | None:
    """Where answers part, by how many nats the reference preferred its own token: the largest; None if none part.

    Rounding alone makes answers part where a model is undecided, and then this is small; a token that is not among
    the LIKELIEST counts as the last of them.
    """
    gaps = []
    for mine, theirs, places in zip(reference.answers, other.answers, reference.considered, strict=True):
        if mine == theirs:
            continue
        shorter = min(len(mine), len(theirs))
        at = next((i for i in range(shorter) if mine[i] != theirs[i]), shorter)
        chosen = {theirs[at]} if at < len(theirs) else stop_ids
        likely = places[at]
        theirs_there = [likely[token] for token in chosen if token in likely]
        gaps.append(max(likely.values()) - max(theirs_there, default=min(likely.values())))
    return round(max(gaps), 6) if gaps else None
