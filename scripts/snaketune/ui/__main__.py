"""Serves the local page: `python -m snaketune.ui`, or `make ui`."""

from __future__ import annotations

import argparse
import socket
import sys
import webbrowser
from pathlib import Path

import uvicorn

from snaketune.errors import ConfigError, UserError
from snaketune.ui.access import choose_access
from snaketune.ui.project import Project
from snaketune.ui.server import make_app

PORT = 8471


def main(arguments: list[str]) -> int:
    """Run as a command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m snaketune.ui", description="Serve the local page.")
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
