"""The card says what was measured; the upload goes only where it was told to, and never shows its token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from loopback import Handler, Server, serving
from packaged_models import Chain
from snaketune import files
from snaketune.config import sections
from snaketune.config.sections import DataConfig, TrainConfig, UploadConfig
from snaketune.contracts.data import SplitReport
from snaketune.contracts.evaluate import Comparison, Score, Selection, VariantScores
from snaketune.contracts.package import Fidelity, UploadRecord
from snaketune.errors import ConfigError, PackageError, ResourceError
from snaketune.package import card
from tiny_models import training_summary

TOKEN = "hf_secretsecretsecret"


class Hub(Handler):
    """As much of the hub's API as a small upload takes; keeps what it was told."""

    def do_POST(self) -> None:
        body = self.body()
        told: list[tuple[str, str, bytes]] = self.server.told
        told.append((self.path, self.headers.get("Authorization", ""), body))
        if self.server.refuses:
            return self._say(403, {"error": "no write access"})
        if self.path.endswith("/repos/create"):
            return self._say(200, {"url": "https://huggingface.co/me/mine", "id": "me/mine", "name": "me/mine"})
        if "/preupload/" in self.path:
            names = [entry["path"] for entry in json.loads(body)["files"]]
            kinds = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self._say(200, {"files": kinds})
        done = {"commitUrl": "https://huggingface.co/me/mine/commit/1", "commitOid": "1", "success": True}
        return self._say(200, done)

    def do_GET(self) -> None:
        self._say(200, {"id": "me/mine", "siblings": [], "sha": "0"})

    def _say(self, status: int, value: Any) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    import huggingface_hub.constants
    import huggingface_hub.hf_api

    with serving(Hub) as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
        monkeypatch.setattr(huggingface_hub.hf_api, "ENDPOINT", server.address, raising=False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def send(folder: Path, *, passed: bool = True, repository: str | None = "me/mine") -> UploadRecord:
    files.write_text(folder / "README.md", "# a card\n")
    files.write_text(folder / "fused" / "config.json", "{}\n")
    numbers = {"rows": 1, "prompts": 1, "answer_tokens": 1}
    record = Fidelity(passed=passed, rows_allowed=1, **numbers, layer_by_layer=False, variants={}, checks=[])
    files.write_json(folder / "fidelity.json", record)
    card.upload_model(
        [folder / "README.md", folder / "fused"],
        UploadConfig(repository=repository, private=True),
        fidelity=folder / "fidelity.json",
        uploaded=folder / "uploaded.json",
    )
    return files.read_json(folder / "uploaded.json", UploadRecord)


def test_the_card_and_the_products_are_committed_to_a_private_repository(hub: Any, tmp_path: Path) -> None:
    assert send(tmp_path).files == ["README.md", "fused/config.json"]
    path, authorization, body = hub.told[0]
    assert path.endswith("/repos/create")
    assert authorization == f"Bearer {TOKEN}"
    assert json.loads(body).get("private") is True or json.loads(body).get("visibility") == "private", body
    assert b"README.md" in hub.told[-1][2]
    assert b"config.json" in hub.told[-1][2]


def test_the_token_is_in_no_file_and_no_message(hub: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    send(tmp_path)
    hub.refuses = True
    with pytest.raises(ResourceError, match="refused the upload") as refused:
        send(tmp_path)
    said = capfd.readouterr()
    kept = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file())
    assert TOKEN not in str(refused.value) + said.out + said.err + kept


def test_nothing_is_sent_without_a_repository_a_token_or_a_passed_gate(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PackageError, match="failed its fidelity checks"):
        send(tmp_path, passed=False)
    with pytest.raises(ConfigError, match="no repository"):
        send(tmp_path, repository=None)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ResourceError, match="no token"):
        send(tmp_path)
    assert hub.told == []


def write_measurements(folder: Path) -> None:
    """Write what a card is made of, but for the fused model and its fidelity; the experiment `small` was chosen."""
    split = SplitReport(
        rows={"train": 80, "valid": 8, "test": 12},
        shares={"train": 0.8, "valid": 0.08, "test": 0.12},
        method="grouped",
        seed=1,
        clusters=0,
        clustered_rows=0,
        declared_rows=0,
        categories={},
        warnings=[],
    )
    files.write_json(folder / "split.json", split)
    files.write_json(folder / "summary.json", training_summary())
    files.write_json(folder / "other.json", training_summary(steps=7))
    selection = Selection(experiment="small", metric="validation_loss", reasons=[], experiments=[])
    files.write_json(folder / "selection.json", selection)
    metrics = {"exact_match": Score(value=0.25, low=0.2, high=0.3)}
    comparison = Comparison(
        confidence=0.95,
        alpha=0.05,
        power=0.8,
        resamples=1000,
        permutations=1000,
        correction="Holm",
        num_tests=0,
        directions={},
        signatures={},
        variants={"base": VariantScores(rows=12, clusters=12, metrics=metrics, categories={})},
        pairs=[],
        forgetting=None,
        thresholds=[],
    )
    files.write_json(folder / "comparison.json", comparison)


def test_model_card_holds_what_was_measured_and_nothing_else(chain: Chain, tmp_path: Path) -> None:
    chain.check(tmp_path / "fidelity.json")
    proof = files.read_json(tmp_path / "fidelity.json")
    proof["variants"]["gguf-q8_0"]["rows"] = 4  # as of a large model, where four rows decided
    files.write_json(tmp_path / "fidelity.json", proof)
    write_measurements(tmp_path)
    train = sections.section(TrainConfig, learning_rate=5e-5, rank=16, alpha=32.0)
    other = sections.section(TrainConfig, learning_rate=0.123, rank=999)
    experiments = [("wide", other, "other.json"), ("small", train, "summary.json"), ("alone", other, "other.json")]
    sources = [{"path": "somewhere/mine.jsonl"}, {"hub": "someone/questions"}]
    tracked = {
        "run": "v1",
        "package": {"gguf": ["q4_k_m"], "mlx": [], "name": "v1", "license": "apache-2.0", "language": ["en", "haw"]},
        "experiments": [
            {"experiment": name, "train": msgspec.to_builtins(settings), "summary": str(tmp_path / summary)}
            for name, settings, summary in experiments
        ],
        "data": {"sources": msgspec.to_builtins(sections.section(DataConfig, sources=sources).sources)},
    }
    card.write(
        card.CardInputs(
            manifest=chain.folder / "fused.json",
            fidelity=tmp_path / "fidelity.json",
            split=tmp_path / "split.json",
            selection=tmp_path / "selection.json",
            comparison=tmp_path / "comparison.json",
        ),
        msgspec.convert(tracked, card.CardConfig),
        tmp_path / "README.md",
    )
    said = (tmp_path / "README.md").read_text(encoding="utf-8")
    metadata = yaml.safe_load(said.split("---\n")[1])
    assert metadata["license"] == "apache-2.0"
    assert metadata["language"] == ["en", "haw"]
    assert "base_model" not in metadata  # a folder on one's own disk is no page of the hub
    assert "| Exact match (higher is better) | 0.25 (0.2 to 0.3) |" in said
    assert "| rows | 80 train, 8 valid, 12 test |" in said
    assert "| data | mine.jsonl, someone/questions |" in said
    assert "| steps | 30 |" in said
    assert "| rank, alpha | 16, 32 |" in said
    assert "| learning rate | 5e-05, cosine |" in said
    assert "999" not in said
    assert "somewhere" not in said
    assert f"on 4 to 12 test rows (up to {proof['answer_tokens']} answer tokens); the checks passed" in said
    assert "q4_k_m" in said
