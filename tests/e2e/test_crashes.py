"""However a run ends, `snakemake` goes on from there, and what comes out is what an uninterrupted run gives.

The long series leaves a line for each round in SNAKETUNE_KILLS (a folder; pytest's cache by default) and does not try
a round again that ended well with this code.
"""

import hashlib
import json
import os
from pathlib import Path

import crash
import pytest
from projects import ROOT, Project, tiny

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


def round_of_kills(project: Project, whole: Project, hows: list[str], seed: int) -> dict:
    found = crash.survived(project, hows, seed)
    found["different"] = (
        crash.different(crash.products(project), crash.products(whole)) if found["ended_well"] else None
    )
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_hundred_kills(seed: int, finished: Project, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    folder = os.environ.get("SNAKETUNE_KILLS") or pytestconfig.cache.mkdir("kills")
    ledger, code = Path(folder, "kills.jsonl"), code_of_the_project()
    tried = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    if any(one["seed"] == seed and one["code"] == code and one["survived"] for one in tried):
        pytest.skip(f"survived before with this code: {ledger}")
    hows = [HOWS[(IN_A_ROUND * seed + number) % len(HOWS)] for number in range(IN_A_ROUND)]
    found = round_of_kills(tiny(tmp_path / "killed"), finished, hows, seed)
    survived = found["ended_well"] and not found["different"] and not found["debris"]
    with open(ledger, "a", encoding="utf-8") as out:
        out.write(json.dumps({**found, "code": code, "survived": survived}) + "\n")
    assert_survived(found)
