"""The whole way on the page, in a real Chromium: from an empty project to a second version of the demo, compared."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from project_copy import Project
from snaketune.config import schema
from snaketune.demo import task
from snaketune.files import read_json, read_jsonl
from tools import CHROMIUM
from ui_server import Page, Server, opened, serving

pytestmark = [pytest.mark.e2e, pytest.mark.slow, CHROMIUM.needed]

LONGEST_RUN = 3600  # seconds of the demo on the busiest machine
FIRST_VALIDATION = 200  # the step of the demo that leaves a checkpoint on any machine
FIELDS = {"run": "mine", "model.base": "demo", "data.max_length": "64", "train.max_steps": "400", "train.rank": "4"}
WORDS = "hot cold red blue river mountain house cat dog tree night day sun moon stone water".split()
BETTER = "a better reference"


def test_a_person_goes_from_an_empty_project_to_a_second_version(tmp_path: Path) -> None:
    project = Project.copied(tmp_path / "project")
    wanted = os.environ.get("SNAKETUNE_PICTURES")
    with serving(project.folder) as server, opened(server, Path(wanted) if wanted else None) as page:
        page.see("Nothing was run here yet")
        _the_demo_is_started_stopped_and_goes_on(page, server, project)
        _broken_rows_are_explained(page, project, tmp_path)
        _a_wrong_setting_is_refused_at_its_field(page, project, tmp_path)
        _the_demo_is_finished(page, server, project)
        _the_rows_of_the_own_run_are_previewed(page, server, project)
        _answers_are_voted_on_and_corrected(page, server, project)
        _answers_are_judged(page, project)
        _the_next_version_is_made_and_compared(page, server, project)
        assert page.complaints() == []


def _the_demo_is_started_stopped_and_goes_on(page: Page, server: Server, project: Project) -> None:
    run = project.folder / "results/demo"
    page.press("Start", "[data-file='config.yaml']")
    page.heading("demo")
    page.see("running", "[data-state]", 240)
    page.wait(lambda: _step_of_training(server) > FIRST_VALIDATION, LONGEST_RUN)
    page.wait(lambda: page.js("return document.querySelectorAll('.curve polyline.validation').length"))
    page.see("validation", "[data-stage=train]")
    page.picture("ui-run")
    page.press("Stop")
    _see_end(server, page, "demo", "stopped", 120)
    page.see("checkpoint", ".part-messages")
    assert not (run / "report/index.html").exists()
    assert list(run.glob("train/main/checkpoints/*/checkpoint-*.safetensors"))
    page.press("Go on")
    page.see("running", "[data-state]", 240)


def _step_of_training(server: Server) -> int:
    stages = server.state("demo")["stages"]
    jobs = [job for stage in stages for job in stage["jobs"] if job["step"] == "train_adapter"]
    return max((job["progress"]["done"] for job in jobs if job["progress"]), default=0)


def _see_end(server: Server, page: Page, run: str, state: str, seconds: float = LONGEST_RUN) -> None:
    page.wait(lambda: (it := server.state(run))["state"] in ("finished", "failed", "stopped") and it["ended"], seconds)
    page.see(state, "[data-state]")
    assert server.state(run)["state"] == state


def _broken_rows_are_explained(page: Page, project: Project, tmp_path: Path) -> None:
    """While the demo goes on."""
    lines = [json.dumps(row) for row in _rows()[:20]]
    lines[6] = '{"prompt": "cut off", "response": '
    lines[11] = json.dumps({"prompt": "<script>document.title='owned'</script>"})
    page.go("new", "New run")
    page.see("What differs from the defaults")
    page.send_file("data-file", _write(tmp_path / "broken.jsonl", lines))
    page.see("path: data/broken.jsonl", ".part-data")
    page.click("#check-rows")
    page.see("2 of 20 rows (10.0%) are rejected", ".part-data", 60)
    page.see("data/broken.jsonl:7", ".part-data")
    rejected = page.text(".part-data")
    assert "invalid-json" in rejected
    assert "data/broken.jsonl:12" in rejected
    assert "missing-field" in rejected
    assert "<script>" in rejected
    assert page.js("return document.title") != "owned"
    page.picture("ui-rows", ".part-data")
    assert (project.folder / "data/broken.jsonl").read_text().splitlines() == lines


def _rows() -> list[dict[str, str]]:
    draw = random.Random(7)
    asked = [" ".join(draw.sample(WORDS, 4)) for _ in range(80)]
    return [
        {"prompt": f"question {n} about {words}?", "response": f"it is {words.split()[0]}."}
        for n, words in enumerate(asked)
    ]


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _a_wrong_setting_is_refused_at_its_field(page: Page, project: Project, tmp_path: Path) -> None:
    page.js("location.reload()")
    page.see("What differs from the defaults")
    page.send_file("data-file", _write(tmp_path / "rows.jsonl", [json.dumps(row) for row in _rows()]))
    page.see("path: data/rows.jsonl", ".yaml")
    for path, text in FIELDS.items():
        page.write(f"field-{path}", text)
    page.see("run: mine", ".yaml")
    page.write("field-train.rank", "minus four")
    page.see('"minus four" is not allowed', ".part-result")
    assert page.js("return document.getElementById('field-train.rank').getAttribute('aria-invalid')") == "true"
    assert page.js("return document.activeElement.id") != "field-train.rank"
    page.picture("ui-mistake", "[data-path='train.rank']")
    page.press("Go to the field")
    assert page.js("return document.activeElement.id") == "field-train.rank"
    assert page.js("return !document.getElementById('save')")
    assert not (project.folder / "mine.yaml").exists()
    page.write("field-train.rank", FIELDS["train.rank"])
    page.see("at most", "#forecast")
    small = page.text("#forecast")
    page.write("field-train.rank", "64")
    page.wait(lambda: page.text("#forecast") not in ("", small))
    page.write("field-train.rank", FIELDS["train.rank"])
    page.see("rank: 4", ".yaml")
    page.picture("ui-new", ".part-begin")
    page.click("#save")
    page.see("mine.yaml is written", ".part-saved")
    text = (project.folder / "mine.yaml").read_text()
    assert "# Rank of the adapter" in text
    written = schema.complete(yaml.safe_load(text))
    assert (written["train"]["rank"], written["data"]["sources"][0]["path"]) == (4, "data/rows.jsonl")
    page.see("snakemake --configfile mine.yaml", ".part-saved")


def _the_demo_is_finished(page: Page, server: Server, project: Project) -> None:
    run = project.folder / "results/demo"
    page.go("run/demo", "demo")
    _see_end(server, page, "demo", "finished")
    page.see("The report", ".part-controls")
    assert (run / "report/index.html").is_file()
    assert read_json(run / "report/report.json")["run"] == "demo"
    said = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    begun = [at for at, one in enumerate(said) if one["state"] == "started" and not one.get("step")]
    assert [said[at]["command"] for at in begun] == ["snakemake"] * 2
    again = [one["progress"]["done"] for one in said[begun[1] :] if _is_step(one)]
    assert again[0] >= FIRST_VALIDATION, "the training began anew"
    page.go("runs", "Runs")
    page.see("better", "[data-run=demo] .status.better")


def _is_step(event: dict[str, Any]) -> bool:
    return event.get("step") == "train_adapter" and event.get("progress", {}).get("unit") == "step"


def _the_rows_of_the_own_run_are_previewed(page: Page, server: Server, project: Project) -> None:
    page.go("runs", "Runs")
    page.see("snakemake --configfile mine.yaml", "[data-file='mine.yaml']")
    page.go("preview/mine.yaml", "Rows as the model reads them")
    page.press("Render five rows")
    page.wait(lambda: page.js("return !!document.querySelector('iframe.written')"), 600)
    page.picture("ui-preview")
    assert server.state("mine")["state"] == "finished"
    data = project.folder / "results/mine/data"
    assert {_question(row) for row in read_jsonl(data / "records.jsonl")} <= {row["prompt"] for row in _rows()}
    assert (data / "preview.html").is_file()


def _answers_are_voted_on_and_corrected(page: Page, server: Server, project: Project) -> None:
    page.go("ask/demo", "Ask demo")
    page.ask(f"{task.INSTRUCTION}five hundred and twelve")
    shown = page.text(".part-now")
    assert "gguf" not in shown
    assert "base" not in shown
    page.press("A is better", ".part-now")
    page.see("Your vote: demo:", ".part-now")
    page.picture("ui-ask", ".part-now")
    page.press("Ask on", ".part-now")
    page.see("Goes on after", ".part-thread")
    page.ask("and six hundred and one")
    page.press("Begin anew", ".part-thread")
    asked = {f"{task.INSTRUCTION}{words}": right for words, right in _as_people_say().items()}
    for question, right in asked.items():
        page.ask(question)
        page.correct(".part-now", right, "the next version learns it")
    entries = list(read_jsonl(project.folder / "results/demo/chat.jsonl"))
    assert [one["vote"] for one in entries if one.get("vote") is not None] == [0]
    assert [one["question"] for one in entries if one.get("after") == entries[0]["id"]] == ["and six hundred and one"]

    page.go("improve/demo", "Improve demo")
    page.see("2 to learn, 0 better references", "#feedback-count")
    page.correct(".part-rows", BETTER, "never reaches training")
    page.see("2 to learn, 1 better references", "#feedback-count")
    page.picture("ui-improve")
    rows = list(read_jsonl(project.folder / "data/feedback/demo.jsonl"))
    assert [(row["origin"], row["use"]) for row in rows] == [
        ("chat", "training"),
        ("chat", "training"),
        ("test", "reference"),
    ]
    assert [row["response"] for row in rows] == [*asked.values(), BETTER]
    assert server.get("/api/feedback/demo")["total"] == 3


def _as_people_say() -> dict[str, str]:
    """Two numbers that are trained on, as the demo's rows never say them."""
    chosen = [number for number in task.numbers(seed=1)["train"] if number > 200 and number % 100 > 20][:2]
    return {f"{task.english(n - n % 100)} and {task.english(n % 100)}": task.hawaiian(n) for n in chosen}


def _answers_are_judged(page: Page, project: Project) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.go("judge/demo", "Judge demo")
    page.write("rater", "Ada")
    page.see("0 judged", "#progress-text")
    page.js("document.getElementById('content').focus()")
    for number in range(1, 11):
        ActionChains(page.driver).send_keys([Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN][number % 3]).perform()
        page.see(f"{number} judged", "#progress-text")
    page.picture("ui-judge")
    page.js("location.reload()")
    page.see("10 judged", "#progress-text")
    page.click("#show-result")
    page.see("95 % interval", "#preference")
    (votes,) = (project.folder / "results/demo/votes").glob("*.json")
    assert len(read_json(votes)["preferences"]) == 10
    assert read_json(votes)["rater"] == "Ada"


def _the_next_version_is_made_and_compared(page: Page, server: Server, project: Project) -> None:
    page.go("improve/demo", "Improve demo")
    page.click("#make-next")
    page.see("demo-v2.yaml is written: 2 corrections are learned, 1 references are better", ".part-next")
    written = yaml.safe_load((project.folder / "demo-v2.yaml").read_text())
    assert written["compare_with"] == "demo"
    files = ["data/feedback/demo-v2.train.jsonl", "data/feedback/demo-v2.test.jsonl"]
    assert [source["path"] for source in written["data"]["sources"]][-2:] == files
    page.press("Start", ".part-next")
    page.heading("demo-v2")
    _see_end(server, page, "demo-v2", "finished")
    run = project.folder / "results/demo-v2"
    assert (run / "evaluation/previous/predictions.jsonl").is_file()
    tests = {name: list(read_jsonl(project.folder / f"results/{name}/data/test.jsonl")) for name in ("demo", "demo-v2")}
    questions = {name: {_question(row) for row in rows} for name, rows in tests.items()}
    assert questions["demo"] == questions["demo-v2"]
    trained = {_question(row) for row in read_jsonl(run / "data/train.jsonl")}
    assert {f"{task.INSTRUCTION}{words}" for words in _as_people_say()} <= trained
    assert not trained & questions["demo"]
    assert [row["messages"][-1]["content"] for row in tests["demo-v2"]].count(BETTER) == 1
    page.go("runs", "Runs")
    page.press("Compare the latest runs")
    page.see("demo-v2 and demo", "#content", 60)
    page.see("test rows of both")
    page.picture("ui-runs")


def _question(row: dict[str, Any]) -> str:
    return row["messages"][0]["content"]
