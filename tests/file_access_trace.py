"""A run of the tiny configuration that notes which files of the project each step opens."""

from __future__ import annotations

from pathlib import Path

from project_copy import Project, tiny

Traced = tuple[Project, dict[str, set[str]]]
SECRETS = {name: f"hf_{name.lower()}_that_nobody_may_see" for name in ("HF_TOKEN", "WANDB_API_KEY")}
PROJECT, NOTED = "a project's folder", "noted"
RECORDER = Path(__file__).with_name("traced")
# run.json describes the whole project; what it says of the code is no reason to write it again, save for the modules
# that write it and the version, which stands in it
DESCRIBES = "record_run"
OF_THE_DESCRIPTION = (
    "scripts/record_run.py",
    "scripts/snaketune/runtime/provenance.py",
    "scripts/snaketune/version.py",
)


def trace_tiny(folder: Path) -> None:
    """Run the tiny configuration to its end below a folder, and note there what its processes opened."""
    noted = folder / NOTED
    noted.mkdir()
    project = tiny(folder / PROJECT)
    done = project.snakemake(
        PYTHONPATH=str(RECORDER), TRACED_INTO=str(noted), TRACED_PROJECT=f"{project.folder.resolve()}/", **SECRETS
    )
    (folder / "said").write_text(done.stdout)
    assert done.returncode == 0, done.stdout


def read_trace(folder: Path) -> Traced:
    """The finished project, and for each rule the paths that its processes opened, relative to the project."""
    opened = {path.name: set(path.read_text().splitlines()) for path in (folder / NOTED).iterdir()}
    return Project(folder / PROJECT, "tiny.yaml"), opened


def readers(name: str, opened: dict[str, set[str]]) -> set[str]:
    """The rules that a file belongs to: those that opened it; its own rule, if it is a rule's script."""
    own = {Path(name).stem} if Path(name).parent == Path("scripts") else set()
    describing = set() if name in OF_THE_DESCRIPTION else {DESCRIBES}
    return own | {rule for rule, paths in opened.items() if name in paths} - describing
