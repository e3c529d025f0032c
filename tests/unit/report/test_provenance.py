"""run.json: enough to make the run again, and nothing about when or by whom it was made."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from snaketune.config.schema import complete
from snaketune.files import read_json, write_json, write_text
from snaketune.runtime import locks, provenance


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    write_json(tmp_path / "config.json", complete({"run": "jessy-v1", "seed": 7}))
    write_text(tmp_path / "rows.jsonl", '{"text": "a"}\n')
    manifest = {"base": "demo", "revision": "abc", "folder": str(tmp_path / "base"), "files": {"w": {"bytes": 1}}}
    write_json(tmp_path / "model.json", manifest)
    write_text(tmp_path / "jessy-v1-q8_0.gguf", "weights")
    return {
        "config": str(tmp_path / "config.json"),
        "sources": [str(tmp_path / "rows.jsonl")],
        "model": str(tmp_path / "model.json"),
        "products": (str(tmp_path / "jessy-v1-q8_0.gguf"),),
    }


def recorded(inputs: dict[str, Any], record: Path, **more: Any) -> provenance.RunRecord:
    return provenance.write_run_record(provenance.RunInputs(**inputs, **more), record)


def test_the_same_inputs_give_the_same_bytes(inputs: dict[str, Any], tmp_path: Path) -> None:
    recorded(inputs, tmp_path / "run.json")
    recorded(inputs, tmp_path / "again.json")
    assert (tmp_path / "run.json").read_bytes() == (tmp_path / "again.json").read_bytes()


def test_a_product_that_the_journal_knows_is_read_again_only_if_it_has_changed_since(
    inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    journal = locks.OutputJournal(tmp_path / locks.JOURNAL)
    journal.add(inputs["products"])
    monkeypatch.setattr(locks, "sha256", lambda path: read.append(Path(path).name) or "read")
    found = recorded(inputs, tmp_path / "jessy-v1" / "run.json")
    assert found.products[0].sha256 == hashlib.sha256(b"weights").hexdigest()
    assert read == ["rows.jsonl"]
    write_text(tmp_path / "jessy-v1-q8_0.gguf", "other weights")
    assert recorded(inputs, tmp_path / "jessy-v1" / "run.json").products[0].sha256 == "read"


def test_every_input_and_product_is_named_with_its_hash(inputs: dict[str, Any], tmp_path: Path) -> None:
    recorded(inputs, tmp_path / "run.json", template_sha256="0123")
    found = read_json(tmp_path / "run.json")
    assert "fused" not in found
    assert found["sources"][0]["sha256"] == hashlib.sha256(b'{"text": "a"}\n').hexdigest()
    assert found["products"][0]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert found["model"]["revision"] == "abc"
    assert found["seed"] == 7
    assert found["model"]["template_sha256"] == "0123"
    assert {"python", "snakemake", "numpy", "jinja2"} <= set(found["versions"])


@pytest.mark.parametrize("change", ["seed", "source"])
def test_a_change_of_what_the_run_depends_on_shows(inputs: dict[str, Any], tmp_path: Path, change: str) -> None:
    before = recorded(inputs, tmp_path / "run.json")
    if change == "seed":
        write_json(tmp_path / "config.json", read_json(tmp_path / "config.json") | {"seed": 8})
    else:
        write_text(tmp_path / "rows.jsonl", '{"text": "b"}\n')
    assert recorded(inputs, tmp_path / "run.json") != before


def test_neither_the_machines_name_nor_its_owner_is_recorded(inputs: dict[str, Any], tmp_path: Path) -> None:
    recorded(inputs, tmp_path / "run.json")
    said = (tmp_path / "run.json").read_text(encoding="utf-8")
    for secret in (socket.gethostname(), os.environ.get("USER", ""), str(Path.home())):
        assert len(secret) < 5 or secret not in said


def test_uncommitted_changes_and_a_missing_repository_are_told(tmp_path: Path) -> None:
    write_text(tmp_path / "scripts/a.py", "x = 1\n")
    assert provenance.code_state(tmp_path / "scripts").commit is None or not (tmp_path / ".git").exists()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    clean = provenance.code_state(tmp_path)
    assert len(clean.commit) == 40
    assert not clean.changed
    write_text(tmp_path / "scripts/a.py", "x = 2\n")
    changed = provenance.code_state(tmp_path)
    assert changed.changed
    assert changed.digest != clean.digest
