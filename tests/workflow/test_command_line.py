"""What a person types after `snakemake`: any order of the words is taken, or answered with one sentence."""

import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project_copy import ROOT, Project, tiny
from snakemake_command import arranged, stages_in_words
from snaketune.errors import ConfigError

STAGES = ["data", "plan", "pilot", "train", "package", "evaluate", "report"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = tiny(tmp_path_factory.mktemp("command") / "project")
    project.write("zweite.yml", "run: second\n")
    return project


@pytest.fixture
def inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script that the set-up writes."""
    spec = importlib.util.spec_from_file_location("command_script", ROOT / "setup/command_script.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    environment = tmp_path_factory.mktemp("environment")
    (environment / "bin").mkdir()
    (environment / "bin/python").symlink_to(sys.executable)
    module.write(environment)
    assert module.is_written(environment)
    script = environment / "bin/snakemake"
    script.write_text(module.script(Path(sys.executable)))  # with the packages of this environment
    return script


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    "typed",
    [
        "pilot --configfile tiny.yaml",
        "--configfile tiny.yaml pilot",
        "--configfile tiny.yaml pilot -n",
        "-n --configfile tiny.yaml pilot",
        "-n pilot --configfile tiny.yaml",
        "--configfile=tiny.yaml pilot",
        "--configfile=tiny.yaml -n pilot",
        "--configfiles tiny.yaml pilot --cores 1",
        "--cores 1 --configfile tiny.yaml pilot",
    ],
)
def test_stage_and_configuration_are_taken_in_either_order(typed: str) -> None:
    words = arranged(typed.split())
    assert words[words.index("--configfile") :] == ["--configfile", "tiny.yaml"]
    assert words.index("pilot") < words.index("--configfile")
    rest = {"-n", "--cores", "1"} & set(typed.split())
    assert set(words) == {"pilot", "--configfile", "tiny.yaml", *rest}


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("typed", ["", "-n", "data", "-R train_adapter --cores 1", "--until pilot"])
def test_words_without_a_configuration_stay_as_they_are(typed: str) -> None:
    assert arranged(typed.split()) == typed.split()


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("typed", "sentences"),
    [
        ("--configfile tiny.yml", ["tiny.yml: there is no such configuration", 'did you mean "tiny.yaml"?']),
        ("--configfile zweite.yaml pilot", ["zweite.yaml: there is no such", 'did you mean "zweite.yml"?']),
        ("--configfile tiny.yaml zweite.yml", ["one configuration, and these are 2: tiny.yaml, zweite.yml"]),
        ("--configfile tiny.yaml --configfile zweite.yml", ["these are 2"]),
        ("tiny.yaml", ["a configuration and not a stage", "Type: snakemake --configfile tiny.yaml"]),
        ("pilot tiny.yaml", ["Type: snakemake pilot --configfile tiny.yaml"]),
        ("-n tiny.yaml", ["a configuration and not a stage"]),
        ("pilto --configfile tiny.yaml", ['there is no stage "pilto"; did you mean "pilot"?']),
        ("--configfile tiny.yaml raport", ['there is no stage "raport"; did you mean "report"?']),
        ("xyz", ['there is no stage "xyz"', "Stages: data, plan, pilot, train, package, evaluate"]),
    ],
)
def test_words_that_cannot_be_meant_get_one_sentence(typed: str, sentences: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        arranged(typed.split())
    for sentence in sentences:
        assert sentence in str(refused.value)


@pytest.mark.usefixtures("inside")
def test_the_list_of_stages_has_a_line_for_each_and_how_to_ask() -> None:
    lines = stages_in_words().splitlines()
    for stage in STAGES:
        assert [line for line in lines if line.startswith(f"{stage} ")]
    assert any("--configfile mine.yaml" in line for line in lines)


def test_the_command_takes_the_configuration_first(command: Path, project: Project) -> None:
    done = run(command, project, "--configfile", "tiny.yaml", "data", "-n")
    assert done.returncode == 0, done.stdout
    first, second, *_ = done.stdout.splitlines()  # and no word about a profile
    assert first == 'snaketune: run "tiny" of tiny.yaml, rows from rows.jsonl; results in results/tiny'
    assert second == "tiny (tiny.yaml): 4 of 4 jobs would run"


def test_the_command_refuses_a_missing_configuration_without_a_traceback(command: Path, project: Project) -> None:
    done = run(command, project, "--configfile", "nowhere.yaml", "pilot")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1


def test_the_command_says_what_snakemake_says_of_an_option_that_is_not_there(command: Path, project: Project) -> None:
    done = run(command, project, "--no-such-option")
    assert done.returncode == 2
    assert "unrecognized arguments: --no-such-option" in done.stdout


def test_the_command_ends_without_a_traceback_where_nobody_reads_on(command: Path, project: Project) -> None:
    line = f"{command} -n --configfile tiny.yaml 2>&1 | head -1"
    done = subprocess.run(["bash", "-c", line], cwd=project.folder, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr + done.stdout


def test_a_profile_that_a_person_names_is_named(command: Path, project: Project) -> None:
    (project.folder / "mine").mkdir()
    project.write("mine/profile.yaml", "cores: 1\n")
    done = run(command, project, "-n", "--profile", "mine")
    assert "Using profiles mine and workflow specific profile profiles/default" in done.stdout


def test_a_key_that_stands_twice_is_refused_also_by_snakemakes_own_command(project: Project) -> None:
    project.write("twice.yaml", "run: x\ntrain:\n  rank: 8\n  alpha: 3\n  rank: 16\n")
    done = Project(project.folder).snakemake("-n", "--configfile", "twice.yaml")
    assert done.returncode == 1
    assert 'twice.yaml:5: "rank" stands twice, first in line 3.' in done.stdout


def test_lm_eval_after_prompt_tuning_is_refused_before_anything_runs(project: Project) -> None:
    project.write("prompt.yaml", "run: x\ntrain: {method: prompt}\n")
    done = Project(project.folder).snakemake("lm_eval", "-n", "--configfile", "prompt.yaml")
    assert done.returncode == 1
    assert "snaketune: " in done.stdout
    assert "lm-eval cannot compare base and fused model after prompt tuning" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.1, 0.3, 0.6, 0.9])
def test_ctrl_c_while_snakemake_starts_leaves_no_traceback(command: Path, project: Project, seconds: float) -> None:
    started = subprocess.Popen(
        [command, "-n"], cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    time.sleep(seconds)
    started.send_signal(signal.SIGINT)
    said, _ = started.communicate(timeout=60)
    assert "Traceback" not in said
    if started.returncode == -signal.SIGINT:  # so early that not even Python had begun; a shell calls it 130
        assert said == ""
    elif started.returncode:  # it may have been done
        assert started.returncode == 130
        assert said.endswith("snaketune: stopped before any step ran\n")


@pytest.mark.parametrize(
    ("typed", "goes_on"),
    [
        ("make run CONFIG=mine.yaml STAGE=pilot", "make run CONFIG=mine.yaml STAGE=pilot"),
        ("make run CONFIG=köln.yaml", "make run CONFIG=köln.yaml"),
        ("make", "make"),
    ],
)
def test_make_is_the_command_that_goes_on_where_make_was_typed(typed: str, goes_on: str) -> None:
    make, *words = typed.split()
    said = subprocess.run([make, "-n", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    [line] = [line for line in said.splitlines() if "COMMAND" in line and "snakemake" in line]
    variables = dict(word.split("=", 1) for word in shlex.split(line) if word.startswith("SNAKETUNE_"))
    assert variables == {"SNAKETUNE_COMMAND": goes_on}


def run(command: Path, project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command, *words],
        cwd=project.folder,
        env=os.environ | {"PYTHONPATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
