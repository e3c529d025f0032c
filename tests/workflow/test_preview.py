"""`snakemake preview` shows what is trained, before anything is trained."""

import json
import re
from pathlib import Path

import project_copy
import pytest
from project_copy import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = project_copy.tiny(tmp_path_factory.mktemp("preview") / "project")
    rows = [{"prompt": f"what is {n} &amp;?", "response": f"it is {n}.\n<script>"} for n in range(40)]
    made.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return made


def test_five_rows_are_printed_with_the_answers_marked_and_the_page_shows_the_same(project: Project) -> None:
    done = project.snakemake("preview")
    assert done.returncode == 0, done.stdout
    assert re.search(r"5 of \d+ training rows of tiny, as the model reads them:", done.stdout)
    assert len(re.findall(r"^--- \d: rows\.jsonl:\d+, \d+ tokens, \d+ of them trained", done.stdout, re.MULTILINE)) == 5
    assert len(re.findall(r"^.*\[\[it is \d+\.\]\]$", done.stdout, re.MULTILINE)) == 5
    assert len(re.findall(r"^\[\[<script><\S+>\]\]", done.stdout, re.MULTILINE)) == 5
    assert "[[what" not in done.stdout
    page = (project.folder / "results/tiny/data/preview.html").read_text(encoding="utf-8")
    assert page.count("<mark>it is ") == 5
    assert "<script>" not in page
    assert "what is" in page
    found = json.loads((project.folder / "results/tiny/data/preview.json").read_text())
    for row in found["rows"]:
        assert row["num_target_tokens"] < row["tokens"]
    assert not list(project.folder.glob("results/**/*.safetensors")), "the weights and tokens of no one were made"


def test_asking_again_shows_them_again_and_makes_nothing_anew(project: Project) -> None:
    page = project.folder / "results/tiny/data/preview.html"
    before = page.stat().st_mtime_ns
    done = project.snakemake("preview")
    assert "as the model reads them" in done.stdout
    assert page.stat().st_mtime_ns == before


def test_the_page_is_one_file_that_loads_nothing(project: Project) -> None:
    page = Path(project.folder / "results/tiny/data/preview.html").read_text(encoding="utf-8")
    assert "://" not in page
    assert "default-src &#39;none&#39;" in page
