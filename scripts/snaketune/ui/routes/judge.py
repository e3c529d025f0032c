"""Routes of judging: the blind form, each vote as it is given, and the result so far."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from snaketune.report.human_eval import PreferenceEntry, RatingEntry
from snaketune.ui.judging import Judging
from snaketune.ui.replies import body, explaining, reply
from snaketune.ui.routes import Context


class VoteRequest(msgspec.Struct, forbid_unknown_fields=True):
    """One vote of a judge: a preference or a rating."""

    rater: str
    preference: PreferenceEntry | None = None
    rating: RatingEntry | None = None


class SavedReply(msgspec.Struct, frozen=True, kw_only=True):
    file: str


class JudgeRoutes:
    """The handlers, in a server's context."""

    def __init__(self, context: Context) -> None:
        self.project = context.project
        self._forms: dict[Path, tuple[int, Judging]] = {}

    def routes(self) -> list[Route]:
        """The routes of judging."""
        return [
            Route("/api/judge/{run}", explaining(self.questions)),
            Route("/api/judge/{run}/vote", explaining(self.vote), methods=["POST"]),
            Route("/api/judge/{run}/result", explaining(self.result)),
        ]

    def _judging(self, run: str) -> Judging:
        """The form of a run, read again when its report has changed."""
        folder = self.project.run_folder(run)
        path = folder / "report" / "report.json"
        changed = path.stat().st_mtime_ns if path.is_file() else 0
        if self._forms.get(folder, (-1, None))[0] != changed:
            self._forms[folder] = changed, Judging(folder)
        return self._forms[folder][1]

    async def questions(self, request: Request) -> Response:
        run = request.path_params["run"]
        judging = await asyncio.to_thread(self._judging, run)
        rater = request.query_params.get("rater", "")
        return reply(judging.questions(rater, self.project.configuration_of(run)))

    async def vote(self, request: Request) -> Response:
        wanted = await body(request, VoteRequest)
        judging = await asyncio.to_thread(self._judging, request.path_params["run"])
        path = judging.folder / "votes"
        if wanted.preference:
            path = judging.save(wanted.rater, wanted.preference)
        if wanted.rating:
            path = judging.save(wanted.rater, wanted.rating)
        return reply(SavedReply(file=path.relative_to(self.project.root).as_posix()))

    async def result(self, request: Request) -> Response:
        judging = await asyncio.to_thread(self._judging, request.path_params["run"])
        return reply(await asyncio.to_thread(judging.result))
