"""What each change makes stale, held against `snakemake -n` on a finished run; the tables are in staleness.py."""

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from dry_runs import DryRuns
from file_access_trace import Traced, readers
from project_copy import Project
from snaketune import files
from snaketune.config import schema as configuration
from snaketune.config.schema_nodes import json_schema
from snaketune.contracts.lm_eval import HarnessResults
from snaketune.contracts.package import OllamaCheck
from staleness import ALL_JOBS, CHANGES_FORECAST_ONLY, NO_LONGER_WANTED, NOT_TRACED, READ_AS_ONE, RERUNS, with_consumers

Change = Callable[[Project], None]
CONDA = re.compile(r'^rule (\w+):(?:(?!^rule ).)*?conda:\s+"../envs/(\w+).yaml"', re.MULTILINE | re.DOTALL)


def setting(key: str, values: dict) -> Change:
    """Change values of the section that a key lies in."""

    def change(project: Project) -> None:
        path = project.folder / "tiny.yaml"
        given = yaml.safe_load(path.read_text())
        section = key.split(".")[0] if "." in key else None
        if section:
            given[section] = merged(given.get(section, {}), values)
        else:
            given |= values
        project.write("tiny.yaml", yaml.safe_dump(given))

    return change


def merged(old: dict, new: dict) -> dict:
    return {
        **old,
        **{key: merged(old.get(key, {}), value) if isinstance(value, dict) else value for key, value in new.items()},
    }


def keys_of(rule: dict, above: str = "") -> Iterator[str]:
    """The keys of the schema that hold a value, as `section.key`."""
    below = rule.get("properties")
    if not below:
        yield above
    for key, one in (below or {}).items():
        yield from keys_of(one, f"{above}.{key}".lstrip("."))


def edited(name: str, old: str, new: str) -> Change:
    return lambda project: project.replace(name, old, new)


def appended(name: str, text: str) -> Change:
    def change(project: Project) -> None:
        path = project.folder / name
        content = path.read_bytes()
        path.unlink()  # it is linked to the finished run's
        path.write_bytes(content + text.encode())

    return change


def removed(name: str) -> Change:
    def change(project: Project) -> None:
        path = project.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def touched(project: Project) -> None:
    """Every file of the project, the data and the base model among them, looks as if written now; results do not."""
    for path in files_of(project):
        rewritten(path)(project)


def results_touched(project: Project) -> None:
    """The results too, as after a copy that keeps no times; the order of their times is another one."""
    paths = [path for path in sorted((project.folder / "results").rglob("*")) if path.is_file()]
    random.Random(1).shuffle(paths)
    for path in paths:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)


def recloned(project: Project) -> None:
    """A fresh checkout, into which the finished results are copied."""
    touched(project)
    results_touched(project)
    shutil.rmtree(project.folder / ".snakemake")


def reordered(project: Project) -> None:
    path = project.folder / "tiny.yaml"
    given = yaml.safe_load(path.read_text())
    project.write("tiny.yaml", "# the same settings\n" + yaml.safe_dump(dict(reversed(given.items())), sort_keys=False))


def spelled_out(project: Project) -> None:
    """The configuration with every default written down."""
    path = project.folder / "tiny.yaml"
    project.write("tiny.yaml", yaml.safe_dump(configuration.complete(configuration.read(path))))


def rewritten(name: str) -> Change:
    """The same content, written now."""
    return appended(name, "")


def both(*changes: Change) -> Change:
    def change(project: Project) -> None:
        for one in changes:
            one(project)

    return change


SAVED = with_consumers({"save_config"})
OTHER_CHANGES: dict[str, tuple[Change, set[str]]] = {
    "rank and alpha swapped": (
        setting("train.rank", {"rank": 8, "alpha": 4}),
        SAVED | with_consumers({"forecast_run", "train_adapter:main"}),
    ),
    "the 16-bit GGUF kept": (
        setting("package.gguf", {"gguf": ["q8_0", "f16"]}),
        SAVED | {"convert_gguf"} | with_consumers({"write_card"}),
    ),
    "keys in another order, and a comment": (reordered, set()),
    "defaults spelled out": (spelled_out, set()),
    "a number as text": (edited("tiny.yaml", "learning_rate: 1e-2", "learning_rate: '0.01'"), set()),
    "everything touched": (touched, set()),
    "the data rewritten as they were": (rewritten("rows.jsonl"), set()),
    "cloned again, with the results copied over": (recloned, set()),
    "results copied, their times lost": (results_touched, set()),
    "a comment in a script": (appended("scripts/train_adapter.py", "\n# a thought\n"), set()),
    "a comment in a module": (appended("scripts/snaketune/files.py", "\n# a thought\n"), set()),
    "a docstring": (edited("scripts/snaketune/files.py", '"""Write UTF-8 text', '"""Writes UTF-8 text'), set()),
    "a comment in a rule": (appended("rules/train.smk", "\n# a thought\n"), set()),
    "the folder .snakemake lost": (removed(".snakemake"), set()),
    "the records lost": (both(removed(".snakemake"), removed("results/.made")), ALL_JOBS),
    "the journal of outputs lost": (removed("results/.made/outputs.jsonl"), ALL_JOBS),
    "a setting changed and .snakemake lost": (
        both(setting("evaluate.max_rows", {"max_rows": 13}), removed(".snakemake")),
        SAVED | with_consumers({f"generate_answers:{one}" for one in ("base", "prompted", "adapter", "gguf-q8_0")}),
    ),
    "a lost product": (removed("results/tiny/model/Modelfile"), with_consumers({"write_modelfile"})),
    "a lost adapter": (removed("results/tiny/train/main/adapters.safetensors"), with_consumers({"train_adapter:main"})),
    "a product edited by hand": (
        appended("results/tiny/model/Modelfile", "# mine\n"),
        with_consumers({"write_modelfile"}),
    ),
    "rows of the split edited by hand": (
        appended("results/tiny/data/train.jsonl", "{}\n"),
        with_consumers({"split_rows"}),
    ),
    "an adapter cut short": (
        lambda project: cut(project.folder / "results/tiny/train/main/adapters.safetensors"),
        with_consumers({"train_adapter:main"}),
    ),
    "the fused model lost": (removed("results/tiny/model/fused"), with_consumers({"fuse_adapter"})),
    "the PEFT adapter lost": (removed("results/tiny/model/peft"), with_consumers({"export_adapter"})),
    "a file of the fused model lost": (
        removed("results/tiny/model/fused/tokenizer.json"),
        with_consumers({"fuse_adapter"}),
    ),
    "a file of the fused model changed": (
        appended("results/tiny/model/fused/config.json", "\n"),
        with_consumers({"fuse_adapter"}),
    ),
}


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def furnish(project: Project) -> None:
    """What some settings of the table name."""
    shutil.copytree(project.folder / "tiny-base", project.folder / "other-base")
    shutil.copytree(project.folder / "results/tiny/model", project.folder / "results/older/model")
    project.write("own.py", "def words(answer, reference):\n    return len(answer.split())\n")
    project.write("near.gguf", "an embedding model")


def files_of(project: Project) -> list[str]:
    """The project's own files, data and base model among them."""
    found = [path.relative_to(project.folder) for path in project.folder.rglob("*") if path.is_file()]
    left = {"results", ".snakemake", "vendor", "__pycache__"}
    return sorted(str(path) for path in found if not left & set(path.parts))


def change_of_meaning(name: str) -> Change:
    if name.endswith(".py"):
        return appended(name, "\nCHANGED = 1\n")
    if name == "rows.jsonl":
        return appended(name, '{"prompt": "new?", "response": "yes, new."}\n')
    return appended(name, "\n# changed\n" if name.endswith((".yaml", ".smk", "Snakefile")) else "\n")


def stamps(project: Project) -> dict[Path, tuple[int, int, int]]:
    """What shows that a file was written or replaced, where a copy shares files."""
    paths = [path for path in project.folder.rglob("*") if path.is_file() and ".snakemake" not in path.parts]
    found = {path: path.stat() for path in paths}
    return {path: (one.st_ino, one.st_mtime_ns, one.st_size) for path, one in found.items()}


@pytest.fixture(scope="module")
def tried(
    finished: Project, dry_runs: DryRuns, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[dict[str, Change]], dict[str, set[str]]]]:
    """What is stale after each change, made in a copy of the finished run; none of them reaches that run itself."""
    folder = tmp_path_factory.mktemp("changes")
    before = stamps(finished)

    def all_of(changes: dict[str, Change]) -> dict[str, set[str]]:
        def one(name: str) -> set[str]:
            project = finished.linked_twin(folder / re.sub(r"\W+", "-", name))
            furnish(project)
            changes[name](project)
            stale = dry_runs.stale(project.folder, "--configfile", "tiny.yaml")
            shutil.rmtree(project.folder)
            return stale

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return dict(zip(changes, pool.map(one, changes), strict=True))

    yield all_of
    assert stamps(finished) == before


def differences(expected: dict[str, set[str]], found: dict[str, set[str]]) -> list[str]:
    """A sentence for each change that starts too little or too much."""
    said = []
    for name, jobs in expected.items():
        if missed := sorted(jobs - found[name]):
            said.append(f"{name} must rerun {missed}")
        if needless := sorted(found[name] - jobs):
            said.append(f"{name} must not rerun {needless}")
    return said


def test_every_key_of_the_schema_has_a_row() -> None:
    assert set(keys_of(json_schema())) == set(RERUNS)


def test_every_file_that_the_table_names_exists(finished: Project) -> None:
    names = [*NOT_TRACED, *CHANGES_FORECAST_ONLY, *READ_AS_ONE]
    assert [name for name in names if not list(finished.folder.glob(f"{name}*"))] == []


def test_each_setting_makes_stale_what_depends_on_it_and_nothing_else(tried: Callable) -> None:
    expected = {
        key: with_consumers({"save_config", *starts}) - NO_LONGER_WANTED.get(key, set())
        for key, (_, starts) in RERUNS.items()
    }
    found = tried({key: setting(key, values) for key, (values, _) in RERUNS.items()})
    assert not differences(expected, found)


def test_each_file_makes_stale_the_steps_that_read_it_and_nothing_else(traced: Traced, tried: Callable) -> None:
    names = files_of(traced[0])
    check_files(random.Random(1).sample(names, 40), traced, tried)


@pytest.mark.slow
def test_every_file_makes_stale_the_steps_that_read_it_and_nothing_else(traced: Traced, tried: Callable) -> None:
    check_files(files_of(traced[0]), traced, tried)


def check_files(names: list[str], traced: Traced, tried: Callable) -> None:
    expected = {
        name: with_consumers(
            jobs_of(readers(name, traced[1]) | with_environment(name)) - CHANGES_FORECAST_ONLY.get(name, set())
            | NOT_TRACED.get(name, set())
            | {job for folder, jobs in READ_AS_ONE.items() if name.startswith(folder) for job in jobs}
        )
        for name in names
    }
    found = tried({name: change_of_meaning(name) for name in expected})
    assert not differences(expected, found)


def with_environment(name: str) -> set[str]:
    """The rules that run in an environment, by the text of the rules."""
    texts = [path.read_text() for path in (Path(__file__).parents[2] / "rules").glob("*.smk")]
    return {rule for text in texts for rule, env in CONDA.findall(text) if name == f"envs/{env}.yaml"}


def jobs_of(rules: set[str]) -> set[str]:
    return {job for job in ALL_JOBS if job.split(":")[0] in rules}


@pytest.mark.parametrize("name", OTHER_CHANGES)
def test_other_changes_make_stale_what_depends_on_them_and_nothing_else(name: str, others: dict[str, set[str]]) -> None:
    assert not differences({name: OTHER_CHANGES[name][1]}, others)


@pytest.fixture(scope="module")
def others(tried: Callable) -> dict[str, set[str]]:
    return tried({name: change for name, (change, _) in OTHER_CHANGES.items()})


def test_a_model_is_put_into_ollama_on_request_alone_and_the_report_has_what_was_found(
    finished: Project, tmp_path: Path, dry_runs: DryRuns
) -> None:
    project = finished.linked_twin(tmp_path / "project")
    found = project.folder / "results/tiny/model/ollama.json"
    files.write_json(found, OllamaCheck(model=None, message="it is not installed here"))
    assert dry_runs.stale(project.folder, "--configfile", "tiny.yaml") == {"write_report"}
    setting("train.rank", RERUNS["train.rank"][0])(project)
    stale = dry_runs.stale(project.folder, "--configfile", "tiny.yaml")
    assert "write_report" in stale
    assert "register_ollama" not in stale


def test_lm_eval_runs_on_request_alone_and_its_scores_are_in_the_report_and_the_bundle(
    finished: Project, tmp_path: Path, dry_runs: DryRuns
) -> None:
    project = finished.linked_twin(tmp_path / "project")
    found = project.folder / "results/tiny/lm_eval/results.json"
    files.write_json(found, HarnessResults(version=None, message="it is not installed here", comparisons=[]))
    assert dry_runs.stale(project.folder, "--configfile", "tiny.yaml") == {"write_report"}
    bundled = dry_runs.stale(project.folder, "bundle", "--configfile", "tiny.yaml")
    assert bundled == {"write_report", "bundle_run", "bundle"}
    setting("train.rank", RERUNS["train.rank"][0])(project)
    stale = dry_runs.stale(project.folder, "--configfile", "tiny.yaml")
    assert {"train_adapter:main", "write_report"} <= stale
    assert not stale & {"export_lm_eval", "run_lm_eval"}


def test_a_file_changed_by_hand_is_kept_under_another_name(finished: Project, tmp_path: Path) -> None:
    project = finished.twin(tmp_path / "project")
    made = project.folder / "results/tiny/model/Modelfile"
    before = made.read_text()
    made.write_text(before + "# mine\n")
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    assert made.read_text() == before
    [kept] = made.parent.glob("Modelfile.edited-*")
    assert kept.read_text() == before + "# mine\n"
    assert f"yours is now results/tiny/model/{kept.name}" in done.stdout
    assert "Nothing to be done" in project.snakemake().stdout


# these need another run, base or embedding model
NOT_RUN = ("run", "compare_with", "model.base", "evaluate.similarity", "evaluate.metrics")
# key: products that are no longer wanted after the change; nothing that a run has made is deleted
LEFT_BEHIND = {"package.adapter": ("model/peft/", "model/tiny-lora.gguf")}
SEEDED = [key for key in random.Random(8).sample(sorted(RERUNS), 30) if key not in NOT_RUN][:10]


@pytest.mark.slow
@pytest.mark.parametrize("key", SEEDED)
def test_after_a_change_the_results_are_those_of_a_run_from_scratch(
    key: str, finished: Project, tmp_path: Path
) -> None:
    changed, scratch = finished.twin(tmp_path / "changed"), finished.twin(tmp_path / "scratch")
    shutil.rmtree(scratch.folder / "results")
    shutil.rmtree(scratch.folder / ".snakemake")
    for project in (changed, scratch):
        setting(key, RERUNS[key][0])(project)
        done = project.snakemake()
        assert done.returncode == 0, done.stdout
    different = changed.different(scratch)
    assert [name for name in different if not name.startswith(LEFT_BEHIND.get(key, ()))] == []
    assert not set(different) & scratch.products().keys()
