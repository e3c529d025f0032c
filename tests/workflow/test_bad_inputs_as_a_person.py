"""Malformed inputs, each run as a person would run it: `snakemake data` on a configuration that names the file."""

import csv
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from project_copy import SHARED, Project
from snaketune.files import read_json

CASES = SHARED / "bad_inputs/expected.tsv"
pytestmark = pytest.mark.skipif(not CASES.is_file(), reason="../shared/bad_inputs is not here")


def cases() -> dict[str, dict[str, str]]:
    if not CASES.is_file():
        return {}
    with open(CASES, encoding="utf-8", newline="") as lines:
        return {row["file"]: row for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, dict]]:
    """Exit code, output and data/report.json (where there is one) of each case."""
    folder = tmp_path_factory.mktemp("bad inputs")
    workers = os.cpu_count() or 1
    projects = [Project.copied(folder / f"project {number}") for number in range(workers)]

    def tried(place: int) -> list[tuple[str, tuple[int, str, dict]]]:
        project, found = projects[place], []
        for name, case in list(cases().items())[place::workers]:
            shutil.copy(CASES.parent / name, project.folder / "data" / name)
            data = {
                "sources": [{"path": f"data/{name}", "format": case["format"]}],
                "max_rejected": 1.0,
                "near_duplicates": False,
            }
            run = f"case{len(found)}"
            project.write("case.yaml", yaml.safe_dump({"run": run, "data": data}))
            done = project.snakemake("data", "--configfile", "case.yaml")
            report = project.folder / "results" / run / "data/report.json"
            found.append((name, (done.returncode, done.stdout, read_json(report) if report.exists() else {})))
        return found

    with ThreadPoolExecutor(workers) as pool:
        return dict(one for found in pool.map(tried, range(workers)) for one in found)


@pytest.mark.parametrize("name", cases())
def test_a_bad_input_comes_out_as_expected(name: str, outcomes: dict[str, tuple[int, str, dict]]) -> None:
    case = cases()[name]
    code, said, report = outcomes[name]
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


def test_every_case_was_tried(outcomes: dict[str, tuple[int, str, dict]]) -> None:
    assert len(outcomes) >= 45
    assert Path(CASES).is_file()
