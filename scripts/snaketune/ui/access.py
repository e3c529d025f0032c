"""Access to the page: who may ask, from where, and what a browser may do with the answer.

Every request passes the guard before anything else sees it. It refuses a Host that is not this server's (a name that
was bound to 127.0.0.1 afterwards), a request that another site's page made, and whoever does not have the token.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from snaketune.errors import ConfigError

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
MIN_TOKEN = 16  # characters of a token that opens the page to a network
SAFE_METHODS = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_POLICY = (  # of a written report: it runs its own script, and can neither ask this server nor read its cookie
    "sandbox allow-scripts allow-popups allow-downloads allow-modals; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """Where the page is served, and the token that opens it."""

    host: str = "127.0.0.1"
    port: int = 0
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def is_local(self) -> bool:
        return self.host in LOOPBACK_NAMES

    @property
    def cookie(self) -> str:
        """The cookie's name; browsers share cookies between the ports of a host."""
        return f"snaketune-{self.port}"

    @property
    def address(self) -> str:
        """What a person opens."""
        return f"http://{self.authority(self.reachable_name)}/?token={self.token}"

    @property
    def reachable_name(self) -> str:
        return socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host

    def authority(self, name: str) -> str:
        return f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"

    def knows(self, authority: str) -> bool:
        """Whether a Host header names this server.

        An address in figures cannot be bound to another place; of names, only our own are known.
        """
        try:
            split = urlsplit(f"//{authority}")
            name, port = split.hostname or "", split.port or 80
        except ValueError:
            return False
        if port != self.port:
            return False
        if self.is_local:
            return name in LOOPBACK_NAMES
        return name in (self.host.lower(), socket.gethostname().lower(), *LOOPBACK_NAMES) or _is_address(name)

    def is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def choose_access(host: str, port: int, token: str | None) -> Access:
    """The access that a command line asks for; ConfigError for a network without a token of the person's own."""
    if token is not None and not re.fullmatch(r"[A-Za-z0-9._~-]+", token):
        raise ConfigError(
            "a token has letters, digits and . _ ~ - only", where="--token", why="It stands in an address"
        )
    if host not in LOOPBACK_NAMES and len(token or "") < MIN_TOKEN:
        raise ConfigError(
            f"the page would be open to everybody who reaches {host}",
            where="--host",
            why="Whoever opens it can start trainings and read the rows",
            fix=f"Give a token of at least {MIN_TOKEN} characters with --token, or leave --host out",
        )
    return Access(host, port, token) if token else Access(host, port)


class Guard:
    """ASGI middleware that lets through what `Access` allows, and adds the headers that bind a browser."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # websockets are not served

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Content-Security-Policy", POLICY)
            await send(message)

        response = self.refusal(Request(scope)) or self.entrance(Request(scope))
        await (response or self.app)(scope, receive, send_with_headers)

    def refusal(self, request: Request) -> Response | None:
        """The answer to a request that may not pass."""
        headers = request.headers
        if not self.access.knows(headers.get("host", "")):
            return PlainTextResponse("snaketune: this server is not known by that name\n", 421)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        own = f"http://{headers['host']}"
        is_foreign = origin is not None and origin != own
        is_followed = request.method == "GET" and request.url.path == "/" and origin is None  # a link to the page
        if is_foreign or (site not in ("same-origin", "none") and not is_followed):
            return PlainTextResponse("snaketune: another site's page may not ask this server\n", 403)
        if request.method not in SAFE_METHODS and origin is None:
            return PlainTextResponse("snaketune: a change needs the header Origin, as this page sends it\n", 403)
        if not self._has_token(request):
            return PlainTextResponse("snaketune: open the address that `make ui` has printed; it holds a token\n", 401)
        return None

    def _has_token(self, request: Request) -> bool:
        given = (
            request.cookies.get(self.access.cookie, ""),
            request.query_params.get("token", "") if request.method == "GET" and request.url.path == "/" else "",
            request.headers.get("authorization", "").removeprefix("Bearer "),
        )
        return any(self.access.is_token(one) for one in given if one)

    def entrance(self, request: Request) -> Response | None:
        """The first opening: the token moves from the address into a cookie that no script reads."""
        if request.method != "GET" or request.url.path != "/" or "token" not in request.query_params:
            return None
        response = RedirectResponse("/", 303)
        response.set_cookie(self.access.cookie, self.access.token, httponly=True, samesite="strict", path="/")
        return response
