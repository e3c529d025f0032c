"""The whole way on the page, in a real Chromium: from an empty project to a second version that is compared."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import families
import pytest
import yaml
from project_copy import Project
from snaketune.config import schema
from snaketune.files import read_json, read_jsonl
from tools import CHROMIUM
from ui_server import Page, Server, opened, serving

pytestmark = [pytest.mark.e2e, pytest.mark.slow, CHROMIUM.needed]

FIELDS = {
    "run": "journey-v1",
    "model.base": "tiny-base",
    "data.max_length": "64",
    "data.split.train": "0.6",
    "data.split.valid": "0.2",
    "data.split.test": "0.2",
    "pilot.rows": "20",
    "pilot.max_steps": "4",
    "pilot.on_no_go": "continue",
    "pilot.sample": "4",
    "train.max_steps": "400",
    "train.batch_size": "4",
    "train.gradient_accumulation_steps": "1",
    "train.rank": "4",
    "train.alpha": "8",
    "train.learning_rate": "1e-2",
    "train.warmup_steps": "2",
    "train.eval_steps": "20",
    "train.gradient_checkpointing": "false",
    "package.gguf": "[q8_0]",
    "package.fidelity.rows": "6",
    "package.fidelity.num_prompts": "2",
    "package.fidelity.max_new_tokens": "8",
    "evaluate.max_rows": "20",
    "evaluate.max_new_tokens": "8",
}
WORDS = "hot cold red blue river mountain house cat dog tree night day sun moon stone water".split()


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


def _wait_for(server: Server, page: Page, run: str, state: str, seconds: float = 1800) -> Any:
    found = page.wait(lambda: (it := server.state(run))["state"] == state and it, seconds)
    page.see({"finished": "finished", "stopped": "stopped"}[state], "[data-state]")
    return found


def test_a_person_goes_from_an_empty_project_to_a_second_version(tmp_path: Path) -> None:
    project = Project.copied(tmp_path / "project")
    families.build(project.folder / "tiny-base", "llama-bpe", dtype="float32")
    shutil.rmtree(project.folder / "results", ignore_errors=True)
    wanted = os.environ.get("SNAKETUNE_PICTURES")
    with serving(project.folder) as server, opened(server, Path(wanted) if wanted else None) as page:
        page.see("Nothing was run here yet")
        _broken_rows_are_explained(page, project, tmp_path)
        _a_run_is_configured(page, project, tmp_path)
        _the_run_is_stopped_and_goes_on(page, server, project)
        _answers_are_voted_on_and_corrected(page, server, project)
        _answers_are_judged(page, project)
        _the_next_version_is_made_and_compared(page, server, project)
        assert page.complaints() == []


def _broken_rows_are_explained(page: Page, project: Project, tmp_path: Path) -> None:
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
    assert (project.folder / "data/broken.jsonl").is_file()


def _a_run_is_configured(page: Page, project: Project, tmp_path: Path) -> None:
    page.js("location.reload()")
    page.see("What differs from the defaults")
    page.send_file("data-file", _write(tmp_path / "rows.jsonl", [json.dumps(row) for row in _rows()]))
    page.see("path: data/rows.jsonl", ".yaml")
    for path, text in FIELDS.items():
        page.write(f"field-{path}", text)
    page.see("run: journey-v1", ".yaml")
    page.write("field-train.rank", "minus four")
    page.see('"minus four" is not allowed', ".part-result")
    assert page.js("return document.getElementById('field-train.rank').getAttribute('aria-invalid')") == "true"
    assert page.js("return document.activeElement.id") != "field-train.rank"
    page.picture("ui-mistake", ".part-fields")
    page.press("Go to the field")
    assert page.js("return document.activeElement.id") == "field-train.rank"
    assert page.js("return !document.getElementById('save')")
    page.write("field-train.rank", FIELDS["train.rank"])
    page.see("at most", "#forecast")
    small = page.text("#forecast")
    page.write("field-data.max_length", "512")
    page.wait(lambda: page.text("#forecast") not in ("", small))
    page.write("field-data.max_length", FIELDS["data.max_length"])
    page.see("rank: 4", ".yaml")
    page.picture("ui-new", ".part-begin")
    page.click("#save")
    page.see("journey-v1.yaml is written", ".part-saved")
    written = schema.complete(yaml.safe_load((project.folder / "journey-v1.yaml").read_text()))
    assert written["train"]["rank"] == 4
    assert written["data"]["sources"][0]["path"] == "data/rows.jsonl"
    assert "# Rank of the adapter" in (project.folder / "journey-v1.yaml").read_text()
    page.see("snakemake --configfile journey-v1.yaml", ".part-saved")


def _the_run_is_stopped_and_goes_on(page: Page, server: Server, project: Project) -> None:
    page.press("Start", ".part-saved")
    page.heading("journey-v1")
    page.see("running", "[data-state]", 240)
    page.wait(lambda: page.js("return !!document.querySelector('[data-stage=train] .job')"), 900)
    page.wait(lambda: page.js("return document.querySelectorAll('.curve').length"), 120)
    page.picture("ui-run")
    page.press("Stop")
    _wait_for(server, page, "journey-v1", "stopped", 120)
    run = project.folder / "results/journey-v1"
    assert not (run / "report/index.html").exists()
    assert list(run.glob("train/**/checkpoints/*")) or list(run.glob("**/checkpoint*"))
    page.press("Go on")
    _wait_for(server, page, "journey-v1", "finished")
    page.see("The report", ".part-controls")
    assert (run / "report/index.html").is_file()
    assert read_json(run / "report/report.json")["run"] == "journey-v1"
    said = (run / "events.jsonl").read_text()
    assert said.count('"command":"snakemake --configfile journey-v1.yaml","pid"') == 2


def _ask(page: Page, question: str) -> None:
    page.write("question", question)
    page.click("#send")
    page.wait(lambda: page.js("return !!document.querySelector('.part-now .corrector')"), 120)


def _answers_are_voted_on_and_corrected(page: Page, server: Server, project: Project) -> None:
    page.go("ask/journey-v1", "Ask journey-v1")
    _ask(page, "question 900 about sun moon dog cat?")
    shown = page.text(".part-now")
    assert "gguf" not in shown
    assert "base" not in shown
    page.press("A is better", ".part-now")
    page.see("Your vote: journey-v1:", ".part-now")
    page.picture("ui-ask", ".part-now")
    for question, right in (
        ("question 901 about stone dog?", "it is stone."),
        ("question 902 about red sun?", "it is red."),
    ):
        _ask(page, question)
        page.press("Correct", ".part-now")
        page.wait(lambda: page.js("return !!document.querySelector('.part-now textarea')"))
        page.js("document.querySelector('.part-now textarea').value = arguments[0]", right)
        page.press("Save the correction", ".part-now")
        page.see("the next version learns it", ".part-now")
    entries = list(read_jsonl(project.folder / "results/journey-v1/chat.jsonl"))
    assert [one["vote"] for one in entries if "vote" in one and one["vote"] is not None] == [0]

    page.go("improve/journey-v1", "Improve journey-v1")
    page.see("2 to learn, 0 better references", "#feedback-count")
    page.press("Correct", ".part-rows")
    page.wait(lambda: page.js("return !!document.querySelector('.part-rows textarea')"))
    page.js("document.querySelector('.part-rows textarea').value = 'it is a better reference.'")
    page.press("Save the correction", ".part-rows")
    page.see("never reaches training", ".part-rows")
    page.see("2 to learn, 1 better references", "#feedback-count")
    page.picture("ui-improve")
    rows = list(read_jsonl(project.folder / "data/feedback/journey-v1.jsonl"))
    assert [(row["origin"], row["use"]) for row in rows] == [
        ("chat", "training"),
        ("chat", "training"),
        ("test", "reference"),
    ]
    assert server.get("/api/feedback/journey-v1")["total"] == 3


def _answers_are_judged(page: Page, project: Project) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.go("judge/journey-v1", "Judge journey-v1")
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
    (votes,) = (project.folder / "results/journey-v1/votes").glob("*.json")
    assert len(read_json(votes)["preferences"]) == 10
    assert read_json(votes)["rater"] == "Ada"


def _the_next_version_is_made_and_compared(page: Page, server: Server, project: Project) -> None:
    page.go("improve/journey-v1", "Improve journey-v1")
    page.click("#make-next")
    page.see("journey-v2.yaml is written: 2 corrections are learned, 1 references are better", ".part-next")
    written = yaml.safe_load((project.folder / "journey-v2.yaml").read_text())
    assert written["compare_with"] == "journey-v1"
    assert [source["path"] for source in written["data"]["sources"]][-2:] == [
        "data/feedback/journey-v2.train.jsonl",
        "data/feedback/journey-v2.test.jsonl",
    ]
    page.press("Start", ".part-next")
    page.heading("journey-v2")
    _wait_for(server, page, "journey-v2", "finished")
    run = project.folder / "results/journey-v2"
    assert (run / "evaluation/previous/predictions.jsonl").is_file()
    questions = {
        name: {_question(row) for row in read_jsonl(project.folder / f"results/{name}/data/test.jsonl")}
        for name in ("journey-v1", "journey-v2")
    }
    assert questions["journey-v1"] == questions["journey-v2"]
    trained = {_question(row) for row in read_jsonl(run / "data/train.jsonl")}
    assert {"question 901 about stone dog?", "question 902 about red sun?"} <= trained
    assert not trained & questions["journey-v1"]
    better = [
        row
        for row in read_jsonl(run / "data/test.jsonl")
        if row["messages"][-1]["content"] == "it is a better reference."
    ]
    assert len(better) == 1
    page.go("runs", "Runs")
    page.press("Compare the latest runs")
    page.see("journey-v2 and journey-v1", "#content", 60)
    page.see("test rows of both")
    page.picture("ui-runs")


def _question(row: dict[str, Any]) -> str:
    return row["messages"][0]["content"]
