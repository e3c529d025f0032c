"""Settings, data and model files come from anywhere: none of them leaves the project's folder or runs a command."""

import json
from pathlib import Path

import pytest
import yaml
from dry_runs import DryRuns
from file_access_trace import SECRETS
from project_copy import TINY, Project, tiny

COMMANDS = "$(touch taken) `touch taken`; touch taken | {wildcards.x} {input} {{ }} {% raw %} ' \" \\ <script>"


def test_no_file_of_a_run_holds_a_secret_of_the_environment(finished: Project) -> None:
    said = (finished.folder.parent / "said").read_bytes()
    files = [path for path in finished.folder.rglob("*") if path.is_file()]
    assert len(files) > 100
    for secret in SECRETS.values():
        assert secret.encode() not in said
        assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_text_that_looks_like_commands_stays_text(tmp_path: Path) -> None:
    project = tiny(tmp_path / "project")
    rows = (project.folder / "rows.jsonl").read_text()
    row = {"prompt": COMMANDS, "response": COMMANDS, "category": COMMANDS, "id": COMMANDS}
    project.write("rows; touch taken.jsonl", rows + json.dumps(row) + "\n")
    given = yaml.safe_load(TINY)
    given["data"] |= {"system": COMMANDS, "max_length": 512, "sources": [{"path": "rows; touch taken.jsonl"}]}
    project.write("tiny.yaml", yaml.safe_dump(given))
    done = project.snakemake("plan")
    assert done.returncode == 0, done.stdout
    records = [json.loads(line) for line in (project.folder / "results/tiny/data/records.jsonl").open()]
    assert any(record["messages"][-1]["content"] == COMMANDS for record in records)
    assert all(record["messages"][0]["content"] == COMMANDS for record in records)
    assert not list(project.folder.rglob("taken"))


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        (None, {"run": "../outside"}, "run:"),
        (None, {"run": "tiny\n"}, "run:"),
        (None, {"run": "models"}, "taken"),
        ("experiments", {"../../outside": {"rank": 8}}, "cannot be an experiment's name"),
        ("model", {"base": "tiny-base", "trust_remote_code": True}, "there is no such key"),
        ("package", {"gguf": ["q8_0; touch taken"]}, "package.gguf"),
        ("package", {"name": "--help"}, "package.name"),
        ("evaluate", {"metrics": {"own": {"function": "os:system('touch taken')"}}}, "evaluate.metrics.own.function"),
    ],
)
def test_a_setting_that_would_leave_the_results_is_refused(
    section: str | None, values: dict, words: str, finished: Project, dry_runs: DryRuns, tmp_path: Path
) -> None:
    project = finished.linked_twin(tmp_path / "project")
    given = yaml.safe_load(TINY)
    given |= {section: {**given.get(section, {}), **values}} if section else values
    project.write("tiny.yaml", yaml.safe_dump(given))
    said = dry_runs.run(project.folder, "-n", "--configfile", "tiny.yaml")
    assert said.returncode == 1
    assert words in said.stdout
    assert "Traceback" not in said.stdout
    assert not list(tmp_path.rglob("taken"))
