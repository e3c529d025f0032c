"""Version, date and name are the same wherever a release states them, and the workflow has the catalogue's layout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from snaketune.version import RELEASED, VERSION

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_the_same_in_code_citation_and_changelog() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == VERSION
    assert cited["date-released"] == RELEASED
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    latest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert latest
    assert latest[1] == VERSION


def test_make_version_names_the_project_first_and_then_what_results_depend_on() -> None:
    command = [sys.executable, "-m", "snaketune.runtime.provenance"]
    paths = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    lines = subprocess.run(command, env=paths, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith(f"snaketune {VERSION}, released {RELEASED}")
    assert {"python", "snakemake", "mlx", "mlx-lm"} <= {line.split()[0] for line in lines[1:]}


def test_the_layout_is_what_the_catalogue_of_workflows_reads() -> None:
    catalogue = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))
    assert {"mandatory-flags", "software-stack-deployment", "report"} <= catalogue["usage"].keys()
    assert (ROOT / "Snakefile").is_file()
    assert list((ROOT / "rules").glob("*.smk"))
    assert (ROOT / "config" / "README.md").is_file()
    assert (ROOT / "LICENSE").is_file()


def test_the_checks_of_every_system_run_on_linux_and_apple_silicon_with_metal() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    test = jobs["test"]
    systems = {one["os"] for one in test["strategy"]["matrix"]["include"]}
    assert any(name.startswith("ubuntu") for name in systems)
    assert any(name.startswith("macos") for name in systems)
    assert any(step.get("run") == "bash .ci/metal" and "macOS" in step["if"] for step in test["steps"])
    checked = subprocess.run(["bash", "-n", ROOT / ".ci/metal"], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
