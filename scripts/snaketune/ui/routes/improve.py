"""Routes of improving: failures by group, marks and corrections, logs of real use, and the next version."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from snaketune.contracts.data import Message
from snaketune.errors import ConfigError, EvaluationError
from snaketune.files import read_jsonl
from snaketune.ui import client_log, conversations, failures, next_version
from snaketune.ui.client_log import Unusable
from snaketune.ui.failures import Failure, FailureGroup, Failures, NearRow
from snaketune.ui.feedback import FOLDER, Feedback, FeedbackRow, Mark, Origin, held_out_questions
from snaketune.ui.next_version import NextRequest, NextVersionMaker
from snaketune.ui.replies import body, explaining, page_of, read_limited, reply
from snaketune.ui.routes import Context

MAX_LOG = 200_000_000  # bytes of a client's log


class MarkRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What a person says of an answer. id: of the chat entry, the test question or the logged answer; place: in it."""

    origin: Origin
    id: str
    mark: Mark
    place: int = 0
    response: str = ""


class MarkReply(msgspec.Struct, frozen=True, kw_only=True):
    use: str
    file: str


class ImproveReply(msgspec.Struct, frozen=True, kw_only=True):
    """The overview: groups of failures, and the feedback so far by its use."""

    variant: str | None
    total: int
    right: int
    groups: list[FailureGroup]
    why: str
    uses: dict[str, int]
    file: str
    suggested_name: str


class MarkedFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A failure with what was said of it so far."""

    failure: Failure
    mark: str
    response: str


class FailuresReply(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    rows: list[MarkedFailure]


class NearestReply(msgspec.Struct, frozen=True, kw_only=True):
    rows: list[NearRow]


class FeedbackReply(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    rows: list[FeedbackRow]


class LogReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a log held; added: rows of feedback, known: those that were there already."""

    added: int
    known: int
    unmarked: int
    unusable_count: int
    unusable: list[Unusable]
    file: str


class ImproveRoutes:
    """The handlers, in a server's context."""

    def __init__(self, context: Context) -> None:
        self.project = context.project
        self._failures: dict[Path, tuple[int, Failures]] = {}

    def routes(self) -> list[Route]:
        """The routes of improving."""
        return [
            Route("/api/improve/{run}", explaining(self.overview)),
            Route("/api/improve/{run}/rows", explaining(self.rows)),
            Route("/api/improve/{run}/nearest", explaining(self.nearest)),
            Route("/api/feedback/{run}", explaining(self.feedback)),
            Route("/api/feedback/{run}", explaining(self.mark), methods=["POST"]),
            Route("/api/logs/{run}", explaining(self.log), methods=["POST"]),
            Route("/api/next/{run}", explaining(self.next), methods=["POST"]),
        ]

    def _of(self, run: str) -> Failures:
        """The failures of a run, read again when it has been evaluated anew."""
        folder = self.project.run_folder(run)
        path = folder / "evaluation" / "comparison.json"
        changed = path.stat().st_mtime_ns if path.is_file() else 0
        if self._failures.get(folder, (-1, None))[0] != changed:
            self._failures[folder] = changed, Failures(folder)
        return self._failures[folder][1]

    async def overview(self, request: Request) -> Response:
        run = request.path_params["run"]
        feedback = Feedback(self.project, run)
        uses: dict[str, int] = {}
        for row in feedback.rows():
            uses[row.use] = uses.get(row.use, 0) + 1
        found, why = None, ""
        try:
            found = await asyncio.to_thread(self._of, run)
        except (EvaluationError, OSError) as error:
            why = str(error)
        return reply(
            ImproveReply(
                variant=found.variant if found else None,
                total=len(found.rows) if found else 0,
                right=sum(one.kind == failures.RIGHT for one in found.rows) if found else 0,
                groups=found.groups()[:100] if found else [],
                why=why,
                uses=uses,
                file=f"{FOLDER}/{run}.jsonl",
                suggested_name=next_version.suggested_name(run),
            )
        )

    async def rows(self, request: Request) -> Response:
        run, given = request.path_params["run"], request.query_params
        found = await asyncio.to_thread(self._of, run)
        chosen = found.of_group(given.get("category", ""), given.get("length", ""), given.get("kind", ""))
        marks = {row.row: row for row in Feedback(self.project, run).rows() if row.origin == "test"}
        page = page_of(request, default=20)
        return reply(
            FailuresReply(
                total=len(chosen),
                rows=[
                    MarkedFailure(
                        failure=one,
                        mark=marks[one.id].mark if one.id in marks else "",
                        response=marks[one.id].response if one.id in marks else "",
                    )
                    for one in page.of(chosen)
                ],
            )
        )

    async def nearest(self, request: Request) -> Response:
        run = request.path_params["run"]
        one = (await asyncio.to_thread(self._of, run)).by_id(request.query_params.get("id", ""))
        train = self.project.run_folder(run) / "data" / "train.jsonl"
        found = await asyncio.to_thread(failures.nearest_rows, train, one.question) if train.is_file() else []
        return reply(NearestReply(rows=found))

    async def feedback(self, request: Request) -> Response:
        rows = Feedback(self.project, request.path_params["run"]).rows()
        origin = request.query_params.get("origin", "")
        chosen = [row for row in rows if origin in ("", row.origin)]
        order = sorted(chosen, key=lambda row: row.mark != "bad")  # what waits for a correction first
        return reply(FeedbackReply(total=len(order), rows=page_of(request, default=20).of(order)))

    async def mark(self, request: Request) -> Response:
        run = request.path_params["run"]
        wanted = await body(request, MarkRequest)
        feedback = Feedback(self.project, run)
        row = await asyncio.to_thread(self._row, run, wanted, feedback)
        saved = await asyncio.to_thread(feedback.add, row)
        return reply(MarkReply(use=saved.use, file=f"{FOLDER}/{run}.jsonl"))

    def _row(self, run: str, wanted: MarkRequest, feedback: Feedback) -> FeedbackRow:
        """The feedback row for what a person said; ConfigError for an answer that is not there."""
        response = wanted.response if wanted.mark == "corrected" else ""
        if wanted.origin == "log":
            known = next((one for one in feedback.rows() if (one.origin, one.row) == ("log", wanted.id)), None)
            if known is None:
                raise ConfigError("there is no such answer", fix="Reload the page")
            return msgspec.structs.replace(known, mark=wanted.mark, response=response)
        messages, answer, variant, category = (
            self._of_chat(run, wanted) if wanted.origin == "chat" else self._of_test(run, wanted)
        )
        name = f"{wanted.id}-{wanted.place}" if wanted.origin == "chat" else wanted.id
        return FeedbackRow(
            messages=messages,
            answer=answer,
            mark=wanted.mark,
            run=run,
            variant=variant,
            origin=wanted.origin,
            row=name,
            use="marked",
            response=response,
            category=category,
        )

    def _of_chat(self, run: str, wanted: MarkRequest) -> tuple[list[Message], str, str, str]:
        known = {one.id: one for one in conversations.read_chat(self.project.run_folder(run))}
        one = known.get(wanted.id)
        if one is None or not 0 <= wanted.place < len(one.models):
            raise ConfigError("there is no such answer", fix="Reload the page")
        question: Message = {"role": "user", "content": one.question}
        messages = [*conversations.turns_before(known, one, wanted.place), question]
        return messages, one.answers[wanted.place], conversations.name_of(one.models[wanted.place]), ""

    def _of_test(self, run: str, wanted: MarkRequest) -> tuple[list[Message], str, str, str]:
        found = self._of(run)
        one = found.by_id(wanted.id)
        name, _, turn = wanted.id.partition("#")
        path = self.project.run_folder(run) / "data" / "test.jsonl"
        record = next((record for record in read_jsonl(path) if record["id"] == name), None)
        if record is None or "messages" not in record:
            raise ConfigError("this row is no conversation, so there is no answer to correct", where=wanted.id)
        end = int(turn) if turn else len(record["messages"]) - 1
        return record["messages"][:end], one.answer, found.variant or "", one.category

    async def log(self, request: Request) -> Response:
        run = request.path_params["run"]
        feedback = Feedback(self.project, run)
        content = await read_limited(request, MAX_LOG)
        found = await asyncio.to_thread(client_log.read_log, content, run)
        held_out = held_out_questions(self.project.run_folder(run))
        known = {row.key for row in feedback.rows()}
        new = [feedback.placed(row, held_out) for row in found.rows if row.key not in known]
        feedback.append(new)
        return reply(
            LogReply(
                added=len(new),
                known=len(found.rows) - len(new),
                unmarked=found.unmarked,
                unusable_count=found.unusable_count,
                unusable=found.unusable,
                file=f"{FOLDER}/{run}.jsonl",
            )
        )

    async def next(self, request: Request) -> Response:
        wanted = await body(request, NextRequest)
        maker = NextVersionMaker(self.project, request.path_params["run"])
        return reply(await asyncio.to_thread(maker.make, wanted))
