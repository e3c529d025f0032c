"""`snakemake -n` says in one table which steps would run and why, in the words of the configuration."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dry_runs import DryRuns
from project_copy import Project
from snaketune import files
from staleness import RERUNS
from test_staleness import appended, change_of_meaning, furnish, removed, setting

Change = Callable[[Project], None]
LINES = 40

# change: the step that is stale by itself, and the words that say why
SETTINGS = {
    "train.rank": ("train_adapter main", "train.rank 4 -> 5"),
    "train.learning_rate": ("dry_run_pilot", "train.learning_rate 0.01 -> 0.02"),
    "data.max_length": ("tokenize_rows", "data.max_length 64 -> 60"),
    "data.system": ("validate_rows", "data.system null -> Be brief."),
    "model.chat_template": ("fuse_adapter", "model.chat_template null -> chatml"),
    "pilot.max_hours": ("decide_pilot", "pilot.max_hours 10 -> 9"),
    "select.metric": ("save_config", "select.metric validation_loss -> exact_match"),
    "package.gguf": ("write_card", "package.gguf: q5_k_m is new"),
    "package.ollama.temperature": ("write_modelfile", "package.ollama.temperature 0.8 -> 0.1"),
    "evaluate.max_new_tokens": ("generate_answers", "evaluate.max_new_tokens 8 -> 9"),
}
FILES: dict[str, tuple[Change, str, str]] = {
    "rows.jsonl": (change_of_meaning("rows.jsonl"), "validate_rows", "rows.jsonl changed"),
    "an edited product": (
        appended("results/tiny/model/Modelfile", "# mine\n"),
        "write_modelfile",
        "results/tiny/model/Modelfile was changed by hand",
    ),
    "a lost product": (
        removed("results/tiny/model/Modelfile"),
        "write_modelfile",
        "results/tiny/model/Modelfile is missing",
    ),
    "the code of a step": (
        change_of_meaning("scripts/snaketune/package/modelfile.py"),
        "write_modelfile",
        "scripts/snaketune/package/modelfile.py changed",
    ),
    "what Ollama answered": (
        lambda project: (project.folder / "results/tiny/model/ollama.json").write_text("{}"),
        "write_report",
        "ollama",
    ),
    "what lm-eval says": (
        lambda project: files.write_text(project.folder / "results/tiny/lm_eval/results.json", "{}"),
        "write_report",
        "lm_eval",
    ),
    "a template of the report": (change_of_meaning("report/page.html"), "write_report", "report/page.html changed"),
}


@pytest.fixture
def said(finished: Project, dry_runs: DryRuns, tmp_path: Path) -> Iterator[Callable[[Change], list[str]]]:
    """The lines of a dry run after a change in a copy of the finished run."""

    def after(change: Change) -> list[str]:
        project = finished.linked_twin(tmp_path / "project")
        furnish(project)
        change(project)
        return dry_runs.run(project.folder, "-n", "--configfile", "tiny.yaml").stdout.splitlines()

    yield after
    shutil.rmtree(tmp_path / "project", ignore_errors=True)


def row(step: str, lines: list[str]) -> str:
    """The line of a step."""
    [found] = [line for line in lines if line.startswith(step)]
    return found


@pytest.mark.parametrize("key", SETTINGS)
def test_a_changed_setting_is_named_with_both_values_in_the_row_of_a_step(key: str, said: Callable) -> None:
    step, words = SETTINGS[key]
    lines = said(setting(key, RERUNS[key][0]))
    assert words in row(step, lines)
    assert len(lines) <= LINES


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named_in_the_row_of_the_step_that_reads_it(name: str, said: Callable) -> None:
    change, step, words = FILES[name]
    lines = said(change)
    assert words in row(step, lines)
    assert len(lines) <= LINES


def test_a_step_that_is_stale_only_by_another_one_says_which(said: Callable) -> None:
    lines = said(setting("evaluate.max_new_tokens", {"max_new_tokens": 9}))
    assert "after generate_answers" in row("score_answers", lines)


def test_the_first_line_names_run_configuration_and_count(said: Callable) -> None:
    lines = said(setting("package.license", {"license": "mit"}))
    [head] = [line for line in lines if line.startswith("tiny (tiny.yaml): 4 of ")]
    assert "about" in head


def test_a_new_run_fits_the_same_lines(said: Callable) -> None:
    lines = said(removed("results"))
    assert "new" in row("train_adapter", lines)
    assert len(lines) <= LINES


def test_a_hundred_experiments_fit_the_same_lines(said: Callable) -> None:
    rates = [round(1e-4 * number, 4) for number in range(1, 26)]
    lines = said(setting("grid", {"grid": {"learning_rate": rates, "rank": [2, 3, 4, 6]}}))
    assert "100  new" in row("train_adapter", lines)
    assert len(lines) <= LINES


def test_the_option_p_brings_the_words_of_snakemake_back(finished: Project, dry_runs: DryRuns, tmp_path: Path) -> None:
    project = finished.linked_twin(tmp_path / "project")
    setting("package.license", {"license": "mit"})(project)
    text = dry_runs.run(project.folder, "-n", "-p", "--configfile", "tiny.yaml").stdout
    assert "reason: Params have changed" in text.replace("\n", " ")
    assert "This was a dry-run" in text


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted(RERUNS))
def test_every_setting_is_named_within_the_same_lines(key: str, said: Callable) -> None:
    lines = said(setting(key, RERUNS[key][0]))
    assert any(key in line for line in lines)
    assert len(lines) <= LINES
