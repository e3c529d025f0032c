"""The form of a new run and the check of its rows: what stands in a field means what the YAML means."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from snaketune.config import presets, schema
from snaketune.errors import ConfigError
from snaketune.ui import data_check, form
from snaketune.ui.checks import CheckJob
from snaketune.ui.project import Project
from starlette.testclient import TestClient

ROWS = {"sources": [{"path": "data/rows.jsonl"}]}
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *sorted((ROOT / "presets").glob("*.yaml"))], ids=lambda path: path.stem
)
def test_fields_of_a_configuration_mean_that_configuration(path: Path) -> None:
    complete = schema.complete({"run": "mine"} | schema.read(path))
    values = form.texts(complete)
    assert form.settings_of(values) == complete
    assert schema.complete(yaml.safe_load(form.to_yaml(complete))) == complete
    assert schema.complete(yaml.safe_load(form.changed_keys(complete))) == complete


def test_every_key_of_the_schema_is_a_field_with_its_help() -> None:
    found = form.describe()
    assert {field.path for field in found.fields} == set(form.leaves())
    assert all(field.help and field.allowed for field in found.fields)
    assert {field.section for field in found.fields} <= {section.name for section in found.sections}
    assert set(found.presets) == set(presets.names())


@settings(max_examples=15)
@given(st.sampled_from(sorted(form.leaves())), st.text(max_size=30))
def test_whatever_is_written_into_a_field_is_a_setting_or_a_mistake_at_that_field(path: str, text: str) -> None:
    values = form.texts(schema.complete({"run": "mine"})) | {path: text}
    try:
        found = form.settings_of(values)
    except ConfigError as error:
        where = error.where.split("[")[0]
        assert where.startswith(path) or path.startswith(where) or where == "data.split"
    else:
        assert schema.complete(yaml.safe_load(form.to_yaml(found))) == found


def test_a_wrong_setting_is_told_at_its_field_and_nothing_is_saved(client: TestClient, project: Project) -> None:
    values = form.texts(schema.complete({"run": "mine"})) | {"train.rank": "0"}
    found = client.post("/api/form/check", json={"values": values}).json()
    assert found["fault"]["where"] == "train.rank"
    refused = client.post("/api/form/save", json={"values": values})
    assert refused.status_code == 422
    assert refused.json()["error"]["where"] == "train.rank"
    assert not (project.root / "mine.yaml").exists()


def test_a_configuration_of_a_person_is_not_overwritten_unless_wanted(client: TestClient, project: Project) -> None:
    (project.root / "mine.yaml").write_text("run: mine # with care\n")
    values = form.texts(schema.complete({"run": "mine", "seed": 7}))
    assert client.post("/api/form/save", json={"values": values}).status_code == 422
    assert "with care" in (project.root / "mine.yaml").read_text()
    assert client.post("/api/form/save", json={"values": values, "overwrite": True}).status_code == 200
    assert yaml.safe_load((project.root / "mine.yaml").read_text())["seed"] == 7


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "models", "x" * 80])
def test_a_name_that_is_no_runs_writes_no_file(client: TestClient, project: Project, name: str) -> None:
    before = sorted(project.root.rglob("*"))
    values = form.texts(schema.complete({"run": "mine"})) | {"run": name}
    assert client.post("/api/form/save", json={"values": values}).status_code == 422
    assert sorted(project.root.rglob("*")) == before


def test_memory_of_the_forecast_grows_with_rank_and_length(client: TestClient) -> None:
    def total(**changed: str) -> int:
        values = form.texts(schema.complete({"run": "mine", "model": {"base": "demo"}, "data": ROWS}))
        found = client.post("/api/form/check", json={"values": values | changed, "rows": 100}).json()
        assert found["fault"] is None, found["fault"]
        assert found["forecast"]["basis"] == "length"
        assert found["forecast"]["steps"] == 19
        return int(found["forecast"]["memory"]["total"])

    plain = total()
    assert total(**{"train.rank": "256"}) > plain
    assert total(**{"data.max_length": "4096"}) > plain


def test_a_base_that_is_not_here_has_no_forecast_and_says_so(client: TestClient) -> None:
    values = form.texts(schema.complete({"run": "mine", "model": {"base": "some/model"}, "data": ROWS}))
    found = client.post("/api/form/check", json={"values": values}).json()
    assert found["forecast"]["basis"] == "nothing"
    assert "some/model is not on this machine" in found["forecast"]["why"]


FOREIGN = ["/etc/passwd", "../secret.yaml", "mlx_lm.lora --config /etc/x.yaml", "data", "data/rows.jsonl", ""]


@pytest.mark.parametrize("source", FOREIGN)
def test_an_import_reads_no_file_but_a_configuration_of_the_project(
    client: TestClient, project: Project, source: str
) -> None:
    (project.root.parent / "secret.yaml").write_text("base_model: x\nlora_r: 8\nmicro_batch_size: 1\n")
    before = sorted(project.root.rglob("*"))
    assert client.post("/api/import", json={"source": source, "name": "taken"}).status_code == 422
    assert sorted(project.root.rglob("*")) == before


def test_a_base_outside_of_the_project_is_not_read(client: TestClient, project: Project) -> None:
    outside = project.root.parent / "model"
    outside.mkdir()
    (outside / "config.json").write_text('{"secret": 1}')
    values = form.texts(schema.complete({"run": "mine", "model": {"base": str(outside)}, "data": ROWS}))
    found = client.post("/api/form/check", json={"values": values}).json()
    assert "outside of the project" in json.dumps(found)
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize("name", ["..%2Fevil.jsonl", "evil.sh", ".hidden.jsonl", "a%00.jsonl", "rows.jsonl", "x.exe"])
def test_an_upload_that_is_no_new_data_file_is_refused(client: TestClient, project: Project, name: str) -> None:
    before = {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()}
    refused = client.post(f"/api/files/{name}", content=b'{"text": "changed"}')
    assert refused.status_code in (404, 422)
    assert {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()} == before


def test_an_upload_over_its_bound_leaves_nothing(
    client: TestClient, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snaketune.ui.uploads.MAX_BYTES", 1000)
    refused = client.post("/api/files/large.jsonl", content=b"x" * 2000)
    assert refused.status_code == 422
    assert [path.name for path in (project.root / "data").iterdir()] == ["rows.jsonl"]


def test_columns_of_an_uploaded_table_are_guessed_and_shown(client: TestClient, project: Project) -> None:
    content = "Frage,Antwort\n" + "".join(f"Was ist {n}?,Es ist {n}.\n" for n in range(5))
    found = client.post("/api/files/fragen.csv", content=content.encode()).json()
    assert "prompt: Frage" in found["source"]
    assert "Was ist 0?" in found["example"]
    assert yaml.safe_load(found["source"])[0]["path"] == "data/fragen.csv"
    assert (project.root / "data/fragen.csv").is_file()


def checked(folder: Path, sources: list[dict[str, Any]], **data: Any) -> data_check.CheckResult:
    from snaketune.config.sections import load
    from snaketune.files import write_json

    config = load(schema.complete({"run": "check", "data": {"sources": sources} | data}))
    folder.mkdir()
    write_json(folder / "job.json", CheckJob(data=config.data, seed=1))
    return data_check.run(folder)


def test_every_row_of_a_broken_file_has_its_verdict(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"question {n} of many", "response": f"answer {n}"}) for n in range(20)]
    lines[3], lines[5] = '{"prompt": ', json.dumps({"prompt": "alone"})
    lines[9] = lines[8]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    result = checked(tmp_path / "check", [{"path": str(path)}], near_duplicates=False)
    assert result.rows == {"kept": 17, "rejected": 2, "duplicate": 1}
    assert result.fault is not None
    assert result.fault.where == "data.max_rejected"
    total, rows = data_check.read_rows(tmp_path / "check", "all", 0, 50)
    assert (total, [row.line for row in rows]) == (20, list(range(1, 21)))
    verdicts = {row.line: (row.verdict, row.reason) for row in rows}
    assert verdicts[4] == ("rejected", "invalid-json")
    assert verdicts[6] == ("rejected", "missing-field")
    assert verdicts[10] == ("duplicate", "")
    assert {row.split for row in rows if row.verdict == "kept"} <= {"train", "valid", "test"}
    assert data_check.read_rows(tmp_path / "check", "rejected", 1, 1)[1][0].line == 6


def test_a_file_without_a_usable_row_is_explained_at_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}\n')
    result = checked(tmp_path / "check", [{"path": str(path)}])
    assert result.rows["rejected"] == 2
    assert result.fault is not None
    assert [row.reason for row in data_check.read_rows(tmp_path / "check", "all", 0, 9)[1]] == ["unknown-format"] * 2


def test_a_page_of_many_rows_is_read_without_those_before_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": f"is {n} a number, or {n * 7}?", "response": f"{n}"}) + "\n" for n in range(20_000)
        )
    )
    checked(tmp_path / "check", [{"path": str(path)}], near_duplicates=False, on_leakage="warn")
    began = time.process_time()
    total, rows = data_check.read_rows(tmp_path / "check", "all", 19_950, 50)
    assert time.process_time() - began < 0.2
    assert (total, rows[-1].line) == (20_000, 20_000)


def test_leaking_rows_of_declared_splits_are_the_fault(tmp_path: Path) -> None:
    for name in ("train", "test"):
        rows = [{"prompt": f"the same question {n}", "response": f"an answer {n}"} for n in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [{"path": str(tmp_path / f"{name}.jsonl"), "split": name} for name in ("train", "test")]
    result = checked(tmp_path / "check", sources)
    assert result.fault is not None
    assert result.fault.where == "data.on_leakage"


AXOLOTL = """
base_model: some/model
adapter: lora
lora_r: 8
lora_alpha: 16
lora_target_linear: true
sequence_len: 512
micro_batch_size: 2
gradient_accumulation_steps: 1
num_epochs: 1
learning_rate: 0.0002
optimizer: adamw_torch
lr_scheduler: cosine
datasets:
  - {path: data/rows.jsonl, ds_type: json, type: alpaca}
val_set_size: 0.1
"""


def test_a_configuration_of_another_tool_is_taken_over_or_says_why_not(client: TestClient, project: Project) -> None:
    sent = client.post("/api/imports/their.yaml", content=AXOLOTL.encode()).json()
    assert sent["files"] == ["data/imported/their.yaml"]
    made = client.post("/api/import", json={"source": "data/imported/their.yaml", "name": "taken"}).json()
    assert made["tool"] == "Axolotl"
    assert made["command"] == "make import FROM=data/imported/their.yaml NAME=taken"
    if made["refused"]:
        without = sorted({one["key"].split(" ")[0] for one in made["refused"]})
        made = client.post(
            "/api/import", json={"source": "data/imported/their.yaml", "name": "taken", "without": without}
        ).json()
    assert made["configuration"] == "taken.yaml"
    assert yaml.safe_load((project.root / "taken.yaml").read_text())["train"]["rank"] == 8
    values = client.get("/api/form/start", params={"kind": "configuration", "name": "taken.yaml"}).json()["values"]
    assert values["train.rank"] == "8"
