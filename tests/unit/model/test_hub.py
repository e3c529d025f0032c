"""Fetching from a hub: a loopback server stands in its place, huggingface_hub itself is the real one."""

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

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HEADER = b'{"a":{"dtype":"U8","shape":[1048576],"data_offsets":[0,1048576]}}'
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": len(HEADER).to_bytes(8, "little") + HEADER + bytes(range(256)) * 4096,
    "pytorch_model.bin": b"never fetched",
}


class Hub(Handler):
    """As much of the hub as a download needs: model info, and files with ranges."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        Hub.asked.append(f"{self.command} {self.path}")
        parts = self.path.split("?")[0].strip("/").split("/")
        if "gated" in self.path:
            return self._refuse(403, "GatedRepo")
        if "missing" in self.path:
            return self._refuse(401, "RepoNotFound")
        if "nowhere" in self.path:
            return self._refuse(404, "RevisionNotFound")
        if parts[0] == "api":
            listed = [{"rfilename": name, "size": len(content)} for name, content in FILES.items()]
            if "tree" in parts:
                tree = [{"type": "file", "path": one["rfilename"], "size": one["size"], "oid": "0"} for one in listed]
                return self._send(json.dumps(tree).encode())
            return self._send(json.dumps({"id": "org/name", "sha": COMMIT, "siblings": listed}).encode())
        content = FILES.get(parts[-1])
        return self._refuse(404, "EntryNotFound") if content is None else self._send(content)

    def _send(self, content: bytes) -> None:
        start = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(206 if start else 200, content[start:], headers)

    def _refuse(self, status: int, code: str) -> None:
        self.answer(status, headers={"X-Error-Code": code})


@pytest.fixture
def endpoint() -> Iterator[str]:
    with serving(Hub) as server:
        Hub.asked = []
        yield server.address


def fetch(endpoint: str, home: Path, base: str, revision: str = "main") -> subprocess.CompletedProcess[str]:
    """Fetch as the two rules do, in a process of its own, since huggingface_hub reads its environment when imported."""
    code = (
        "import sys; from snaketune.runtime import step; from snaketune.model import download\n"
        "from snaketune.model.manifest import BaseConfig\n"
        "model = BaseConfig(base=sys.argv[1], revision=sys.argv[2])\n"
        "with step.running('log'):\n"
        "    download.fetch_config(model, 'm/key.config.json'); download.fetch_model(model, 'm/key.json')\n"
    )
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "PYTHONPATH": str(SCRIPTS)}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-c", code, base, revision],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_hub_model_is_fetched_at_the_commit_its_revision_stands_at(endpoint: str, tmp_path: Path) -> None:
    done = fetch(endpoint, tmp_path, "org/name")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "m/key.json").read_text())
    assert manifest["commit"] == COMMIT
    assert set(manifest["files"]) == {"config.json", "tokenizer.json", "model.safetensors"}
    weights = manifest["files"]["model.safetensors"]["sha256"]
    assert weights == hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    small = json.loads((tmp_path / "m/key.config.json").read_text())
    assert set(small["files"]) == {"config.json", "tokenizer.json"}
    assert not any(
        "pytorch_model.bin" in asked for asked in Hub.asked if asked.startswith("GET") and "api" not in asked
    )


@pytest.mark.parametrize(
    ("base", "revision", "words"),
    [
        ("org/gated", "main", ["consent", "hf auth login", "org/gated"]),
        ("org/missing", "main", ["model org/missing was not found", "hf auth login"]),
        ("org/name", "nowhere", ['no revision "nowhere"', "model.revision"]),
    ],
)
def test_a_refusal_says_what_to_do(endpoint: str, tmp_path: Path, base: str, revision: str, words: list[str]) -> None:
    done = fetch(endpoint, tmp_path, base, revision)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_without_a_network_the_message_says_what_to_try(tmp_path: Path) -> None:
    done = fetch("http://127.0.0.1:9", tmp_path, "org/name")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m/key.json").exists()
