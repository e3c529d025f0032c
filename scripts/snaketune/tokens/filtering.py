"""What the model will make of each row, known before training: kept, cut or dropped, and why.

The verdicts on characters are given in verdicts.py, without a model; these need its tokenizer and its chat template.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from snaketune.data.records import texts
from snaketune.errors import DataError
from snaketune.tokens.chat_template import Rendered, Renderer

REASONS = {
    "too-long": "more tokens than data.max_length",
    "answer-cut-off": "its answer begins beyond data.max_length, so nothing of it would be trained",
    "no-trained-token": "no token of it would be trained",
    "special-token": "its content holds a special token of the model, with which it could forge a turn",
    "not-shown": "the chat template refuses it, or does not show it as it is written",
}


@dataclass(frozen=True)
class Verdict:
    """action: keep, cut or drop; reason: of REASONS, or nothing; rendered: what is trained on, None when dropped.

    tokens: the length of the whole row, before anything is cut (0 where it could not be rendered).
    """

    action: str
    tokens: int
    rendered: Rendered | None = None
    reason: str = ""
    detail: str = ""


class TokenJudge:
    """Gives records their token-level verdicts. data: the data section (max_length, on_too_long)."""

    def __init__(self, renderer: Renderer, data: dict[str, Any]) -> None:
        self.renderer = renderer
        self.longest: int = data["max_length"]
        self.cuts: bool = data["on_too_long"] == "truncate"
        tokens = sorted(renderer.special_tokens, key=lambda token: (-len(token), token))
        self.forgery = re.compile("|".join(map(re.escape, tokens))) if tokens else None

    def verdict(self, record: dict[str, Any]) -> Verdict:
        """The verdict on one record of records.jsonl."""
        import jinja2

        forged = self._forged(record)
        if forged and "text" not in record:
            return Verdict("drop", 0, reason="special-token", detail=f"it contains {forged}")
        try:
            rendered = self.renderer.record(record)
        except (DataError, jinja2.TemplateError) as error:
            return Verdict("drop", 0, reason="not-shown", detail=str(error).splitlines()[0])
        tokens = len(rendered.ids)
        # The first token is predicted from nothing, so it is never a target.
        if not any(rendered.trained[1:]):
            return Verdict("drop", tokens, reason="no-trained-token", detail=f"{tokens} tokens, none of them a target")
        if tokens > self.longest:
            return self._too_long(rendered, tokens)
        if forged:  # a text that was rendered by hand may hold turns on purpose
            return Verdict("keep", tokens, rendered, "special-token", f"it contains {forged}")
        return Verdict("keep", tokens, rendered)

    def _too_long(self, rendered: Rendered, tokens: int) -> Verdict:
        over = f"{tokens} tokens; data.max_length is {self.longest}"
        if not self.cuts:
            return Verdict("drop", tokens, reason="too-long", detail=over)
        cut = Rendered(rendered.ids[: self.longest], rendered.trained[: self.longest])
        if not any(cut.trained[1:]):
            return Verdict("drop", tokens, reason="answer-cut-off", detail=over)
        lost = sum(rendered.trained[self.longest :])
        return Verdict("cut", tokens, cut, "too-long", f"{over}; {lost} trained tokens at its end are lost")

    def _forged(self, record: dict[str, Any]) -> str:
        """The first special token in anything that the row's author wrote."""
        if self.forgery:
            for text in texts(record):
                found = self.forgery.search(text)
                if found:
                    return found[0]
        return ""


def listed(record: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    """A verdict as it stands in tokens.json."""
    return {
        "id": record["id"],
        "source": record["source"],
        "line": record["line"],
        "action": verdict.action,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "tokens": verdict.tokens,
    }
