"""A project by hand with one run that has rows, answers and settings, and a client that may ask its server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from snaketune.config import schema
from snaketune.files import write_json, write_jsonl
from snaketune.ui.access import Access
from snaketune.ui.project import Project
from snaketune.ui.server import make_app
from starlette.testclient import TestClient
from ui_rows import prediction, record

BASE = "http://127.0.0.1:8471"
TOKEN = "a-token-of-the-tests"
ACCESS = Access("127.0.0.1", 8471, TOKEN)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose run jessy-v1 has answered forty test questions, every other one wrongly."""
    root = tmp_path / "project"
    run = root / "results" / "jessy-v1"
    monkeypatch.chdir(tmp_path)
    rows = {"train": range(40, 100), "valid": range(100, 110), "test": range(40)}
    for split, numbers in rows.items():
        write_jsonl(run / f"data/{split}.jsonl", [record(number) for number in numbers])
    tests = [record(number) for number in rows["test"]]
    plain = [
        {"prompt": one["messages"][0]["content"], "response": one["messages"][1]["content"]}
        for one in map(record, range(110))
    ]
    write_jsonl(root / "data/rows.jsonl", plain)
    given = {
        "run": "jessy-v1",
        "data": {"sources": [{"path": "data/rows.jsonl"}]},
        "package": {"gguf": ["q8_0"]},
    }
    write_json(run / "config.json", schema.complete(given))
    answers = [one["messages"][1]["content"] if at % 2 else "something else" for at, one in enumerate(tests)]
    write_jsonl(
        run / "evaluation/gguf-q8_0/predictions.jsonl", [prediction(*pair) for pair in zip(tests, answers, strict=True)]
    )
    write_jsonl(run / "evaluation/base/predictions.jsonl", [prediction(one, "") for one in tests])
    (root / "Snakefile").write_text("")
    monkeypatch.chdir(root)
    return Project(root)


@pytest.fixture
def client(project: Project) -> Iterator[TestClient]:
    """A client that has the token and the right origin."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Origin": BASE}
    with TestClient(make_app(project, ACCESS), base_url=BASE, headers=headers) as made:
        yield made
