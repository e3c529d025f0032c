"""Routes of the runs: the list, one run as it happens, start and stop, logs and the written pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from snaketune.errors import ConfigError
from snaketune.files import read_json
from snaketune.ui import run_list
from snaketune.ui.access import PAGE_POLICY
from snaketune.ui.processes import Ending, tail
from snaketune.ui.replies import body, explaining, page_of, reply
from snaketune.ui.routes import Context

MAX_LOG = 60_000  # bytes of a log that a page shows
PING = 15  # seconds
PAGES = {
    "report": "report/index.html",
    "pilot": "pilot/index.html",
    "preview": "data/preview.html",
}


class StartRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which configuration to run, how far, and what becomes of it when the server ends."""

    configuration: str
    stage: str = ""
    ending: Ending = "keep"


class RunRequest(msgspec.Struct, forbid_unknown_fields=True):
    run: str


class CommandReply(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, as the command that does the same."""

    run: str
    command: str


class RunReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's page needs besides its events."""

    run: str
    configuration: str | None
    running: str | None
    stop_command: str
    pages: list[str]
    experiments: int


class ExperimentsReply(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the experiments, the best first; each as in selection.json."""

    total: int
    chosen: str
    experiments: list[object]


class RunRoutes:
    """The handlers, in a server's context."""

    def __init__(self, context: Context) -> None:
        self.context, self.project, self.processes = context, context.project, context.processes

    def routes(self) -> list[Route]:
        """The routes of the runs."""
        return [
            Route("/api/runs", explaining(self.list_runs)),
            Route("/api/comparison", explaining(self.compare)),
            Route("/api/runs/{run}", explaining(self.run)),
            Route("/api/runs/{run}/live", explaining(self.live)),
            Route("/api/runs/{run}/state", explaining(self.state)),
            Route("/api/runs/{run}/experiments", explaining(self.experiments)),
            Route("/api/runs/{run}/log", explaining(self.log)),
            Route("/api/runs/{run}/output", explaining(self.output)),
            Route("/api/start", explaining(self.start), methods=["POST"]),
            Route("/api/stop", explaining(self.stop), methods=["POST"]),
            Route("/pages/{run}/{page}", explaining(self.written_page)),
        ]

    async def list_runs(self, request: Request) -> Response:
        return reply(await asyncio.to_thread(self.context.runs.page, page_of(request), self.processes.running()))

    async def compare(self, _request: Request) -> Response:
        return reply(await asyncio.to_thread(run_list.compare, self.project))

    async def run(self, request: Request) -> Response:
        name = request.path_params["run"]
        folder = self.project.run_folder(name)
        return reply(
            RunReply(
                run=name,
                configuration=self.project.configuration_of(name),
                running=self.processes.running(),
                stop_command=self.processes.stop_command(name),
                pages=[page for page, file in PAGES.items() if (folder / file).is_file()],
                experiments=sum(1 for _ in folder.glob("train/*/summary.json")),
            )
        )

    async def live(self, request: Request) -> Response:
        name = request.path_params["run"]
        self.project.run_folder(name)

        async def states() -> AsyncIterator[ServerSentEvent]:
            async for state in self.context.watchers.follow(name):
                yield ServerSentEvent(msgspec.json.encode(state).decode())

        return EventSourceResponse(states(), ping=PING)

    async def state(self, request: Request) -> Response:
        name = request.path_params["run"]
        self.project.run_folder(name)
        return reply(self.context.watchers.look(name))

    async def start(self, request: Request) -> Response:
        wanted = await body(request, StartRequest)
        begun = self.processes.start(wanted.configuration, wanted.stage, wanted.ending)
        return reply(CommandReply(run=begun.run, command=begun.command))

    async def stop(self, request: Request) -> Response:
        wanted = await body(request, RunRequest)
        command = self.processes.stop_command(wanted.run)
        self.processes.stop(wanted.run)
        return reply(CommandReply(run=wanted.run, command=command))

    async def experiments(self, request: Request) -> Response:
        path = self.project.run_folder(request.path_params["run"]) / "train" / "selection.json"
        if not path.is_file():
            return reply(ExperimentsReply(total=0, chosen="", experiments=[]))
        found = read_json(path)
        page = page_of(request)
        return reply(
            ExperimentsReply(
                total=len(found["experiments"]),
                chosen=found["experiment"],
                experiments=page.of(found["experiments"]),
            )
        )

    async def log(self, request: Request) -> Response:
        folder = self.project.run_folder(request.path_params["run"])
        name = Path(request.query_params.get("path", ""))
        if name.name == "" or name.parent != folder.relative_to(self.project.root) / "logs" or name.suffix != ".log":
            raise ConfigError("this is no log of this run", where=str(name)[:200])
        return PlainTextResponse(tail(self.project.path(str(name)), MAX_LOG))

    async def output(self, request: Request) -> Response:
        name = request.path_params["run"]
        self.project.run_folder(name)
        return PlainTextResponse(self.processes.output(name))

    async def written_page(self, request: Request) -> Response:
        file = PAGES.get(request.path_params["page"], "")
        path = self.project.path(
            str(self.project.run_folder(request.path_params["run"]).relative_to(self.project.root) / file)
        )
        if not file or not path.is_file():
            return PlainTextResponse("snaketune: there is no such page yet\n", 404)
        return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})
