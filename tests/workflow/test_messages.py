"""A person's mistakes in the configuration end the run with one message, before anything is built."""

import re
from pathlib import Path

import pytest
import yaml
from dry_runs import DryRuns
from project_copy import Project
from snaketune.config import presets

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.copied(tmp_path_factory.mktemp("messages") / "project")


def said_by_us(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("snaketune:")]


def test_a_misspelt_section_says_so_in_one_line(project: Project, dry_runs: DryRuns) -> None:
    original = (project.folder / "config.yaml").read_text()
    project.replace("config.yaml", "\ntrain:", "\ntrian:")
    try:
        done = dry_runs.run(project.folder, "-n")
    finally:
        project.write("config.yaml", original)
    assert done.returncode == 1
    assert said_by_us(done.stdout) == [line for line in done.stdout.splitlines() if "trian" in line]
    assert 'did you mean "train"' in said_by_us(done.stdout)[0]
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ("run: a\ntrain: {rank: -1}\n", ["train.rank", "at least 1"]),
        ("run: a\ndata: {sources: [{path: nowhere.jsonl}]}\n", ["nowhere.jsonl"]),
        ("run: a\nmodel: {base: ./nowhere}\n", ["./nowhere", "model.base"]),
        ("run: a\npackage: {gguf: [q4_k_n]}\n", ["package.gguf", "q4_k_m"]),
        ("run: a\nexperiments: {x: {rnk: 3}}\n", ["rnk", 'did you mean "rank"']),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    project: Project, dry_runs: DryRuns, configuration: str, words: list[str]
) -> None:
    project.write("wrong.yaml", configuration)
    done = dry_runs.run(project.folder, "-n", "--configfile", "wrong.yaml")
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    for word in words:
        assert word in " ".join(said_by_us(done.stdout)), done.stdout
    assert not (project.folder / "results").exists()


def test_a_configuration_of_ones_own_takes_nothing_from_the_demos(project: Project) -> None:
    project.write("own.yaml", "run: own\ndata: {sources: [{path: data/sample.jsonl}]}\n")
    done = project.snakemake("save_config", "--configfile", "own.yaml", "--allowed-rules", "save_config")
    assert done.returncode == 0, done.stdout
    saved = yaml.safe_load((project.folder / "results/own/config.json").read_text())
    assert saved["train"]["max_steps"] is None  # the demo's are 1000
    assert saved["train"]["rank"] == 16


def test_a_step_runs_the_library_beside_the_snakefile_and_no_other(project: Project, tmp_path: Path) -> None:
    """Another one that Python would find, as of the checkout whose environment this one shares."""
    (tmp_path / "snaketune").mkdir()
    (tmp_path / "snaketune/__init__.py").write_text("raise ImportError('the library of another checkout')\n")
    project.write("another.yaml", "run: another\ndata: {sources: [{path: data/sample.jsonl}]}\n")
    target = "results/another/config.json"
    done = project.snakemake(target, "--configfile", "another.yaml", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert (project.folder / target).is_file()


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_dry_runs(project: Project, dry_runs: DryRuns, name: str) -> None:
    done = dry_runs.run(project.folder, "-n", "--configfile", f"presets/{name}.yaml")
    assert done.returncode == 0, done.stdout
    for rule in ("fetch_model", "train_adapter", "quantize_gguf", "write_report"):
        assert re.search(rf"^{rule} .* new$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("stage", ["data", "plan", "pilot", "train", "package", "evaluate", "report"])
def test_each_stage_is_a_target(project: Project, dry_runs: DryRuns, stage: str) -> None:
    done = dry_runs.run(project.folder, "-n", stage)
    assert done.returncode == 0, done.stdout
    assert "Nothing to be done" not in done.stdout
