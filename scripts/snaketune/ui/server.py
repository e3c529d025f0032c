"""The server of the local page: the routes behind the guard, the page's own files, and the command that serves them.

`make ui` runs it, as `python -m snaketune.ui.server`.
"""

from __future__ import annotations

import argparse
import socket
import sys
import webbrowser
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from snaketune.config.schema_nodes import SCHEMAS
from snaketune.errors import ConfigError, UserError
from snaketune.ui.access import Access, Guard, choose_access
from snaketune.ui.project import Project
from snaketune.ui.routes import Context
from snaketune.ui.routes.ask import AskRoutes
from snaketune.ui.routes.improve import ImproveRoutes
from snaketune.ui.routes.judge import JudgeRoutes
from snaketune.ui.routes.new_run import NewRunRoutes
from snaketune.ui.routes.runs import RunRoutes

PORT = 8471
REPORT = SCHEMAS.parent / "report"
PAGE = REPORT / "ui"
SHARED = ("style.css", "human_eval.css")  # of the report
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


def make_app(project: Project, access: Access) -> Starlette:
    """The application for a project."""
    context = Context.of(project)
    return Starlette(
        routes=[
            Route("/", page_file),
            Route("/page/{name}", page_file),
            *RunRoutes(context).routes(),
            *NewRunRoutes(context).routes(),
            *AskRoutes(context).routes(),
            *JudgeRoutes(context).routes(),
            *ImproveRoutes(context).routes(),
        ],
        middleware=[Middleware(Guard, access=access)],
    )


async def page_file(request: Request) -> Response:
    """A file of the page, of those that are there and of no other folder."""
    name = request.path_params.get("name", "index.html")
    known = {path.name: path for path in PAGE.iterdir() if path.suffix in TYPES}
    known |= {shared: REPORT / shared for shared in SHARED}
    if name not in known:
        return PlainTextResponse("snaketune: there is no such file\n", 404)
    return FileResponse(known[name], media_type=TYPES[known[name].suffix])


def main(arguments: list[str]) -> int:
    """Run as a command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m snaketune.ui.server", description="Serve the local page.")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve; any other than loopback needs --token")
    parser.add_argument("--port", type=int, default=PORT, help=f"0 takes any free one (default {PORT})")
    parser.add_argument("--token", help="what opens the page; without it a new one each time")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    wanted = parser.parse_args(arguments)
    try:
        serve(wanted.host, wanted.port, wanted.token, open_browser=wanted.open)
    except UserError as error:
        print(f"snaketune: {error}", file=sys.stderr)
        return 1
    return 0


def serve(host: str, port: int, token: str | None, *, open_browser: bool) -> None:
    """Serve the project in this folder until Ctrl-C."""
    root = Path.cwd()
    if not (root / "Snakefile").is_file():
        raise ConfigError("there is no Snakefile here", where=str(root), fix="Start the page in the project's folder")
    choose_access(host, port, token)
    listening = _listen(host, port)
    access = choose_access(host, listening.getsockname()[1], token)
    config = uvicorn.Config(
        make_app(Project(root), access),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        lifespan="off",
    )
    print(f"snaketune: the page is at {access.address}\nCtrl-C ends it; runs go on unless they were tied to it.")
    sys.stdout.flush()
    if open_browser:
        webbrowser.open(access.address)
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; ConfigError where the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"the page cannot be served at {host}:{port} ({error.strerror})",
            where="--port",
            fix="It may be open already; else give another port, or --port 0 for a free one",
        ) from None
    return listening


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
