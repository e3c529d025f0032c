"""Routes of asking: the models of a run side by side, blind until the vote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from snaketune.errors import ConfigError, UserError
from snaketune.ui import conversations
from snaketune.ui.answering import ModelName, known_models
from snaketune.ui.conversations import AnswerUpdate, ChatEntry, Conversations, ShownQuestion, Tally, name_of
from snaketune.ui.replies import body, explaining, page_of, reply
from snaketune.ui.routes import Context


class ModelChoice(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    variant: str
    name: str


class AskReply(msgspec.Struct, frozen=True, kw_only=True):
    """The models that can be asked, the latest questions first, and the votes on them."""

    models: list[ModelChoice]
    total: int
    questions: list[ShownQuestion]
    tally: list[Tally]
    command: str


class AskRequest(msgspec.Struct, forbid_unknown_fields=True):
    """after: the question that this one goes on after; its models answer then."""

    question: str
    models: list[ModelName] = msgspec.field(default_factory=list)
    blind: bool = True
    after: str = ""


class BegunReply(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    count: int


class VoteRequest(msgspec.Struct, forbid_unknown_fields=True):
    """choice: the place of the best answer, or `tie`."""

    id: str
    choice: int | str


class AskRoutes:
    """The handlers, in a server's context."""

    def __init__(self, context: Context) -> None:
        self.project, self.conversations = context.project, Conversations(context.project)

    def routes(self) -> list[Route]:
        """The routes of asking."""
        return [
            Route("/api/ask/{run}", explaining(self.show)),
            Route("/api/ask/{run}", explaining(self.ask), methods=["POST"]),
            Route("/api/ask/{run}/vote", explaining(self.vote), methods=["POST"]),
            Route("/api/ask/{run}/{id}", explaining(self.answers)),
        ]

    async def show(self, request: Request) -> Response:
        run = request.path_params["run"]
        folder = self.project.run_folder(run)
        models = await asyncio.to_thread(known_models, self.project.results, run)
        entries = conversations.read_chat(folder)
        page = page_of(request, default=20)
        return reply(
            AskReply(
                models=[ModelChoice(run=one.run, variant=one.variant, name=name_of(one)) for one in models],
                total=len(entries),
                questions=[conversations.shown(one) for one in page.of(entries[::-1])],
                tally=conversations.tally(entries),
                command=f"make chat RUN={run}",
            )
        )

    async def ask(self, request: Request) -> Response:
        run = request.path_params["run"]
        folder = self.project.run_folder(run)
        wanted = await body(request, AskRequest)
        if wanted.after:
            one = self.conversations.follow(wanted.question, _entry(folder, wanted.after))
            return reply(BegunReply(id=one.id, count=len(one.models)))
        known = known_models(self.project.results, run)
        for model in wanted.models:
            if model not in known:
                raise ConfigError(f"{name_of(model)[:80]} cannot be asked", fix="Reload the page")
        one = self.conversations.prepare(wanted.question, wanted.models, blind=wanted.blind)
        return reply(BegunReply(id=one.id, count=len(one.models)))

    async def answers(self, request: Request) -> Response:
        run, identifier = request.path_params["run"], request.path_params["id"]
        self.project.run_folder(run)
        greedy = request.query_params.get("greedy") == "true"

        async def updates() -> AsyncIterator[ServerSentEvent]:
            try:
                async for part in self.conversations.stream(run, identifier, greedy=greedy):
                    yield ServerSentEvent(msgspec.json.encode(part).decode())
            except UserError as error:
                failed = AnswerUpdate(id=identifier, place=-1, text="", end=True, error=str(error))
                yield ServerSentEvent(msgspec.json.encode(failed).decode())

        return EventSourceResponse(updates(), ping=15)

    async def vote(self, request: Request) -> Response:
        folder = self.project.run_folder(request.path_params["run"])
        wanted = await body(request, VoteRequest)
        one = _entry(folder, wanted.id)
        is_place = isinstance(wanted.choice, int) and 0 <= wanted.choice < len(one.models)
        if not is_place and wanted.choice != conversations.TIE:
            raise ConfigError("this is no choice", where="choice")
        one.vote = wanted.choice
        conversations.append_entry(folder, one)
        return reply(conversations.shown(one))


def _entry(folder: Path, identifier: str) -> ChatEntry:
    one = next((one for one in conversations.read_chat(folder) if one.id == identifier), None)
    if one is None:
        raise ConfigError("there is no such question", fix="Reload the page")
    return one
