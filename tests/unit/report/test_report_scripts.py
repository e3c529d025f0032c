"""The scripts of the report, run as their rules run them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from run_copies import RunCopies
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params
from snaketune.files import read_json, write_json, write_text
from tiny_models import manifest_of

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


def _run(name: str, where: Path, inputs: dict[str, Any] | list[str], outputs: dict[str, Any], **params: str) -> None:
    """Execute a script with the object that Snakemake would give it."""
    snakemake = SimpleNamespace(
        input=InputFiles(fromdict=inputs) if isinstance(inputs, dict) else InputFiles(toclone=inputs),
        output=OutputFiles(fromdict={key: str(path) for key, path in outputs.items()}),
        params=Params(fromdict=params),
        log=Log([str(where / "step.log")]),
    )
    path = SCRIPTS / f"{name}.py"
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), {"snakemake": snakemake, "__name__": "__main__"})


@pytest.fixture
def run(run_copies: RunCopies, tmp_path: Path) -> Path:
    return run_copies.make(tmp_path / "results" / "jessy-v1", rows=12)


def _report(run: Path, inputs: list[str]) -> dict[str, Path]:
    folder = run / "report"
    outputs = {
        "page": folder / "index.html",
        "facts": folder / "report.json",
        "human_eval": folder / "human_eval.html",
        "experiments": folder / "experiments.csv",
    }
    _run("write_report", run, inputs, outputs)
    return outputs


def test_write_report_reads_its_inputs_and_no_other_file(run: Path) -> None:
    files = [str(path) for path in run.rglob("*") if path.is_file() and "prompted" not in path.parts]
    outputs = _report(run, files)
    assert all(path.is_file() for path in outputs.values())
    names = [variant["name"] for variant in read_json(outputs["facts"])["evaluation"]["variants"]]
    assert names == ["base", "adapter", "gguf-q8_0"]


def test_write_report_takes_votes_among_its_inputs(run: Path) -> None:
    write_text(run / "votes/odd.json", "{}")
    outputs = _report(run, [str(path) for path in run.rglob("*") if path.is_file()])
    assert read_json(outputs["facts"])["human_ratings"]["refused"][0]["file"] == "odd.json"


def test_compare_runs_takes_the_reports_of_the_runs(run: Path, tmp_path: Path) -> None:
    _report(run, [str(path) for path in run.rglob("*") if path.is_file()])
    outputs = {"page": tmp_path / "results/runs.html", "facts": tmp_path / "results/runs.json"}
    outputs["table"] = tmp_path / "results/runs.csv"
    _run("compare_runs", tmp_path, {"reports": [str(run / "report/report.json")]}, outputs, config='{"seed":1}')
    assert read_json(outputs["facts"])["runs"][0]["run"] == "jessy-v1"


def test_write_pilot_report_needs_no_more_than_the_decision(run: Path) -> None:
    inputs = {"decision": str(run / "pilot/decision.json"), "config": str(run / "config.json")}
    _run("write_pilot_report", run, inputs, {"page": run / "pilot/index.html"}, config='{"base":"tiny-base"}')
    assert "The pilot says go" in (run / "pilot/index.html").read_text(encoding="utf-8")


def test_record_run_goes_without_what_was_not_made(run: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "model.json", manifest_of(tmp_path))
    write_text(tmp_path / "rows.jsonl", "{}\n")
    inputs = {
        "config": str(run / "config.json"),
        "sources": [str(tmp_path / "rows.jsonl")],
        "model": str(tmp_path / "model.json"),
    }
    _run("record_run", run, inputs, {"record": run / "run.json"}, config='{"model":{"chat_template":null}}')
    assert read_json(run / "run.json")["products"] == []
