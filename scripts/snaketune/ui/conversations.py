"""Questions to several models at once: blind until the vote, streamed, and kept in results/<run>/chat.jsonl."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from snaketune.config.experiments import expand
from snaketune.config.sections import load
from snaketune.contracts.data import Message
from snaketune.errors import BusyError, ConfigError, EvaluationError
from snaketune.files import read_json
from snaketune.runtime.engine import choose_engine
from snaketune.ui.answering import ModelName
from snaketune.ui.chat_worker import AnswerPart, Question
from snaketune.ui.project import Project

FILE = "chat.jsonl"
IDLE = 600.0  # seconds after which the models leave the memory
MAX_MODELS = 4
MAX_QUESTION = 20_000  # characters
MAX_FOLLOWED = 50  # questions of one conversation
LONGEST_LINE = 16 << 20  # bytes of an answer from the worker
TIE = "tie"


class ChatEntry(msgspec.Struct, kw_only=True):
    """A question with its answers in the order in which they are shown. vote: the place of the best one, or `tie`.

    after: the question that it follows in one conversation, where each model goes on with its own answers.
    """

    id: str
    question: str
    models: list[ModelName]
    answers: list[str]
    blind: bool = True
    vote: int | str | None = None
    after: str = ""


class ShownQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question as the page may show it: names only after the vote, or where it was not blind."""

    id: str
    question: str
    answers: list[str]
    names: list[str] | None
    vote: int | str | None
    after: str


class AnswerUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What streams to the page: the answer at a place has grown, or ended."""

    id: str
    place: int
    text: str
    end: bool
    error: str


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How often a model was preferred among those that it stood beside."""

    name: str
    wins: int
    compared: int


def name_of(model: ModelName) -> str:
    """What the page calls a model."""
    return f"{model.run}: {model.variant}"


def read_chat(folder: Path) -> list[ChatEntry]:
    """All questions to a run, in their order; of several lines about one, the last counts."""
    found: dict[str, ChatEntry] = {}
    decode = msgspec.json.Decoder(ChatEntry).decode
    with contextlib.suppress(OSError):
        for line in (folder / FILE).read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):  # cut off by a kill
                one = decode(line)
                found[one.id] = one
    return list(found.values())


def append_entry(folder: Path, one: ChatEntry) -> None:
    """Append a question, or what is new about it."""
    with open(folder / FILE, "ab") as out:
        out.write(msgspec.json.encode(one) + b"\n")


def shown(one: ChatEntry) -> ShownQuestion:
    """A question without what a judge must not know yet."""
    is_open = not one.blind or one.vote is not None
    names = [name_of(model) for model in one.models] if is_open else None
    return ShownQuestion(
        id=one.id, question=one.question, answers=one.answers, names=names, vote=one.vote, after=one.after
    )


def turns_before(known: Mapping[str, ChatEntry], one: ChatEntry, place: int) -> list[Message]:
    """The conversation that a question goes on with, as the model at a place has it."""
    turns: list[Message] = []
    earlier = known.get(one.after)
    while earlier is not None and len(turns) < 2 * MAX_FOLLOWED:
        answer: Message = {"role": "assistant", "content": earlier.answers[place]}
        turns[:0] = [{"role": "user", "content": earlier.question}, answer]
        earlier = known.get(earlier.after)
    return turns


def tally(entries: list[ChatEntry]) -> list[Tally]:
    """Votes by model, the most preferred first; a tie is a comparison that nobody wins."""
    wins, compared = Counter[str](), Counter[str]()
    for one in entries:
        if one.vote is not None and one.blind:
            compared.update(set(map(name_of, one.models)))
            if isinstance(one.vote, int):
                wins[name_of(one.models[one.vote])] += 1
    names = sorted(compared, key=lambda name: (-wins[name] / compared[name], name))
    return [Tally(name=name, wins=wins[name], compared=compared[name]) for name in names]


@dataclass
class Conversations:
    """Asks the models of a run in a worker process, which is ended when it is not needed."""

    project: Project
    worker: asyncio.subprocess.Process | None = None
    waiting: dict[str, ChatEntry] = field(default_factory=dict)
    _engine: str = ""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _idle: asyncio.TimerHandle | None = None

    def prepare(self, question: str, models: list[ModelName], *, blind: bool) -> ChatEntry:
        """Note a question; blind: the models are shown in an order that only this process knows."""
        if not 1 <= len(models) <= MAX_MODELS:
            raise ConfigError(f"choose 1 to {MAX_MODELS} models", where="models")
        for model in models:
            self.project.run_folder(model.run)
        return self._note(question, random.sample(models, len(models)) if blind else models, blind=blind)

    def follow(self, question: str, earlier: ChatEntry) -> ChatEntry:
        """Note a question that goes on after an earlier one, to the same models in the same places."""
        is_blind = earlier.blind and earlier.vote is None  # the names are known after a vote
        return self._note(question, earlier.models, blind=is_blind, after=earlier.id)

    def _note(self, question: str, models: list[ModelName], *, blind: bool, after: str = "") -> ChatEntry:
        if not question.strip() or len(question) > MAX_QUESTION:
            raise ConfigError("a question has between 1 and 20,000 characters", where="question")
        one = ChatEntry(
            id=secrets.token_hex(8),
            question=question,
            models=models,
            answers=[""] * len(models),
            blind=blind,
            after=after,
        )
        self.waiting[one.id] = one
        return one

    async def stream(self, run: str, identifier: str, *, greedy: bool) -> AsyncIterator[AnswerUpdate]:
        """The answers to a question that was prepared, as they grow; kept in the run's folder at their end."""
        one = self.waiting.pop(identifier, None)
        if one is None:
            raise ConfigError("this question was answered already", fix="Ask it again")
        if self._lock.locked():
            raise BusyError("another question is being answered", fix="Wait for it")
        async with self._lock:
            worker = await self._started(run)
            assert worker.stdin
            known = {entry.id: entry for entry in read_chat(self.project.run_folder(run))}
            prompt: Message = {"role": "user", "content": one.question}
            question = Question(
                id=one.id,
                messages=[[*turns_before(known, one, place), prompt] for place in range(len(one.models))],
                models=one.models,
                greedy=greedy,
                seed=secrets.randbelow(2**31),
            )
            worker.stdin.write(msgspec.json.encode(question) + b"\n")
            try:
                async for part in self._parts(worker, len(one.models)):
                    one.answers[part.place] = part.text
                    yield AnswerUpdate(id=one.id, place=part.place, text=part.text, end=part.end, error=part.error)
            except (GeneratorExit, asyncio.CancelledError):
                self.end()  # the page went away in the middle of an answer
                raise
            append_entry(self.project.run_folder(run), one)
            self._end_when_idle()

    async def _parts(self, worker: asyncio.subprocess.Process, count: int) -> AsyncIterator[AnswerPart]:
        """The worker's replies to one question."""
        assert worker.stdout
        decode = msgspec.json.Decoder(AnswerPart).decode
        while count:
            line = await worker.stdout.readline()
            if not line:
                raise EvaluationError(
                    "the process that answers has ended",
                    why="It may have been short of memory",
                    fix="Ask fewer models at once; .ui/answers.log in results has its last words",
                )
            part = decode(line)
            count -= part.end
            yield part

    async def _started(self, run: str) -> asyncio.subprocess.Process:
        """The worker, started if none is there, or if the run's engine is another one."""
        config = load(read_json(self.project.run_folder(run) / "config.json"))
        engine = choose_engine(config, [one.model for one in expand(config).values()]).name
        if self.worker and self.worker.returncode is None and self._engine == engine:
            return self.worker
        self.end()
        log = self.project.results / ".ui" / "answers.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as output:
            self.worker = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "snaketune.ui.chat_worker",
                cwd=self.project.root,
                env=os.environ | {"PYTHONPATH": str(self.project.root / "scripts"), "SNAKETUNE_ENGINE": engine},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                limit=LONGEST_LINE,
            )
        self._engine = engine
        return self.worker

    def _end_when_idle(self) -> None:
        if self._idle:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE, self.end)

    def end(self) -> None:
        """End the worker, which frees the models' memory."""
        if self.worker and self.worker.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.worker.kill()
        self.worker = None
