"""The patches in rules/snakemake_patches fit the Snakemake that is installed: signatures, names and behavior."""

import ast
import asyncio
import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake
import snakemake.api  # before snakemake.workflow, which needs it
import snakemake.cli
import snakemake.exceptions
import snakemake.workflow
import snakemake_patches
import yaml
from snakemake.dag import DAG
from snakemake.jobs import Job, Reason
from snakemake.persistence import ParamsChange
from snakemake.persistence.file import FilePersistence
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.workflow import Workflow
from snakemake_patches import ancient_inputs, metadata, output_mtimes
from snaketune.errors import ResourceError
from snaketune.runtime.locks import OutputJournal

ROOT = Path(__file__).resolve().parents[3]
PATCHES = [
    path
    for path in sorted((ROOT / "rules/snakemake_patches").glob("*.py"))
    if path.name not in ("__init__.py", "hooks.py", "rerun_reasons.py")
]


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_pinned_version_is_the_one_that_the_patches_were_tested_with() -> None:
    pinned = re.search(r"^snakemake==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    assert pinned[1] == snakemake_patches.TESTED_VERSION == snakemake.__version__


@pytest.mark.parametrize("version", [f"{snakemake_patches.TESTED_VERSION}.1", "9.26.0", "99.0.0"])
def test_another_version_is_refused_by_its_number(version: str) -> None:
    tested = re.escape(snakemake_patches.TESTED_VERSION)
    with pytest.raises(ResourceError, match=rf"this is Snakemake {re.escape(version)}, and .* {tested}"):
        snakemake_patches.check_version(version)


def test_there_are_at_most_six_patches_and_each_says_what_why_and_until_when() -> None:
    assert len(PATCHES) <= 6
    for path in PATCHES:
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        for part in ("Patch of ", "\nReason: ", "\nUpstream: ", "Ends with "):
            assert part in text, f"{path.name} lacks {part.strip()}"


def test_the_command_does_what_the_main_function_of_snakemake_does() -> None:
    """scripts/snakemake_command takes its two calls apart."""
    calls = re.findall(r"[\w.]+\(.*\)", inspect.getsource(snakemake.cli.main))
    assert calls == [
        "main(argv=None)",
        "parse_args(argv)",
        "args_to_api(args, parser)",
        "print_exception(e)",
        "sys.exit(1)",
        "sys.exit(0 if success else 1)",
    ]


def test_what_is_wrapped_takes_the_arguments_that_the_wrappers_pass() -> None:
    assert parameters(ancient_inputs.original) == ["self", "create_inventory"]
    assert inspect.iscoroutinefunction(ancient_inputs.original)
    assert parameters(output_mtimes.original) == ["self", "job", "expanded_output"]
    assert inspect.iscoroutinefunction(output_mtimes.original)
    assert "executor_plugin" in parameters(Workflow.execute)


def test_update_needrun_still_skips_what_is_downstream_and_still_reads_the_edges_from_depending() -> None:
    text = inspect.getsource(ancient_inputs.original)
    assert "masked.update(self.bfs(self.depending, job))" in text  # snakemake#4166: without it the patch has no reason
    assert "depending = self.depending" in text
    assert "f.is_ancient" in text


class File(str):
    def __new__(cls, name: str, *, ancient: bool = False) -> "File":
        file = super().__new__(cls, name)
        file.is_ancient = ancient  # type: ignore[attr-defined]
        return file


def test_edges_of_ancient_files_alone_are_left_out_while_jobs_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = {
        "train_pilot": {"decide_pilot": {File("pilot.safetensors")}, "train": {File("go", ancient=True)}},
        "fetch": {"fuse": {File("model"), File("config", ancient=True)}},
    }
    seen: dict[str, set[str]] = {}

    async def choose(dag: Any, create_inventory: bool = False) -> None:
        assert create_inventory
        seen.update({job: set(dag.depending[job]) for job in ("train_pilot", "fetch", "a leaf")})
        raise RuntimeError

    monkeypatch.setattr(ancient_inputs, "original", choose)
    dag = SimpleNamespace(depending=edges)
    with pytest.raises(RuntimeError):
        asyncio.run(ancient_inputs.ignore_ancient_edges(dag, create_inventory=True))
    assert seen == {"train_pilot": {"decide_pilot"}, "fetch": {"fuse"}, "a leaf": set()}
    assert dag.depending is edges


def test_the_check_of_times_still_refuses_what_the_patch_dates_beforehand() -> None:
    text = inspect.getsource(output_mtimes.original)
    assert "output_mtime < newest_input_mtime" in text
    assert "mtime_uncached(skip_storage=True)" in text


def test_the_workflow_makes_its_persistence_from_the_name_that_is_replaced() -> None:
    text = inspect.getsource(Workflow._prepare_dag)
    assert "persistence = FilePersistence\n" in text
    assert "path=persistence_path" in text
    assert "FilePersistence" in vars(snakemake.workflow)


def test_what_the_persistence_overrides_is_there_with_the_same_arguments() -> None:
    for name in ("has_metadata", "started", "finished", "_input"):
        ours, theirs = getattr(metadata.JournalPersistence, name), getattr(FilePersistence, name)
        assert parameters(inspect.unwrap(theirs)) == parameters(ours), name
        assert inspect.iscoroutinefunction(theirs) == inspect.iscoroutinefunction(ours), name
    assert "self._metadata_path" in inspect.getsource(FilePersistence._read_record_cached)
    assert "self._metadata_path" in inspect.getsource(FilePersistence._write_record)
    assert "path" in parameters(FilePersistence.__init__)
    assert parameters(Job.register) == ["self", "external_jobid"]


@pytest.fixture
def persistence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> metadata.JournalPersistence:
    monkeypatch.chdir(tmp_path)
    reasons: dict[Any, Reason] = {}
    workflow = SimpleNamespace(dag_settings=SimpleNamespace(max_checksum_file_size=100))
    dag = SimpleNamespace(workflow=workflow, reason=lambda job: reasons.setdefault(id(job), Reason()))
    journal = OutputJournal(tmp_path / "results/.made/outputs.jsonl")
    return metadata.JournalPersistence(journal, tmp_path / "results/.made/metadata", dag=dag, nolock=True)


def test_records_lie_with_the_results_and_looking_makes_no_folder_there(
    persistence: metadata.JournalPersistence, tmp_path: Path
) -> None:
    assert persistence._read_record("results/demo/plan.json") is None
    assert not (tmp_path / "results").exists()
    persistence._write_record("results/demo/plan.json", snakemake.persistence.MetadataRecord(rule="forecast_run"))
    persistence._clear_cache()
    assert persistence._read_record("results/demo/plan.json").rule == "forecast_run"
    assert len(list((tmp_path / "results/.made/metadata").iterdir())) == 1
    assert not list((tmp_path / ".snakemake/metadata").iterdir())


def test_an_output_that_is_not_the_recorded_one_is_a_reason_to_run(persistence: metadata.JournalPersistence) -> None:
    output = snakemake.io.IOFile("Zahlen.json")
    job = SimpleNamespace(output=[output])
    assert persistence.has_metadata(job)  # nothing there: whether it is needed is for others to say
    Path(output).write_text("by its step")
    assert not persistence.has_metadata(job)
    persistence._write_record(str(output), snakemake.persistence.MetadataRecord(rule="zaehlen"))
    persistence._clear_cache()
    persistence.journal.add([output])
    assert persistence.has_metadata(job)
    Path(output).write_text("by a person")
    assert not persistence.has_metadata(job)
    reason = persistence.dag.reason(job)
    assert not reason  # until Snakemake has noted it
    reason.no_metadata = True
    assert reason
    assert str(reason) == "Output files are not those that a finished job is recorded to have left"
    reason.mark_finished()
    assert not reason


def test_reasons_have_the_fields_that_ours_reads_and_the_dag_sets_them_from_has_metadata() -> None:
    assert {"no_metadata", "finished"} <= set(Reason.__slots__)
    text = inspect.getsource(ancient_inputs.original)
    assert "persistence.has_metadata(job):\n" in text
    assert "reason.no_metadata = True" in text
    assert "return self._reason[job]" in inspect.getsource(DAG.reason)


def test_only_inputs_that_are_not_ancient_are_compared(persistence: metadata.JournalPersistence) -> None:
    plain, gate = snakemake.io.IOFile("train.safetensors"), snakemake.io.ancient("go")
    gate = snakemake.io.IOFile(gate)
    assert gate.is_ancient
    assert not plain.is_ancient

    class FakeJob:
        input = [plain, gate]  # noqa: RUF012

    assert persistence._input(FakeJob()) == ["train.safetensors"]


def test_the_scheduler_still_waits_for_jobs_at_sigterm_with_a_handler_set_before_onstart() -> None:
    assert "signal.signal(signal.SIGTERM, self.exit_gracefully)" in inspect.getsource(JobScheduler.__init__)
    text = inspect.getsource(Workflow.execute)
    assert text.index("JobScheduler(") < text.index("self._onstart(") < text.index(".schedule()")


def test_whether_jobs_run_here_is_known_when_they_are_made() -> None:
    """`gpu_share` of rules/common.smk asks for it."""
    for runs_here in (True, False):
        plugin = SimpleNamespace(common_settings=SimpleNamespace(local_exec=runs_here))
        assert Workflow.local_exec.fget(SimpleNamespace(executor_plugin=plugin)) is runs_here
    text = inspect.getsource(Workflow.execute)
    assert text.index("self._executor_plugin = executor_plugin") < text.index("self._build_dag(")


def test_outputs_are_removed_after_onstart_and_a_job_is_marked_as_started_then() -> None:
    assert "await self.remove_existing_output()" in inspect.getsource(Job.prepare)
    assert "persistence.started(self, external_jobid)" in inspect.getsource(Job.register)
    assert "await self.dag.workflow.persistence.finished(self)" in inspect.getsource(Job.postprocess)


def test_a_dry_run_counts_its_jobs_before_the_scheduler_takes_them_for_finished() -> None:
    text = inspect.getsource(Workflow.execute)
    assert text.index("event=LogEvent.RUN_INFO") < text.index("# the dryrun case") < text.index("scheduler.schedule()")
    assert text[text.index("# the dryrun case") :].index("RUN_INFO") < text.index("scheduler.schedule()")


def test_a_change_of_params_that_is_none_still_iterates_over_files() -> None:
    unchanged = ParamsChange() | ParamsChange(files={"a"})
    assert not unchanged
    assert list(unchanged) == ["a"]  # `--list-changes params` prints these: without it the override has no reason


def test_the_profile_switches_snakemakes_own_locks_off() -> None:
    assert yaml.safe_load((ROOT / "profiles/default/profile.yaml").read_text())["nolock"] is True
