"""How long answering takes, by what the pilot's sample took, and how many rows fit into `evaluate.max_hours`."""

from __future__ import annotations

import sys
from typing import Protocol

import msgspec

from snaketune.config.products import GGUF
from snaketune.contracts.plan import AnsweringSpeed, PilotDecision
from snaketune.evaluate.step_config import PredictionConfig
from snaketune.files import StrPath, read_json

# variants whose answers are about as long as references
TUNED_PREFIXES = ("adapter", "fused", "gguf", "mlx", "pilot", "previous")
KINDS = ("base", "prompted", "adapter")  # one variant of each speed
FEWEST_ROWS = 20  # fewer would show nothing, however long they take
HOUR = 3600.0


def seconds(variant: str, speed: AnsweringSpeed, rows: int, general: int, max_new_tokens: int) -> float:
    """Return the seconds of generating for and scoring so many test rows and general rows with one variant.

    A tuned model's answers are taken to be as long as the references, the base's as long as in the sample, and the
    prompted base's the longer of the two, since it is shown references. Prompts are read once more than whole rows.
    """
    tuned = variant.startswith(TUNED_PREFIXES)
    scored, token = speed.scored, speed.tuned if tuned else speed.base
    if (gguf := speed.gguf.get(variant.removeprefix(GGUF))) is not None:
        scored, token = gguf.read, gguf.together
    tokens = speed.reference_tokens if tuned else speed.base_tokens
    if variant == "prompted":
        tokens = max(speed.reference_tokens, speed.base_tokens)
    read = speed.row_tokens + max(0.0, speed.row_tokens - speed.reference_tokens)
    new = (rows + general) * min(max_new_tokens, tokens)
    return speed.start + new * token + (rows + general * speed.general) * read * scored


class AnsweringLimits(Protocol):
    """What limits the answers: the keys of these names in the section `evaluate`."""

    @property
    def max_rows(self) -> int: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def max_hours(self) -> float | None: ...


def rows_in_time(speed: AnsweringSpeed, limits: AnsweringLimits, general: int) -> int:
    """Return how many rows, at most `max_rows`, the slowest kind of variant answers within `max_hours`.

    general: rows of the general set, of which as many are answered as of the test rows. The same number for every
    variant, whichever a run has, so that they can be compared; never fewer than FEWEST_ROWS.
    """
    variants = [*KINDS, *(f"{GGUF}{kind}" for kind in speed.gguf)]
    if limits.max_hours is None:
        return limits.max_rows
    for rows in range(limits.max_rows, FEWEST_ROWS, -1):
        both = rows, min(rows, general)
        slowest = max(seconds(variant, speed, *both, limits.max_new_tokens) for variant in variants)
        if slowest <= limits.max_hours * HOUR:
            return rows
    return min(limits.max_rows, FEWEST_ROWS)


def within_hours(config: PredictionConfig, decision: StrPath, general: StrPath | None = None) -> PredictionConfig:
    """Return the settings with so many rows as `max_hours` allows, by the pilot's decision; general: the set's file."""
    speed = read_json(decision, type=PilotDecision).forecast.answering
    if speed is None:
        return config
    rows = rows_in_time(speed, config, num_lines(general))
    if rows < config.max_rows:
        print(
            f"snaketune: at most {rows} rows are answered: {config.max_rows} would take longer than "
            f"evaluate.max_hours ({config.max_hours:g}) with one model, by the pilot's forecast",
            file=sys.stderr,
        )
    return msgspec.structs.replace(config, max_rows=rows)


def num_lines(path: StrPath | None) -> int:
    """Return the rows of a JSON Lines file; 0 without one."""
    if path is None:
        return 0
    with open(path, "rb") as lines:
        return sum(1 for _ in lines)
