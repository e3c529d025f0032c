"""The page and its facts, for complete, partial and hostile runs."""

from __future__ import annotations

import html as html_text
import json
import re
import shutil
from pathlib import Path

import pytest
from made_run import HOSTILE, make_run
from snaketune import files
from snaketune.report import facts, page


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("results") / "jessy-v1")


@pytest.fixture
def run(complete: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(complete, tmp_path / "jessy-v1"))


def _written(run: Path, name: str = "report") -> None:
    folder = run / name
    page.run(folder=run, page=folder / "index.html", record=folder / "report.json", form=folder / "human_eval.html")


def test_the_verdict_is_the_pages_first_heading_and_names_the_deployed_file(run: Path) -> None:
    found = facts.collect(run)
    html = page.render(found)
    heading = re.search(r"<h1>(.*?)</h1>", html)
    assert heading is not None
    assert html_text.unescape(heading.group(1)).replace("\u00a0", " ") == found["verdict"]["sentence"]
    assert found["verdict"]["status"] == "better"
    assert found["verdict"]["file"].endswith("jessy-v1-q8_0.gguf")
    assert found["verdict"]["file"] in html


def test_the_same_files_give_the_same_bytes(run: Path) -> None:
    for name in ("one", "two"):
        _written(run, name)
    for name in ("index.html", "report.json", "human_eval.html"):
        assert (run / "one" / name).read_bytes() == (run / "two" / name).read_bytes()


def test_a_page_is_made_whichever_one_file_is_missing_or_damaged(run: Path) -> None:
    names = sorted(
        path.relative_to(run) for path in run.rglob("*.json*") if path.name not in ("test.jsonl", "general.jsonl")
    )
    assert len(names) > 15
    for name in names:
        content = (run / name).read_bytes()
        (run / name).write_bytes(b'{"half')
        found = facts.collect(run)
        assert str(name) in found["damaged"]
        page.render(found)
        (run / name).unlink()
        page.render(facts.collect(run))
        (run / name).write_bytes(content)


def test_a_run_that_stopped_at_its_pilot_says_no_go_and_why(tmp_path: Path) -> None:
    run = make_run(tmp_path / "hopeless")
    for stage in ("train", "model", "evaluation"):
        shutil.rmtree(run / stage)
    files.write_json(run / "pilot/decision.json", {"decision": "no-go", "reasons": ["the loss did not fall"]})
    found = facts.collect(run)
    assert found["verdict"]["status"] == "no-go"
    assert "the loss did not fall" in page.render(found)
    assert "the loss did not fall" in facts.headline(run)


def test_an_overridden_no_go_is_said_beside_the_verdict(run: Path) -> None:
    files.write_json(run / "pilot/decision.json", {"decision": "no-go", "reasons": ["too slow"]})
    assert any("no-go" in caution for caution in facts.collect(run)["verdict"]["cautions"])


def test_hostile_text_is_escaped_wherever_it_comes_from(tmp_path: Path) -> None:
    html = page.render(facts.collect(make_run(tmp_path / "odd", hostile=True)))
    assert html.count("<script") == 1
    assert html.count("</style>") == 1
    assert "<img" not in html
    assert "{{ 7*7 }}" in html
    assert "\x00" not in html
    assert "&lt;script&gt;" in html


def test_a_lone_surrogate_in_an_answer_does_not_stop_the_report(run: Path) -> None:
    path = run / "evaluation/base/predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["answer"] = "half \ud83d of a pair"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _written(run)
    assert "half \ufffd of a pair" in (run / "report/index.html").read_text(encoding="utf-8")


def test_only_declared_files_are_read(run: Path) -> None:
    declared = [path for path in run.rglob("*") if path.is_file() and "adapter" not in path.parts]
    found = facts.collect(run, declared)
    assert [it["name"] for it in found["evaluation"]["artefacts"]] == ["base", "prompted", "gguf-q8_0"]


def test_the_page_of_many_long_rows_stays_under_four_megabytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "long", rows=700, artefacts=("base", "gguf-q8_0"))
    for name in ("base", "gguf-q8_0"):
        path = run / f"evaluation/{name}/predictions.jsonl"
        lines = list(files.read_jsonl(path))
        files.write_jsonl(path, ({**line, "answer": f"<{HOSTILE}" * 20} for line in lines))
    _written(run)
    assert 2_000_000 < (run / "report/index.html").stat().st_size < 4_000_000


def test_text_rows_have_no_answers_and_are_still_shown(tmp_path: Path) -> None:
    found = facts.collect(make_run(tmp_path / "texts", text_rows=True))
    assert found["evaluation"]["answers"]["rows"][0]["change"] is not None
    assert "bits per byte" in page.render(found)
