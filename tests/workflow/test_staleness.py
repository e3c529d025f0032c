"""What each change makes stale, written down beforehand and held against `snakemake -n` on a finished run."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from projects import Project
from snaketune import config as configuration

SAVED = {"save_config", "record_run", "write_report"}  # the settings are part of what is recorded and shown
SCORED = {"generate_answers", "score_answers", "compare_scores", "write_card"}
DECIDED = {"decide_pilot", "pass_pilot", "write_pilot"}
GGUF = {"convert_gguf", "quantize_gguf", "write_modelfile", "check_fidelity", "pass_fidelity"}
PACKAGED = {"fuse_adapter", "export_adapter", *GGUF}
CHOSEN = {"train_adapter", "select_experiment", *PACKAGED, *SCORED}
TRAINED = {"try_pilot", "train_pilot", *DECIDED, *CHOSEN}
TOKENISED = {"tokenize_rows", "forecast_run", *TRAINED}
SPLIT = {"split_rows", "check_leaks", "pass_leaks", *TOKENISED}
DATA = {"validate_rows", *SPLIT}
FETCHED = {"fetch_config", "fetch_model"}
REPORTED = {"write_report"}

Change = Callable[[Project], None]


def setting(**sections: dict) -> Change:
    """Change values of the configuration file."""

    def change(project: Project) -> None:
        path = project.folder / "tiny.yaml"
        given = yaml.safe_load(path.read_text())
        for section, values in sections.items():
            given[section] = {**given.get(section, {}), **values} if isinstance(values, dict) else values
        path.write_text(yaml.safe_dump(given))

    return change


def edited(name: str, old: str, new: str) -> Change:
    return lambda project: project.replace(name, old, new)


def appended(name: str, text: str) -> Change:
    def change(project: Project) -> None:
        with open(project.folder / name, "a", encoding="utf-8") as out:
            out.write(text)

    return change


def module(name: str) -> Change:
    """A change of meaning in a library module."""
    return appended(f"scripts/snaketune/{name}", "\nCHANGED = 1\n")


def removed(name: str) -> Change:
    def change(project: Project) -> None:
        (project.folder / name).unlink()

    return change


def touched(project: Project) -> None:
    """Every file of the project, the data and the base model among them, looks as if written now; results do not."""
    for folder, _, names in os.walk(project.folder):
        if not {"results", ".snakemake"} & set(Path(folder).relative_to(project.folder).parts):
            for name in names:
                os.utime(Path(folder, name))


def recloned(project: Project) -> None:
    """The same files written anew, as a checkout does."""
    for name in ("scripts", "rules", "schemas", "envs"):
        shutil.copytree(project.folder / name, project.folder / "again", copy_function=shutil.copyfile)
        shutil.rmtree(project.folder / name)
        (project.folder / "again").rename(project.folder / name)


def reordered(project: Project) -> None:
    path = project.folder / "tiny.yaml"
    given = yaml.safe_load(path.read_text())
    path.write_text("# the same settings\n" + yaml.safe_dump(dict(reversed(given.items())), sort_keys=False))


def spelled_out(project: Project) -> None:
    """The configuration with every default written down."""
    path = project.folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(configuration.complete(configuration.read(path))))


CHANGES: dict[str, tuple[Change, set[str]]] = {
    # settings
    "longer answers": (setting(evaluate={"max_new_tokens": 9}), SAVED | SCORED),
    "more test rows": (setting(evaluate={"max_rows": 13}), SAVED | SCORED),
    "another rank": (setting(train={"rank": 5}), SAVED | TRAINED | {"forecast_run"}),
    "rank and alpha swapped": (setting(train={"rank": 8, "alpha": 4}), SAVED | TRAINED | {"forecast_run"}),
    "another learning rate": (setting(train={"learning_rate": 2e-2}), SAVED | TRAINED | {"forecast_run"}),
    "packed rows": (setting(train={"packing": True}), SAVED | TRAINED | {"forecast_run"}),
    "a command to call at the end": (
        setting(train={"notify": {"command": "true"}}),
        SAVED | DECIDED | {"forecast_run", "try_pilot", "train_pilot"},
    ),
    "more patience with workers": (
        setting(train={"worker_timeout": 60}),
        SAVED | DECIDED | {"forecast_run", "try_pilot", "train_pilot"},
    ),
    "more pilot rows": (setting(pilot={"rows": 24}), SAVED | DECIDED | {"train_pilot"}),
    "fewer hours allowed": (setting(pilot={"max_hours": 9}), SAVED | DECIDED),
    "one more GGUF type": (
        setting(package={"gguf": ["q8_0", "q5_k_m"]}),
        SAVED | {"quantize_gguf", "check_fidelity", "pass_fidelity", "write_card"},
    ),
    "another temperature": (setting(package={"ollama": {"temperature": 0.1}}), SAVED | {"write_modelfile"}),
    "a shorter row limit": (setting(data={"max_length": 60}), SAVED | TOKENISED),
    "another split": (setting(data={"split": {"train": 0.7, "valid": 0.1, "test": 0.2}}), SAVED | SPLIT),
    "a system prompt": (setting(data={"system": "Be brief."}), SAVED | DATA),
    "leaks may pass": (setting(data={"leaks": "warn"}), SAVED | {"check_leaks", "pass_leaks"}),
    "another number format": (setting(model={"dtype": "bfloat16"}), SAVED | TRAINED | {"forecast_run"}),
    "another seed": (setting(seed=2), SAVED | DATA),
    # the same settings, written otherwise
    "keys in another order, and a comment": (reordered, set()),
    "defaults spelled out": (spelled_out, set()),
    "a number as text": (edited("tiny.yaml", "learning_rate: 1e-2", "learning_rate: '0.01'"), set()),
    # data
    "one more row": (
        appended("rows.jsonl", '{"prompt": "new?", "response": "yes, new."}\n'),
        DATA | REPORTED | {"record_run"},
    ),
    "everything touched": (touched, set()),
    "the same files checked out again": (recloned, set()),
    # code
    "a module of the report": (module("report/page.py"), REPORTED | {"write_pilot"}),
    "a module of the Modelfile, which the fidelity check uses too": (
        module("package/modelfile.py"),
        REPORTED | {"write_modelfile", "check_fidelity", "pass_fidelity", "write_card"},
    ),
    "a module of the leak check": (module("data/leaks.py"), REPORTED | {"check_leaks", "pass_leaks"}),
    "a module of the trainer": (
        module("train/checkpoints.py"),
        REPORTED | TRAINED | {"record_run"},
    ),
    "the script of a step": (appended("scripts/write_modelfile.py", "\nCHANGED = 1\n"), REPORTED | {"write_modelfile"}),
    "a comment in a script": (appended("scripts/train_adapter.py", "\n# a thought\n"), set()),
    "a comment in a module": (appended("scripts/snaketune/files.py", "\n# a thought\n"), set()),
    "a docstring": (edited("scripts/snaketune/files.py", '"""Write UTF-8 text', '"""Writes UTF-8 text'), set()),
    "a page template": (appended("report/style.css", "\n/* a thought */\n"), REPORTED | {"write_pilot"}),
    "a pin of the report's environment": (
        edited("envs/report.yaml", "sacrebleu==2.6.0", "sacrebleu==2.6.1"),
        REPORTED | {"compare_scores", "write_card", "write_pilot"},
    ),
    # results
    "a lost product": (removed("results/tiny/model/Modelfile"), REPORTED | {"write_modelfile"}),
    "a lost adapter": (
        removed("results/tiny/train/main/adapters.safetensors"),
        REPORTED | CHOSEN | {"record_run"},
    ),
}


@pytest.fixture(scope="module")
def found(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What is stale after each change, each tried on a copy of the finished run."""
    folder = tmp_path_factory.mktemp("changes")

    def tried(name: str) -> set[str]:
        project = finished.twin(folder / name.replace(" ", "-"))
        CHANGES[name][0](project)
        stale = project.stale()
        shutil.rmtree(project.folder)
        return stale

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(CHANGES, pool.map(tried, CHANGES), strict=True))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_makes_stale_what_depends_on_it_and_nothing_else(name: str, found: dict[str, set[str]]) -> None:
    expected = CHANGES[name][1]
    missed, needless = expected - found[name], found[name] - expected
    assert not missed, f"{name} must rerun {sorted(missed)}"
    assert not needless, f"{name} must not rerun {sorted(needless)}"


def test_a_finished_run_has_nothing_to_do(finished: Project) -> None:
    again = finished.snakemake()
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout
