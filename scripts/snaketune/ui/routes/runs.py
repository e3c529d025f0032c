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
from snaketune.ui.context import Context
from snaketune.ui.processes import MAX_OUTPUT, Ending, tail
from snaketune.ui.replies import body, explaining, page_of, reply

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
    output: str
    stop_command: str
    pages: list[str]
    experiments: int


class ExperimentsReply(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the experiments, the best first; each as in selection.json."""

    total: int
    chosen: str
    experiments: list[object]


def routes(context: Context) -> list[Route]:
    """The routes, in a server's context."""
    project, processes = context.project, context.processes

    async def list_runs(request: Request) -> Response:
        return reply(await asyncio.to_thread(context.runs.page, page_of(request), processes.running()))

    async def compare(_request: Request) -> Response:
        return reply(await asyncio.to_thread(run_list.compare, project))

    async def run(request: Request) -> Response:
        name = request.path_params["run"]
        folder = project.run_folder(name)
        return reply(
            RunReply(
                run=name,
                configuration=project.configuration_of(name),
                running=processes.running(),
                output=processes.output(name),
                stop_command=processes.stop_command(name),
                pages=[page for page, file in PAGES.items() if (folder / file).is_file()],
                experiments=sum(1 for _ in folder.glob("train/*/summary.json")),
            )
        )

    async def live(request: Request) -> Response:
        name = request.path_params["run"]
        project.run_folder(name)

        async def states() -> AsyncIterator[ServerSentEvent]:
            async for state in context.watchers.follow(name):
                yield ServerSentEvent(msgspec.json.encode(state).decode())

        return EventSourceResponse(states(), ping=PING)

    async def state(request: Request) -> Response:
        name = request.path_params["run"]
        project.run_folder(name)
        return reply(context.watchers.look(name))

    async def start(request: Request) -> Response:
        wanted = await body(request, StartRequest)
        begun = processes.start(wanted.configuration, wanted.stage, wanted.ending)
        return reply(CommandReply(run=begun.run, command=begun.command))

    async def stop(request: Request) -> Response:
        wanted = await body(request, RunRequest)
        command = processes.stop_command(wanted.run)
        processes.stop(wanted.run)
        return reply(CommandReply(run=wanted.run, command=command))

    async def experiments(request: Request) -> Response:
        path = project.run_folder(request.path_params["run"]) / "train" / "selection.json"
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

    async def log(request: Request) -> Response:
        folder = project.run_folder(request.path_params["run"])
        name = Path(request.query_params.get("path", ""))
        if name.name == "" or name.parent != folder.relative_to(project.root) / "logs" or name.suffix != ".log":
            raise ConfigError("this is no log of this run", where=str(name)[:200])
        return PlainTextResponse(tail(project.path(str(name)), MAX_LOG))

    async def output(request: Request) -> Response:
        name = request.path_params["run"]
        project.run_folder(name)
        return PlainTextResponse(processes.output(name)[-MAX_OUTPUT:])

    async def written_page(request: Request) -> Response:
        file = PAGES.get(request.path_params["page"], "")
        path = project.path(str(project.run_folder(request.path_params["run"]).relative_to(project.root) / file))
        if not file or not path.is_file():
            return PlainTextResponse("snaketune: there is no such page yet\n", 404)
        return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})

    return [
        Route("/api/runs", explaining(list_runs)),
        Route("/api/comparison", explaining(compare)),
        Route("/api/runs/{run}", explaining(run)),
        Route("/api/runs/{run}/live", explaining(live)),
        Route("/api/runs/{run}/state", explaining(state)),
        Route("/api/runs/{run}/experiments", explaining(experiments)),
        Route("/api/runs/{run}/log", explaining(log)),
        Route("/api/runs/{run}/output", explaining(output)),
        Route("/api/start", explaining(start), methods=["POST"]),
        Route("/api/stop", explaining(stop), methods=["POST"]),
        Route("/pages/{run}/{page}", explaining(written_page)),
    ]
