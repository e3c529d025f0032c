"""The local page in a real Chromium: whoever uses it and on what, and whatever rows and answers hold."""

from __future__ import annotations

import os
import shutil
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import browser
import psutil
import pytest
from browser import until
from project_copy import Project
from run_copies import HOSTILE, RunCopies, write_report
from snaketune.files import read_jsonl, write_jsonl
from snaketune.runtime.events import Event, EventFile, Progress
from tools import CHROMIUM
from ui_server import Page, Server, opened, serving

pytestmark = [pytest.mark.e2e]

RUN = "jessy-v1"
VIEWS = {
    "runs": "Runs",
    "new": "New run",
    f"run/{RUN}": RUN,
    f"ask/{RUN}": f"Ask {RUN}",
    f"judge/{RUN}": f"Judge {RUN}",
    f"improve/{RUN}": f"Improve {RUN}",
}


@pytest.fixture(scope="module")
def project(run_copies: RunCopies, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose two runs hold hostile text wherever text can be."""
    project = Project.copied(tmp_path_factory.mktemp("ui") / "project")
    shutil.copytree(run_copies.finished.folder / "tiny-base", project.folder / "tiny-base")
    for name in (RUN, "jessy-v2"):
        folder = run_copies.make(project.folder / "results" / name, rows=20, hostile=True)
        write_report(folder)
        events = EventFile(folder / "events.jsonl")
        step = {"step": "fuse_adapter", "wildcards": {"experiment": HOSTILE}}
        for given in (
            {"steps": {"fuse_adapter": 1}},
            step,
            step | {"state": "failed", "message": HOSTILE},
            {"state": "failed", "message": HOSTILE},
        ):
            events.append(Event(**{"time": time.time(), "run": name, "state": "started"} | given))
    return project


@pytest.fixture(scope="module")
def server(project: Project) -> Iterator[Server]:
    with serving(project.folder) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Page]:
    CHROMIUM.require()
    with opened(server) as seen:
        yield seen


def show(page: Page, view: str, width: int = 1280, scheme: str = "light") -> None:
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": [feature]})
    page.go("runs", "Runs")
    page.go(view, VIEWS[view])
    time.sleep(0.6)


@pytest.mark.parametrize("view", VIEWS)
def test_text_of_rows_answers_and_events_never_becomes_markup(page: Page, view: str) -> None:
    show(page, view)
    if view.startswith("judge"):
        page.write("rater", HOSTILE[:50])
        page.see("0 judged", "#progress-text")
    assert "owned" not in page.js("return document.title")
    assert page.js("return document.images.length") == 0
    assert page.js("return document.querySelectorAll('script').length") == 1
    assert page.js("return document.querySelectorAll('[onerror]').length") == 0
    if view != "new" and not view.startswith("ask"):
        assert "<script>" in page.text() or "</script>" in page.text() or view == "runs"
    assert page.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_a_page_is_readable_on_a_phone(page: Page, view: str, scheme: str) -> None:
    show(page, view, width=360, scheme=scheme)
    assert page.js("return document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("view", VIEWS)
def test_a_screen_reader_finds_names_headings_and_a_language(page: Page, view: str) -> None:
    show(page, view)
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = ("button", "link", "textbox", "checkbox", "combobox", "img", "image", "progressbar", "group", "region")
    found = [
        (node["role"]["value"], (node.get("name") or {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in named[:8]
    ]
    assert len(found) > 3
    assert [one for one in found if not one[1]] == []
    browser.check_headings_and_ids(page.driver)
    assert page.js("return document.documentElement.lang") == "en"


def test_everything_is_reached_and_pressed_by_keyboard(page: Page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(page, "runs")
    page.js("location.reload()")  # the first opening, from which Tab begins at the top
    page.see(RUN)
    reached = []
    for _ in range(40):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        text = page.js("return document.activeElement.textContent.trim()")
        reached.append(text)
        if text == RUN:
            break
    assert reached[0] == "Skip to the content"
    assert {"Runs", "New run", RUN} <= set(reached)
    assert page.js("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    page.heading(RUN)


def test_the_written_report_opens_in_a_sandbox_that_cannot_ask_the_server(page: Page, server: Server) -> None:
    page.driver.get(f"{server.origin}/pages/{RUN}/report")
    page.wait(lambda: "jessy" in page.js("return document.title"))
    assert page.js("return window.origin") == "null"
    tried = page.driver.execute_async_script(
        "const done = arguments[0]; fetch('/api/runs').then(() => done('open'), () => done('refused'))"
    )
    assert tried == "refused"
    page.driver.get_log("browser")


def test_a_page_that_is_opened_twice_and_reloaded_changes_nothing(page: Page, project: Project) -> None:
    def files() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in project.folder.rglob("*") if path.is_file()}

    before = files()
    for view in VIEWS:
        show(page, view)
        page.js("location.reload()")
        page.heading(VIEWS[view])
    assert {name: at for name, at in files().items() if "/.ui/" not in name and "__pycache__" not in name} == {
        name: at for name, at in before.items() if "/.ui/" not in name and "__pycache__" not in name
    }


DROP = """
const transfer = new DataTransfer();
transfer.items.add(new File(arguments[0], arguments[1]));
const given = {dataTransfer: transfer, bubbles: true, cancelable: true};
document.getElementById('drop').dispatchEvent(new DragEvent('drop', given));
"""


def test_a_run_that_begins_on_the_terminal_comes_into_the_list_by_itself(page: Page, project: Project) -> None:
    show(page, "runs")
    events = EventFile(project.folder / "results/begun-elsewhere/events.jsonl")
    events.append(Event(time=time.time(), run="begun-elsewhere", state="started", steps={"fuse_adapter": 1}))
    page.see("begun-elsewhere")
    shutil.rmtree(project.folder / "results/begun-elsewhere")


def test_settings_of_a_run_are_changed_and_saved_where_they_stand(page: Page, project: Project) -> None:
    project.write("changed.yaml", "run: changed\nmodel: {base: demo}\ndata: {sources: [{path: data/sample.jsonl}]}\n")
    page.go("new/configuration/changed.yaml", "Settings of changed.yaml")
    page.see("run: changed", ".yaml")
    page.write("field-train.rank", "8")
    page.see("rank: 8", ".yaml")
    page.click("#save")
    page.press("Replace it", ".part-saved")
    page.see("changed.yaml is written", ".part-saved")
    assert "rank: 8" in (project.folder / "changed.yaml").read_text()
    (project.folder / "changed.yaml").unlink()


def test_answers_that_a_client_has_logged_are_marked_and_corrected(
    page: Page, project: Project, tmp_path: Path
) -> None:
    asked = {"model": RUN, "messages": [{"role": "user", "content": f"two and two? {HOSTILE}"}]}
    answered = {"choices": [{"message": {"role": "assistant", "content": f"five {HOSTILE}"}}]}
    write_jsonl(tmp_path / "client.jsonl", [{"request": asked, "response": answered, "thumb": "down"}])
    show(page, f"improve/{RUN}")
    page.send_file("client-log", tmp_path / "client.jsonl")
    page.see("1 marked answers are new", ".part-log")
    page.correct(".part-feedback", "four", "the next version learns it")
    page.see("1 to learn", "#feedback-count")
    assert "owned" not in page.js("return document.title")
    *_, row = read_jsonl(project.folder / f"data/feedback/{RUN}.jsonl")
    assert (row["origin"], row["mark"], row["response"]) == ("log", "corrected", "four")
    (project.folder / f"data/feedback/{RUN}.jsonl").unlink()


def test_a_dropped_file_is_a_source_and_lies_in_data(page: Page, project: Project) -> None:
    show(page, "new")
    page.see("What differs from the defaults")
    page.js(DROP, ['{"prompt": "one and two", "response": "three"}\n'], "dropped.jsonl")
    page.see("path: data/dropped.jsonl", ".yaml")
    assert (project.folder / "data/dropped.jsonl").read_text() == '{"prompt": "one and two", "response": "three"}\n'


def test_an_update_reaches_the_page_within_a_second(page: Page, project: Project) -> None:
    show(page, f"run/{RUN}")
    events = EventFile(project.folder / "results" / RUN / "events.jsonl")
    took = []
    for number in range(5):
        text = f"news number {number}"
        events.append(Event(time=time.time(), run=RUN, state="warning", step="fuse_adapter", message=text))
        began = time.monotonic()
        until(lambda text=text: text in page.text(".part-messages"), 10)
        took.append(time.monotonic() - began)
    assert sorted(took)[2] < 1


def processor_seconds(server: Server) -> float:
    times = psutil.Process(server.process.pid).cpu_times()
    return times.user + times.system


def test_the_first_page_is_there_within_two_seconds_of_a_processor(project: Project) -> None:
    CHROMIUM.require()
    with serving(project.folder) as server, opened(server) as page:
        page.see(RUN)
        assert processor_seconds(server) < 2


def test_a_training_that_is_watched_costs_the_server_under_two_hundredths_of_a_core(
    page: Page, server: Server, project: Project
) -> None:
    show(page, f"run/{RUN}")
    events = EventFile(project.folder / "results" / RUN / "events.jsonl")
    before, began = processor_seconds(server), time.monotonic()
    for done in range(20):
        seen = Progress(activity="", done=done, total=1000, unit="step", loss=1.0)
        events.append(Event(time=time.time(), run=RUN, state="progress", step="train_adapter", progress=seen))
        time.sleep(0.5)  # as often as a step writes one
    assert (processor_seconds(server) - before) / (time.monotonic() - began) < 0.02


def _snakemake(run: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if f"{run}.yaml" in words and any(word.endswith("/snakemake") for word in words):
            found.append(process)
    return found


@pytest.mark.parametrize("ending", ["keep", "stop"])
def test_a_killed_server_leaves_the_run_alive_or_stopped_as_was_chosen(
    tmp_path: Path, run_copies: RunCopies, ending: str
) -> None:
    run = f"ending-{ending}-{os.getpid()}"
    project = Project.copied(tmp_path / "project")
    shutil.copytree(run_copies.finished.folder / "tiny-base", project.folder / "tiny-base")
    rows = [{"prompt": f"is {n} a number of {n * 7}?", "response": f"it is {n}"} for n in range(60)]
    write_jsonl(project.folder / "rows.jsonl", rows)
    text = run_copies.finished.folder.joinpath("tiny.yaml").read_text()
    project.write(f"{run}.yaml", text)
    project.replace(f"{run}.yaml", "run: tiny", f"run: {run}")
    project.replace(f"{run}.yaml", "max_steps: 12", "max_steps: 1000000")  # no machine ends it before the test does
    with serving(project.folder) as server:
        server.post("/api/start", {"configuration": f"{run}.yaml", "stage": "train", "ending": ending})
        until(lambda: server.state(run)["state"] == "running", 120)
        (process,) = until(lambda: _snakemake(run), 60)[:1]
        with pytest.raises(urllib.error.HTTPError, match="409"):  # one run at a time
            server.post("/api/start", {"configuration": f"{run}.yaml"})
        server.process.kill()
        server.process.wait()
        if ending == "stop":
            process.wait(60)
            said = (project.folder / "results" / run / "events.jsonl").read_text()
            assert '"state":"stopped"' in said
        else:
            time.sleep(3)
            assert process.is_running()
    with serving(project.folder) as server:  # a new server finds the run of the old one
        if ending == "keep":
            assert server.get(f"/api/runs/{run}")["running"] == run
            server.post("/api/stop", {"run": run})
            process.wait(60)
        assert server.state(run)["state"] == "stopped"
