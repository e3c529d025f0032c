"""The settings that the pilot's decision depends on."""

from __future__ import annotations

from snaketune.config.sections import ModelConfig, PilotConfig
from snaketune.files import Record


class DecisionSettings(Record, frozen=True, kw_only=True):
    """experiment: the one that the pilot trained, whose `model` section and rows in a step follow.

    The rest are settings of later stages, for the forecast only. general_rows: the file of evaluate.forgetting.rows.
    """

    experiment: str
    pilot: PilotConfig
    rows_per_step: int
    model: ModelConfig
    seed: int
    max_rows: int
    max_new_tokens: int
    general_rows: str | None
    variants: list[str]
    gguf: list[str]
    threads: int
