"""Patches of Snakemake 9.27.1, one file a patch: the upstream code it changes, the reason, and what would end it.

`apply` installs them all and refuses any other version; tests/unit/runtime/test_against_snakemake.py checks everything
that they rely on. What a public hook can do is in `hooks.py`, and what an option can do is in profiles/default.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import snakemake
from snakemake.shell import shell
from snakemake_interface_executor_plugins.settings import ExecMode
from snaketune.errors import COMMAND_VARIABLE, ResourceError, typed_command
from snaketune.runtime.locks import JOURNAL, OutputJournal

TESTED_VERSION = "9.27.1"


def apply(workflow: Any, results: str, run: str) -> None:
    """Install the patches for one workflow; results: the folder of all results, run: the name of its run."""
    check_version(snakemake.__version__)
    # only now: another version may lack what these modules import
    from snakemake_patches import (
        ancient_inputs,
        dry_run_table,
        exclusive_execution,
        metadata,
        output_mtimes,
    )

    journal = OutputJournal(Path(results, JOURNAL))
    ancient_inputs.apply()
    output_mtimes.apply()
    metadata.apply(journal, Path(results, ".made", "metadata"))
    exclusive_execution.apply(workflow, Path(results), run, journal)
    if workflow.exec_mode == ExecMode.DEFAULT:  # a job on another machine keeps that of the run
        os.environ[COMMAND_VARIABLE] = typed_command(sys.argv[1:])
    dry_run_table.apply(workflow, f"{run} ({config_name(workflow)})")
    import_first_in_steps(Path(workflow.basedir, "scripts"))


def config_name(workflow: Any) -> str:
    """Return the configuration that a workflow was started with, as a person names it."""
    given = [os.path.relpath(file) for file in workflow.overwrite_configfiles]
    return " and ".join(given) or "config.yaml"


def import_first_in_steps(library: Path) -> None:
    """Have the steps import the library beside the Snakefile, not one that Python's environment names.

    Snakemake appends its search paths for scripts, after site-packages; processes that it starts inherit this.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(library), os.environ.get("PYTHONPATH")]))


def on_start(workflow: Any, results: str) -> None:
    """Prepare for the jobs that are about to run; for the hook `onstart`."""
    from snakemake_patches import hooks

    if not workflow.touch:
        hooks.back_up_edited_outputs(workflow)
    shell.prefix(hooks.STEP_PREFIX)
    hooks.stop_steps_on_signals(Path(results))


def check_version(version: str) -> None:
    """Refuse a Snakemake that the patches were not tested with."""
    if version != TESTED_VERSION:
        raise ResourceError(
            f"this is Snakemake {version}, and the workflow was tested with {TESTED_VERSION} alone",
            why="Its patches of Snakemake may not fit another version",
            fix="Run `make setup`, which installs that version in .venv, and start snakemake from there",
        )
