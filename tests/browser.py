"""A real headless Chromium for the tests of the pages, cut off from the network, or from all of it but loopback."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
).split()
LOOPBACK_ONLY = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def found() -> tuple[str, str] | None:
    """Paths of the browser and its driver, None where either is missing."""
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextlib.contextmanager
def chromium(*, loopback: bool = False) -> Iterator[Any]:
    """A driver with a profile of its own, network off; ended and removed afterwards.

    loopback: lets it reach a server at 127.0.0.1, and nothing else.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    paths = found()
    assert paths is not None
    with tempfile.TemporaryDirectory() as profile:
        downloads = Path(profile) / "downloads"
        downloads.mkdir()
        options = webdriver.ChromeOptions()
        options.binary_location = paths[0]
        for flag in (*FLAGS, f"--user-data-dir={profile}/user", "--window-size=1280,1000", LOOPBACK_ONLY):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        driver = webdriver.Chrome(options=options, service=Service(paths[1]))
        try:
            driver.execute_cdp_cmd("Network.enable", {})
            driver.execute_cdp_cmd(
                "Network.emulateNetworkConditions",
                {"offline": not loopback, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
            )
            driver.downloads = downloads
            yield driver
        finally:
            driver.quit()


def take_picture(page: Path, picture: Path, width: int, height: int) -> None:
    """Write the upper part of a page as a PNG file of 256 colors."""
    from PIL import Image

    with chromium() as driver:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(page.as_uri())
        shot = base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"])
    Image.open(io.BytesIO(shot)).convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(picture, optimize=True)


def until(found: Callable[[], Any], seconds: float = 20) -> Any:
    """What `found` returns once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("nothing came within the time")


def check_headings_and_ids(driver: Any) -> None:
    """One heading of the first level, none that skips a level, and no id twice."""
    levels = driver.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4')].filter(it => it.getClientRects().length)"
        ".map(it => Number(it.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    repeated = driver.execute_script(
        "const ids = [...document.querySelectorAll('[id]')].map(it => it.id); return ids.length - new Set(ids).size"
    )
    assert repeated == 0
