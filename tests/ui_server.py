"""The page's server as a process of its own, in a project's folder, and a Chromium that has opened it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import browser
from browser import until

TOKEN = "a-token-of-the-tests"
ADDRESS = re.compile(r"http://\S+/\?token=\S+")


@dataclass
class Server:
    """A running server. started: seconds until it had answered."""

    process: subprocess.Popen[str]
    address: str
    started: float

    @property
    def origin(self) -> str:
        return self.address.partition("/?")[0]

    def get(self, path: str) -> Any:
        """The JSON of a reply."""
        return json.loads(self._request(path, None))

    def post(self, path: str, value: Any) -> Any:
        return json.loads(self._request(path, json.dumps(value).encode()))

    def _request(self, path: str, body: bytes | None) -> bytes:
        headers = {"Authorization": f"Bearer {TOKEN}", "Origin": self.origin}
        with urllib.request.urlopen(urllib.request.Request(self.origin + path, body, headers), timeout=60) as found:
            return found.read()

    def state(self, run: str) -> Any:
        return self.get(f"/api/runs/{run}/state")

    def end(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)
        self.process.wait(30)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a project; ended afterwards."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "scripts"),
    }
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "snaketune.ui.server", "--port", "0", "--token", TOKEN],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        found = ADDRESS.search(process.stdout.readline())
        assert found, "the server named no address"
        server = Server(process, found[0], 0.0)
        until(lambda: _answers(server), 30)
        server.started = time.monotonic() - began
        yield server
    finally:
        if process.poll() is None:
            _stop_what_runs(server)
            process.kill()
        process.wait()


def _stop_what_runs(server: Server) -> None:
    """End a run that a failed test leaves behind, and wait for it."""
    with contextlib.suppress(OSError, AssertionError):
        found = server.get("/api/runs")
        for run in [one["run"] for one in found["runs"] if one["state"] == "running"]:
            server.post("/api/stop", {"run": run})
        until(lambda: all(one["state"] != "running" for one in server.get("/api/runs")["runs"]), 60)


def _answers(server: Server) -> bool:
    try:
        server.get("/api/runs")
    except OSError:
        return False
    return True


class Page:
    """The page in a browser."""

    def __init__(self, driver: Any, server: Server, pictures: Path | None = None) -> None:
        self.driver, self.server, self.pictures = driver, server, pictures
        driver.get_log("browser")
        driver.get(server.address)
        self.heading("Runs")

    def go(self, view: str, heading: str) -> None:
        """Open a view, and wait for its heading."""
        self.driver.get(f"{self.server.origin}/#/{view}")
        self.heading(heading)

    def heading(self, text: str) -> None:
        self.wait(lambda: self.js("return document.querySelector('h1')?.textContent") == text)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, found: Callable[[], Any], seconds: float = 30) -> Any:
        return until(found, seconds)

    def text(self, selector: str = "#content") -> str:
        return self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def see(self, text: str, selector: str = "#content", seconds: float = 30) -> None:
        """Wait until some text is seen."""
        try:
            self.wait(lambda: text in self.text(selector), seconds)
        except AssertionError:
            raise AssertionError(f"{text!r} is not seen in:\n{self.text()}") from None

    def click(self, selector: str) -> None:
        from selenium.common.exceptions import WebDriverException

        def clicked() -> bool:
            with contextlib.suppress(WebDriverException):
                element = self.driver.find_element("css selector", selector)
                self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
                if element.is_enabled():
                    element.click()
                    return True
            return False

        self.wait(clicked)

    def press(self, text: str, within: str = "#content") -> None:
        """Click the first button that says this."""
        from selenium.common.exceptions import WebDriverException

        script = (
            "return [...document.querySelector(arguments[1]).querySelectorAll('button')]"
            ".find(it => it.textContent.trim() === arguments[0] && it.getClientRects().length)"
        )

        def pressed() -> bool:
            with contextlib.suppress(WebDriverException):  # the view was drawn anew at that moment
                found = self.js(script, text, within)
                if found is not None and found.is_enabled():
                    self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
                    found.click()
                    return True
            return False

        self.wait(pressed)

    def write(self, identifier: str, text: str) -> None:
        """Put a text into a field, as typing does."""
        self.wait(lambda: self.js("return !!document.getElementById(arguments[0])", identifier))
        self.js(
            "const it = document.getElementById(arguments[0]); it.value = arguments[1];"
            "for (const kind of ['input', 'change']) it.dispatchEvent(new Event(kind, {bubbles: true}));",
            identifier,
            text,
        )

    def ask(self, question: str) -> None:
        """Ask on the view of that name, and wait for the answers' end."""
        self.write("question", question)
        self.click("#send")
        self.wait(lambda: question in self.text(".part-now .question"))
        self.wait(lambda: self.js("return !!document.querySelector('.part-now .corrector')"), 300)

    def correct(self, within: str, answer: str, told: str) -> None:
        """Correct the first answer of a part, and wait until the page says what becomes of it."""
        self.press("Correct", within)
        self.wait(lambda: self.js(f"return !!document.querySelector('{within} textarea')"))
        self.js(f"document.querySelector('{within} textarea').value = arguments[0]", answer)
        self.press("Save the correction", within)
        self.see(told, within)

    def send_file(self, identifier: str, path: Path) -> None:
        self.driver.find_element("id", identifier).send_keys(str(path))

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def picture(self, name: str, selector: str | None = None) -> None:
        """Save what is seen, where pictures are wanted; selector: what is scrolled to."""
        if self.pictures is None:
            return
        self.js("document.querySelector(arguments[0]).scrollIntoView({behavior: 'instant'})", selector or "body")
        time.sleep(0.3)
        self.driver.save_screenshot(str(self.pictures / f"{name}.png"))


@contextlib.contextmanager
def opened(server: Server, pictures: Path | None = None) -> Iterator[Page]:
    """The page in a Chromium of its own."""
    with browser.chromium(loopback=True) as driver:
        yield Page(driver, server, pictures)
