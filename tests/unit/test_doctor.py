"""`make doctor` says what is here, what it is for and how to get the rest."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from snaketune import doctor


@pytest.fixture(scope="module")
def findings() -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine()}


def test_each_finding_says_what_the_thing_is_for(findings: dict[str, doctor.Finding]) -> None:
    assert all(finding.purpose for finding in findings.values())


def test_what_is_missing_comes_with_the_way_to_get_it(findings: dict[str, doctor.Finding]) -> None:
    assert [name for name, finding in findings.items() if not finding.found and not finding.get] == []


def test_an_engine_is_shown_with_its_version_and_its_device(findings: dict[str, doctor.Finding]) -> None:
    for name in ("engine mlx", "engine llama_cpp"):
        assert re.match(r"[\d.]+ on (cpu|gpu|metal|cuda)\b", findings[name].found or ""), name


def test_the_speed_of_matrix_products_is_measured(findings: dict[str, doctor.Finding]) -> None:
    speed = re.match(r"(\d+) GFLOP/s (a core|in all), \S+", findings["BLAS"].found or "")
    assert speed
    assert int(speed[1]) > 0


def test_packages_of_other_versions_than_the_pinned_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "sacrebleu":
            raise doctor.importlib.metadata.PackageNotFoundError
        return "0.1" if name == "mlx-lm" else found(name)

    found = doctor.importlib.metadata.version
    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    packages = {finding.name: finding for finding in doctor.python_and_packages()}["packages"]
    assert packages.found is None
    assert packages.required
    assert "mlx-lm 0.1, pinned " in packages.purpose
    assert "sacrebleu missing, pinned " in packages.purpose


def test_programs_are_found_on_the_path_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ollama = tmp_path / "ollama"
    ollama.write_text("#!/bin/sh\necho ollama version is 0.34.2\n")
    ollama.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    tools = {finding.name: finding for finding in doctor.tools()}
    assert tools["Ollama"].found == "ollama version is 0.34.2"
    assert {tools[name].found for name in ("Go", "browser", "ccache", "compilers")} == {None}


def test_a_broken_trainer_is_told_from_a_working_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROJECT", tmp_path)
    for name in ("unsloth", "axolotl"):
        (tmp_path / ".trainers" / name / "bin").mkdir(parents=True)
    (tmp_path / ".trainers/unsloth/bin/python").symlink_to(sys.executable)
    trainers = {finding.name: finding.found for finding in doctor.trainers()}
    assert trainers == {"trainer axolotl": None, "trainer unsloth": "works"}


def test_a_finding_fits_a_narrow_terminal() -> None:
    finding = doctor.Finding("Go", None, "tests of Ollama's templates", "apt install golang-go", required=True)
    lines = finding.lines(60)
    assert max(map(len, lines)) <= 60
    assert lines[0].split()[:2] == ["MISSING", "Go"]
    assert "apt install golang-go" in " ".join(lines)


def test_what_a_run_cannot_do_without_ends_the_list_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = doctor.Finding("engine mlx", None, "training", "Run `make setup`.", required=True)
    browser = doctor.Finding("browser", None, "tests of the pages", "apt install chromium")
    monkeypatch.setattr(doctor, "examine", lambda: [browser, engine])
    assert doctor.main() == 1
    assert capsys.readouterr().out.endswith("Missing: engine mlx.\n")
