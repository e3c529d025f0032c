"""Answers questions in a process of its own: `python -m snaketune.ui.chat_worker`, one JSON object a line each way.

The models answer in turn, a token each, so that all answers grow side by side. The process ends with its input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from snaketune.contracts.data import Message
from snaketune.errors import UserError
from snaketune.run_definition import RESULTS
from snaketune.runtime.step import block_torch
from snaketune.ui.answering import Answerers, ModelName


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question to some models. messages: for each of them, its conversation with the question at the end."""

    id: str
    messages: list[list[Message]]
    models: list[ModelName]
    greedy: bool
    seed: int


class AnswerPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model has written so far. place: its index in the question's models; end: nothing more will come."""

    id: str
    place: int
    text: str = ""
    end: bool = False
    error: str = ""


def main() -> None:
    """Answer every question of standard input."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints is no reply
    block_torch()
    answerers = Answerers(Path(RESULTS))
    decode = msgspec.json.Decoder(Question).decode
    for line in sys.stdin.buffer:
        for part in answer(answerers, decode(line)):
            _send(replies, part)


def answer(answerers: Answerers, question: Question) -> Iterator[AnswerPart]:
    """The parts of all answers, in turn."""
    writing: dict[int, Iterator[str]] = {}
    last: dict[int, str] = {}
    for place, name in enumerate(question.models):
        try:
            messages = question.messages[place]
            writing[place] = answerers.get(name).answer(messages, greedy=question.greedy, seed=question.seed)
        except (UserError, OSError) as error:
            yield AnswerPart(id=question.id, place=place, end=True, error=str(error))
    while writing:
        for place in list(writing):
            try:
                text = next(writing[place], None)
            except UserError as error:
                del writing[place]
                yield AnswerPart(id=question.id, place=place, end=True, error=str(error))
                continue
            if text is None:
                del writing[place]
                yield AnswerPart(id=question.id, place=place, text=last.get(place, ""), end=True)
            else:
                last[place] = text
                yield AnswerPart(id=question.id, place=place, text=text)


def _send(replies: IO[bytes], part: AnswerPart) -> None:
    replies.write(msgspec.json.encode(part) + b"\n")


if __name__ == "__main__":
    main()
