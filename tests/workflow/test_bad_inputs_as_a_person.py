"""Malformed inputs, each run as a person would run it: `snakemake data` on a configuration that names the file."""

import csv
import shutil

import pytest
import yaml
from dry_runs import DryRuns
from project_copy import Project
from snaketune.files import read_json
from tools import BAD_INPUTS, MALFORMED

CASES = BAD_INPUTS / "expected.tsv"
pytestmark = MALFORMED.needed


def cases() -> dict[str, dict[str, str]]:
    if not CASES.is_file():
        return {}
    with open(CASES, encoding="utf-8", newline="") as lines:
        return {row["file"]: row for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)}


# one of each way in which a file is refused or rows are rejected; unit/data/test_bad_inputs.py reads every file
QUICK = (
    "utf16.jsonl",
    "all_bad.jsonl",
    "unknown_fields.jsonl",
    "no_header.csv",
    "one_latin1_line.jsonl",
    "huge_line.jsonl",
    "sharegpt.jsonl",
    "alternating_odd.txt",
    "name with spaces, 'quotes' & $(dollars).jsonl",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.copied(tmp_path_factory.mktemp("bad inputs") / "a project")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in cases()]
)
def test_a_bad_input_comes_out_as_expected(name: str, project: Project, dry_runs: DryRuns) -> None:
    case = cases()[name]
    code, said, report = _data_stage(name, project, dry_runs)
    assert "Traceback" not in said
    if case["outcome"] == "error":
        assert code == 1, said
        message = said[said.index("snaketune:") :].lower()
        for word in case["say"].lower().split():
            assert word in message, said
        return
    assert code == 0, said
    assert report["kept"] == int(case["kept"])
    expected = dict(one.split("=") for one in case["reasons"].split(",") if one)
    assert {reason: str(count) for reason, count in report["reasons"].items() if count} == expected


def _data_stage(name: str, project: Project, dry_runs: DryRuns) -> tuple[int, str, dict]:
    """Exit code, output and data/report.json (where there is one) of `snakemake data` on one of the files."""
    shutil.copy(CASES.parent / name, project.folder / "data" / name)
    source = {"path": f"data/{name}", "format": cases()[name]["format"]}
    data = {"sources": [source], "max_rejected": 1.0, "near_duplicates": False}
    run = f"case{list(cases()).index(name)}"
    project.write("case.yaml", yaml.safe_dump({"run": run, "data": data}))
    done = dry_runs.run(project.folder, "data", "--configfile", "case.yaml")
    report = project.folder / "results" / run / "data/report.json"
    return done.returncode, done.stdout, read_json(report) if report.exists() else {}


def test_the_files_that_are_always_tried_are_among_the_cases() -> None:
    assert len(cases()) >= 45
    assert set(QUICK) <= set(cases())
    assert {cases()[name]["outcome"] for name in QUICK} == {case["outcome"] for case in cases().values()}
