"""Routes of a new run: the form with its forecast and YAML, data files with the verdict of every row, imports."""

from __future__ import annotations

import asyncio
import shlex

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from snaketune.config.sections import load
from snaketune.data import guess
from snaketune.errors import UserError
from snaketune.importers import command as importer
from snaketune.importers import data_file
from snaketune.run_definition import define_run
from snaketune.ui import data_check, form, uploads
from snaketune.ui.checks import Checks
from snaketune.ui.data_check import RowVerdict
from snaketune.ui.forecast import Forecast, forecast
from snaketune.ui.replies import Fault, body, explaining, fault_of, page_of, reply
from snaketune.ui.routes import Context


class FormRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The texts of all fields; rows: training rows as a check has counted them."""

    values: form.Values
    rows: int | None = None


class SaveRequest(msgspec.Struct, forbid_unknown_fields=True):
    values: form.Values
    overwrite: bool = False


class ImportRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Another tool's file in this project, the new run's name, and keys that the person goes without."""

    source: str
    name: str
    without: list[str] = msgspec.field(default_factory=list)


class FormReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the form amounts to: the first mistake, or the YAML (whole, and only what is not a default)."""

    fault: Fault | None = None
    yaml: str = ""
    short: str = ""
    forecast: Forecast | None = None


class ValuesReply(msgspec.Struct, frozen=True, kw_only=True):
    values: form.Values


class SavedReply(msgspec.Struct, frozen=True, kw_only=True):
    configuration: str
    run: str
    yaml: str


class FilesReply(msgspec.Struct, frozen=True, kw_only=True):
    files: list[str]


class FoundReply(msgspec.Struct, frozen=True, kw_only=True):
    """How a data file can be read: the entry of data.sources as YAML, why, and its first row as it would be trained."""

    path: str
    source: str
    why: str
    example: str
    fault: Fault | None = None


class RowsReply(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    rows: list[RowVerdict]


class RefusedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key of another tool's that cannot be taken over."""

    key: str
    effect: str
    fix: str
    is_final: bool


class ImportReply(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an import: the configuration, or what stands in its way; page: what became of each key."""

    tool: str
    configuration: str | None
    page: str
    taken: int
    written_out: int
    refused: list[RefusedKey]
    command: str


class NewRunRoutes:
    """The handlers, in a server's context."""

    def __init__(self, context: Context) -> None:
        self.project, self.checks = context.project, Checks(context.project)

    def routes(self) -> list[Route]:
        """The routes of a new run."""
        return [
            Route("/api/form", explaining(self.form)),
            Route("/api/form/start", explaining(self.start)),
            Route("/api/form/check", explaining(self.check_form), methods=["POST"]),
            Route("/api/form/save", explaining(self.save), methods=["POST"]),
            Route("/api/files", explaining(self.files)),
            Route("/api/files/look", explaining(self.look)),
            Route("/api/files/{name}", explaining(self.upload), methods=["POST"]),
            Route("/api/checks", explaining(self.begin_check), methods=["POST"]),
            Route("/api/checks/{key}", explaining(self.check)),
            Route("/api/checks/{key}/rows", explaining(self.rows)),
            Route("/api/imports/{name}", explaining(self.upload_import), methods=["POST"]),
            Route("/api/import", explaining(self.bring_in), methods=["POST"]),
        ]

    async def form(self, _request: Request) -> Response:
        return reply(form.describe())

    async def start(self, request: Request) -> Response:
        given = request.query_params
        return reply(
            ValuesReply(values=form.starting_values(self.project, given.get("kind", ""), given.get("name", "")))
        )

    async def check_form(self, request: Request) -> Response:
        wanted = await body(request, FormRequest)
        return reply(await asyncio.to_thread(self._checked, wanted))

    def _checked(self, wanted: FormRequest) -> FormReply:
        """The form's mistake, or its YAML and forecast."""
        try:
            settings = form.settings_of(wanted.values)
        except UserError as error:
            return FormReply(fault=fault_of(error))
        yaml, short = form.to_yaml(settings), form.changed_keys(settings)
        try:
            config = load(settings)
            expected = forecast(self.project, config, wanted.rows)
            define_run(settings)
        except UserError as error:
            return FormReply(fault=fault_of(error), yaml=yaml, short=short)
        return FormReply(yaml=yaml, short=short, forecast=expected)

    async def save(self, request: Request) -> Response:
        wanted = await body(request, SaveRequest)
        settings = form.settings_of(wanted.values)
        name = form.save(self.project, settings, overwrite=wanted.overwrite)
        return reply(SavedReply(configuration=name, run=str(settings["run"]), yaml=form.to_yaml(settings)))

    async def files(self, _request: Request) -> Response:
        return reply(FilesReply(files=await asyncio.to_thread(uploads.data_files, self.project)))

    async def look(self, request: Request) -> Response:
        path = request.query_params.get("path", "")
        self.project.path(path)
        return reply(await asyncio.to_thread(_look_at, path))

    async def upload(self, request: Request) -> Response:
        name = request.path_params["name"]
        target = uploads.data_target(self.project, name)
        await uploads.receive(target, request.stream(), uploads.MAX_BYTES)
        return reply(await asyncio.to_thread(_look_at, f"data/{name}"))

    async def begin_check(self, request: Request) -> Response:
        wanted = await body(request, FormRequest)
        config = load(form.settings_of(wanted.values))
        return reply(await asyncio.to_thread(self.checks.begin, config))

    async def check(self, request: Request) -> Response:
        return reply(self.checks.state(request.path_params["key"]))

    async def rows(self, request: Request) -> Response:
        folder = self.checks.folder(request.path_params["key"])
        if data_check.read_result(folder) is None:
            return reply(RowsReply(total=0, rows=[]))
        page = page_of(request)
        total, found = data_check.read_rows(folder, request.query_params.get("verdict", "all"), page.offset, page.limit)
        return reply(RowsReply(total=total, rows=found))

    async def upload_import(self, request: Request) -> Response:
        name = request.path_params["name"]
        target = uploads.import_target(self.project, name)
        await uploads.receive(target, request.stream(), uploads.MAX_IMPORT)
        return reply(FilesReply(files=[f"data/imported/{name}"]))

    async def bring_in(self, request: Request) -> Response:
        wanted = await body(request, ImportRequest)
        source = uploads.import_source(self.project, wanted.source)
        made = await asyncio.to_thread(importer.run, source, wanted.name, tuple(wanted.without), self.project.root)
        without = f" WITHOUT={shlex.quote(' '.join(wanted.without))}" if wanted.without else ""
        return reply(
            ImportReply(
                tool=made.draft.tool,
                configuration=made.configuration.name if made.configuration else None,
                page=made.page.read_text(encoding="utf-8"),
                taken=len(made.draft.taken),
                written_out=len(made.draft.written_out),
                refused=[
                    RefusedKey(key=one.key, effect=one.effect, fix=one.fix, is_final=one.is_final)
                    for one in made.draft.refused
                ],
                command=f"make import FROM={shlex.quote(wanted.source)} NAME={wanted.name}{without}",
            )
        )


def _look_at(path: str) -> FoundReply:
    """How a data file would be read; a file that cannot be read keeps its place, and says why."""
    try:
        found = data_file.look_at(path)
    except UserError as error:
        return FoundReply(path=path, source=f"- {{path: {path}}}", why="", example="", fault=fault_of(error))
    guessed = found.guess or guess.Guess([])
    source = guess.line(path, found.guess) if found.guess else form.source_line(found.source)
    template = "{context}\n\n{question}" if found.source.get("format") == "squad" else guessed.template
    shown = guess.example(found.row, guess.Guess(guessed.columns, guessed.fields, template, guessed.turn_fields))
    return FoundReply(path=path, source=source, why=found.guess.why if found.guess else "", example=shown)
