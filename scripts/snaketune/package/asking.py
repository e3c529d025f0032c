"""The same questions for every form of a model, and its answers in a form that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from snaketune.model.rendering import Renderer
from snaketune.package.comparison import Distance

LONGEST = 512  # tokens of a row that are read
MEMORY = 256 << 20  # bytes of distributions kept to compare with
MOST_PLACES = 2048
FEW_ROWS, FEW_TOKENS = 4, 128  # of a model that is read layer by layer


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
    """What one model said: distributions at the kept places, the log-probability of all answers, and its own."""

    kept: np.ndarray
    answer_logprob: float
    answers: list[list[int]]


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
    spoken = [row["messages"] for row in chosen if "messages" in row]
    texts = [renderer.conversation_text(messages) for messages in spoken]
    texts += [row["text"] for row in chosen if "text" in row]
    asked = [renderer.prompt(_question(messages))[-LONGEST:] for messages in spoken[:prompts]]
    return Sample(ids, targets, _kept(ids, vocabulary), asked, texts, spoken)


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


def read(
    distributions: Callable[[Sequence[int], Sequence[int]], np.ndarray],
    answers: Callable[[Sequence[Sequence[int]]], list[list[int]]],
    asked: Sample,
) -> Reading:
    """Put the sample to one model, given as two functions: of a row's ids and places, and of prompts."""
    kept, total = [], 0.0
    for number, ids in enumerate(asked.rows):
        places = asked.places(number)
        if not places:
            continue
        found = distributions(ids, places)
        at = {place: row for row, place in enumerate(places)}
        total += float(sum(found[at[target - 1], ids[target]] for target in asked.targets[number]))
        kept.append(found[[at[place] for place in asked.kept[number]]])
    return Reading(np.concatenate(kept), total, answers(asked.prompts))


def compare(reference: Reading, other: Reading) -> dict[str, Any]:
    """How far `other` is from `reference`: Distance's record and the share of prompts answered alike."""
    distance = Distance()
    distance.add(reference.kept, other.kept)
    same = same_answers(reference, other)
    return distance.record() | {"greedy_same": same, "greedy_of": len(reference.answers)}


def same_answers(reference: Reading, other: Reading) -> int:
    """How many prompts two models answer with the same ids."""
    return sum(a == b for a, b in zip(reference.answers, other.answers, strict=True))


def in_order(answers: Iterable[tuple[int, list[int], bool]]) -> list[list[int]]:
    """The new ids of each prompt, from answers as an engine yields them."""
    return [new for _, new, _ in sorted(answers)]
