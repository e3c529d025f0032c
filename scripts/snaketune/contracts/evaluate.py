"""What the stage `evaluate` writes."""

from __future__ import annotations

from snaketune.files import Record


class Prediction(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A line of evaluation/<variant>/{predictions,general,prompts}.jsonl, written by generate_answers.

    row: the id of the record, where one record has several predictions. answer to cut are absent for a plain text,
    reference to bytes for a prompt without a reference. stopped: whether the model ended the answer itself; cut: tokens
    that the prompt was truncated by. logprob: log-likelihood of the reference in nats; targets: the tokens that it sums
    over; bytes: length of the reference in UTF-8.
    """

    id: str
    prompt: str
    row: str | None = None
    category: str | None = None
    answer: str | None = None
    new_tokens: int | None = None
    stopped: bool | None = None
    cut: int | None = None
    reference: str | None = None
    logprob: float | None = None
    targets: int | None = None
    bytes: int | None = None
