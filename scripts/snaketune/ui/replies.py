"""Requests and replies as JSON: typed records in both directions, and a person's mistake as its four sentences."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from snaketune.errors import BusyError, ConfigError, UserError

T = TypeVar("T")
MAX_BODY = 2_000_000  # bytes of a request that is no upload
MAX_PAGE = 200  # items of one page of a list
Handler = Callable[[Request], Awaitable[Response]]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A person's mistake: what, where (a key, a file and line), why it matters, and what to do."""

    what: str
    where: str
    why: str
    fix: str


class FaultReply(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a reply to a request that cannot be fulfilled."""

    error: Fault


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a list is wanted."""

    offset: int
    limit: int

    def of(self, items: list[T]) -> list[T]:
        return items[self.offset : self.offset + self.limit]


def reply(value: object, status: int = 200) -> Response:
    """The value as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def fault_of(error: UserError) -> Fault:
    return Fault(what=error.what, where=error.where, why=error.why, fix=error.fix)


def fault_reply(error: UserError) -> Response:
    """The reply to a mistake."""
    return reply(FaultReply(error=fault_of(error)), 409 if isinstance(error, BusyError) else 422)


def explaining(handler: Handler) -> Handler:
    """The handler, with a person's mistake turned into a reply."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except UserError as error:
            return fault_reply(error)

    return handle


async def body(request: Request, kind: type[T]) -> T:
    """The JSON body as a record; ConfigError for one that is too large or something else."""
    content = await read_limited(request, MAX_BODY)
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise ConfigError(f"the request is not understood: {error}", fix="Reload the page") from None


async def read_limited(request: Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise ConfigError(f"this is more than {limit // 1_000_000:,} MB", fix="Send less at once")
        parts.append(part)
    return b"".join(parts)


def page_of(request: Request, default: int = 50) -> Page:
    """The part of a list that the address names, within bounds."""
    return Page(
        offset=max(0, _number(request, "offset", 0)), limit=min(max(1, _number(request, "limit", default)), MAX_PAGE)
    )


def _number(request: Request, name: str, default: int) -> int:
    given = request.query_params.get(name, "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 12 else default
