"""Hub data sets: a local copy of one, and a loopback server in the hub's place with the real huggingface_hub."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from loopback import Handler, serving
from snaketune.data import sources
from snaketune.errors import DataError
from snaketune.files import read_jsonl
from unit.data.data_steps import ask, settings, source, validated, write

ROOT = Path(__file__).resolve().parents[3]
COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
NAMES = ["README.md", "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "extra/train.jsonl"]
LINES = "".join(json.dumps(ask(f"question {n}?", f"answer {n}")) + "\n" for n in range(4)).encode()
CARD = b"---\nconfigs:\n- config_name: main\n  data_files:\n  - {split: train, path: rows/*.jsonl}\n---\n# Rows"
FILES = {
    "README.md": CARD,
    "rows/a.jsonl": LINES,
    "rows/b.jsonl": LINES.replace(b"question", b"further question"),
    "test.jsonl": LINES,
    "pictures.zip": b"never fetched",
}


def select_data_files(card: dict, **request: object) -> list[str]:
    return sources.select_data_files(NAMES, card, source(**({"hub": "a/b"} | request)), "data.sources[0]")


def test_the_files_of_a_split_are_those_that_the_card_names_or_else_that_bear_its_name() -> None:
    assert select_data_files({}) == ["data/train-00000-of-00001.parquet", "extra/train.jsonl"]
    assert select_data_files({}, hub_split="test") == ["data/test-00000-of-00001.parquet"]
    assert select_data_files({}, subset="extra") == ["extra/train.jsonl"]
    card = {
        "configs": [
            {"config_name": "x", "data_files": "extra/*"},
            {"config_name": "y", "data_files": [{"split": "train", "path": "data/train-*"}]},
        ]
    }
    assert select_data_files(card, subset="x") == ["extra/train.jsonl"]
    assert select_data_files(card, subset="y") == ["data/train-00000-of-00001.parquet"]
    with pytest.raises(DataError, match=r"no data file of the split .validation.") as raised:
        select_data_files({}, hub_split="validation")
    assert "data/test-00000-of-00001.parquet" in str(raised.value)


def test_a_local_copy_of_a_data_set_is_read_without_a_network(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    for name in ("data/train-0.jsonl", "data/test-0.jsonl"):
        write(folder / name, ask("q of " + name, "a"))
    validated(tmp_path, settings({"hub": str(folder), "hub_split": "test", "split": "test"}))
    (record,) = read_jsonl(tmp_path / "records.jsonl")
    assert (record["source"], record["split"]) == (f"{folder}/data/test-0.jsonl", "test")


class Hub(Handler):
    """As much of the hub as a download needs."""

    request: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        Hub.request.append(self.path)
        parts = self.path.split("?")[0].strip("/").split("/")
        if "missing" in self.path:
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        if parts[0] == "api":
            if "tree" in parts:
                tree = [{"type": "file", "path": name, "size": len(text), "oid": "0"} for name, text in FILES.items()]
                return self._send(200, json.dumps(tree).encode())
            siblings = [{"rfilename": name} for name in FILES]
            return self._send(200, json.dumps({"id": "org/rows", "sha": COMMIT, "siblings": siblings}).encode())
        content = FILES.get("/".join(parts[5:]))
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        return self._send(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.answer(status, content, {"X-Repo-Commit": COMMIT, **(headers or {})})


@pytest.fixture
def endpoint() -> Iterator[str]:
    with serving(Hub) as server:
        Hub.request = []
        yield server.address


def read(endpoint: str, home: Path, name: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since huggingface_hub reads its environment when it is imported."""
    code = (
        "import sys; from pathlib import Path; from snaketune.runtime import step; from unit.data.data_steps import *\n"
        "with step.running('log'):\n"
        "    validated(Path('out'), settings({'hub': sys.argv[1]}))\n"
    )
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "NO_PROXY": "127.0.0.1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", code, name]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120)


def test_a_split_is_fetched_at_the_commit_of_its_revision_and_nothing_else_is(endpoint: str, tmp_path: Path) -> None:
    done = read(endpoint, tmp_path, "org/rows")
    assert done.returncode == 0, done.stderr
    records = list(read_jsonl(tmp_path / "out/records.jsonl"))
    assert [record["source"] for record in records[::4]] == [f"org/rows@{COMMIT[:12]}/rows/{n}.jsonl" for n in "ab"]
    assert len(records) == 8
    assert not any("pictures" in request or "test.jsonl" in request for request in Hub.request)


def test_a_data_set_that_is_not_there_or_no_network_is_said_in_words(endpoint: str, tmp_path: Path) -> None:
    for where, name, words in (
        (endpoint, "org/missing", "data set org/missing was not found"),
        ("http://127.0.0.1:9", "org/rows", "cannot be fetched"),
    ):
        done = read(where, tmp_path, name)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
