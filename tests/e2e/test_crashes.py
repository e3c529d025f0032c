"""However a run ends, `snakemake` goes on from there, and what comes out is what an uninterrupted run gives.

The long series leaves a line for each round in SNAKETUNE_KILLS (a folder; pytest's cache by default) and does not try
a round again that ended well with this code.
"""

import hashlib
import json
import os
import random
from pathlib import Path

import crash
import pytest
from project_copy import ROOT, Project, tiny

pytestmark = pytest.mark.e2e
HOWS = list(crash.ENDS)
IN_A_ROUND = 4
ROUNDS = 25


def code_of_the_project() -> str:
    """A digest of everything that decides how a run goes on."""
    files = [
        ROOT / "Snakefile",
        *(path for part in ("rules", "scripts", "profiles") for path in (ROOT / part).rglob("*")),
    ]
    content = [
        path.read_bytes() for path in sorted(files) if path.suffix in ("", ".smk", ".py", ".yaml") and path.is_file()
    ]
    return hashlib.sha256(b"\0".join(content)).hexdigest()[:16]


def round_of_kills(project: Project, whole: Project, hows: list[str], seed: int, longest: float = crash.DELAY) -> dict:
    found = crash.survived(project, hows, seed, longest)
    found["different"] = project.different(whole) if found["ended_well"] else None
    found["debris"] = crash.debris(project)
    return found


def assert_survived(found: dict) -> None:
    assert found["ended_well"], f"{found['kills']}\n{found['said']}"
    assert found["different"] == [], found["kills"]
    assert found["debris"] == [], found["kills"]


def test_a_run_that_was_killed_four_times_ends_in_the_bytes_of_one_that_was_not(
    finished: Project, tmp_path: Path
) -> None:
    project = tiny(tmp_path / "killed")
    found = round_of_kills(project, finished, HOWS[:IN_A_ROUND], seed=8)
    assert_survived(found)
    assert sum(kill["code"] is not None for kill in found["kills"]) >= 3, found["kills"]
    assert "Nothing to be done" in project.snakemake().stdout


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run of other settings and other rows, whose every product is about to become stale."""
    project = tiny(tmp_path_factory.mktemp("before") / "project")
    wanted = {name: (project.folder / name).read_text() for name in ("tiny.yaml", "rows.jsonl")}
    project.write("tiny.yaml", wanted["tiny.yaml"].replace("rank: 4", "rank: 2"))
    project.write("rows.jsonl", wanted["rows.jsonl"].replace("it is", "that is"))
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    for name, text in wanted.items():
        project.write(name, text)
    return project


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_hundred_kills(
    seed: int, finished: Project, before: Project, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Every other round begins with the products of other settings in place."""
    folder = os.environ.get("SNAKETUNE_KILLS") or pytestconfig.cache.mkdir("kills")
    ledger, code = Path(folder, "kills.jsonl"), code_of_the_project()
    tried = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    if any(one["seed"] == seed and one["code"] == code and one["survived"] for one in tried):
        pytest.skip(f"survived before with this code: {ledger}")
    hows = [HOWS[(IN_A_ROUND * seed + number) % len(HOWS)] for number in range(IN_A_ROUND)]
    project = before.twin(tmp_path / "killed") if seed % 2 else tiny(tmp_path / "killed")
    found = round_of_kills(project, finished, hows, seed)
    survived = found["ended_well"] and not found["different"] and not found["debris"]
    with open(ledger, "a", encoding="utf-8") as out:
        out.write(json.dumps({**found, "code": code, "survived": survived}) + "\n")
    assert_survived(found)


@pytest.mark.slow
def test_the_demo_survives_five_kills(demo: Project, tmp_path: Path) -> None:
    hows = random.Random(5).sample(HOWS, 8)  # some of them may come after the end
    found = round_of_kills(Project.copied(tmp_path / "killed"), demo, hows, seed=5, longest=8.0)
    assert_survived(found)
    assert sum(kill["code"] is not None for kill in found["kills"]) >= 5, found["kills"]
