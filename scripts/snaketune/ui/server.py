"""The server of the local page: the routes behind the guard, and the page's own files."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from snaketune.config.schema_nodes import SCHEMAS
from snaketune.ui.access import Access, Guard
from snaketune.ui.project import Project
from snaketune.ui.routes import Context
from snaketune.ui.routes.ask import AskRoutes
from snaketune.ui.routes.improve import ImproveRoutes
from snaketune.ui.routes.judge import JudgeRoutes
from snaketune.ui.routes.new_run import NewRunRoutes
from snaketune.ui.routes.runs import RunRoutes

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
