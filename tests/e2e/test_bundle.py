"""A bundle of the tiny run is proven, compared with a run, and run again in an empty copy to the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from project_copy import Project
from snaketune.bundle import archive, contents

pytestmark = pytest.mark.e2e


def make(project: Project, action: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `make verify` and `make unpack` run."""
    return subprocess.run(
        [sys.executable, "-m", "snaketune.bundle.handover", action, *arguments],
        cwd=project.folder,
        env=os.environ | {"PYTHONPATH": str(project.folder / "scripts")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def bundled(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny run with a bundle of everything."""
    project = finished.twin(tmp_path_factory.mktemp("bundle") / "project")
    done = project.snakemake("bundle", "--config", "package={bundle: [inputs, products]}")
    assert done.returncode == 0, done.stdout
    return project


def test_a_bundle_is_whole_and_of_this_run(bundled: Project) -> None:
    done = make(bundled, "verify", "results/tiny/tiny.zip", "tiny")
    assert done.returncode == 0, done.stderr
    assert "all as they were written" in done.stdout
    assert "the same bytes as in the bundle" in done.stdout


def test_making_a_bundle_again_gives_the_same_bytes(bundled: Project) -> None:
    bundle = bundled.folder / "results/tiny/tiny.zip"
    before = bundle.read_bytes()
    bundle.unlink()
    done = bundled.snakemake("bundle", "--config", "package={bundle: [inputs, products]}")
    assert done.returncode == 0, done.stdout
    assert bundle.read_bytes() == before


def test_without_request_a_bundle_holds_digests_of_rows_and_no_rows(finished: Project, tmp_path: Path) -> None:
    project = finished.twin(tmp_path / "project")
    done = project.snakemake("bundle")
    assert done.returncode == 0, done.stdout
    names = archive.names(project.folder / "results/tiny/tiny.zip")
    assert not [name for name in names if name.endswith((".gguf", ".safetensors")) or name.startswith("inputs/")]
    assert [name for name in names if name.endswith(".jsonl")] == [
        name for name in sorted(names) if name.endswith("metrics.jsonl")
    ]
    rows = archive.read(project.folder / "results/tiny/tiny.zip", contents.ROWS).decode().splitlines()
    assert len(rows) == 61
    assert {row.partition(",")[0] for row in rows[1:]} == {"train", "valid", "test"}


def test_the_metadata_is_an_ro_crate_that_names_every_member(bundled: Project) -> None:
    bundle = bundled.folder / "results/tiny/tiny.zip"
    graph = json.loads(archive.read(bundle, contents.METADATA))["@graph"]
    entities = {one["@id"]: one for one in graph}
    assert len(entities) == len(graph)
    root = entities["./"]
    assert {"name", "description", "datePublished", "license"} <= root.keys()
    parts = {one["@id"] for one in root["hasPart"]}
    assert parts == set(archive.names(bundle)) - {contents.METADATA, archive.CHECKSUMS}
    stated = archive.checksums(bundle)
    assert all(entities[name].get("sha256", stated[name]) == stated[name] for name in parts)
    named = {one["@id"] for one in [*entities["#run"]["result"], *entities["#run"]["object"], root["mainEntity"]]}
    assert named <= entities.keys()


def test_a_flipped_byte_is_found_and_named(bundled: Project, tmp_path: Path) -> None:
    content = bytearray((bundled.folder / "results/tiny/tiny.zip").read_bytes())
    place = content.rindex(b"general.architecture")  # in the last of the GGUF files
    content[place] ^= 1
    (tmp_path / "changed.zip").write_bytes(content)
    done = make(bundled, "verify", str(tmp_path / "changed.zip"))
    assert done.returncode == 1
    assert "run/model/tiny-q8_0.gguf" in done.stderr
    assert done.stderr.count("  - ") == 1


def test_a_run_with_another_file_is_told_from_the_bundle(bundled: Project, tmp_path: Path) -> None:
    project = bundled.twin(tmp_path / "other")
    path = project.folder / "results/tiny/evaluation/adapter/scores.json"
    path.write_text(path.read_text().replace("0", "1", 1))
    done = make(project, "verify", "results/tiny/tiny.zip", "tiny")
    assert done.returncode == 1
    assert "evaluation/adapter/scores.json: other bytes" in done.stderr
    assert done.stderr.count("  - ") == 1


def test_unpacking_overwrites_nothing_and_writes_nothing_then(bundled: Project, tmp_path: Path) -> None:
    project = Project.copied(tmp_path / "copy")
    project.write("rows.jsonl", "mine\n")
    done = make(project, "unpack", str(bundled.folder / "results/tiny/tiny.zip"))
    assert done.returncode == 1
    assert "rows.jsonl is there already, with another content" in done.stderr
    assert not (project.folder / "tiny.json").exists()


def run_again(bundle: Path, folder: Path) -> None:
    """Run a bundle in an empty copy as docs/handing-on.md says: every product that it lists has the same bytes."""
    run = bundle.stem
    project = Project.copied(folder, f"{run}.json")
    done = make(project, "unpack", str(bundle))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"next: snakemake --configfile {run}.json"
    ran = project.snakemake("bundle")
    assert ran.returncode == 0, ran.stdout
    said = make(project, "verify", str(bundle), run)
    assert said.returncode == 0, said.stderr
    one, two = (archive.checksums(path) for path in (bundle, folder / f"results/{run}/{run}.zip"))
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name] and not contents.is_measured(name)} <= {contents.METADATA}


@pytest.mark.slow
def test_a_bundle_is_run_again_in_an_empty_copy_to_the_same_bytes(bundled: Project, tmp_path: Path) -> None:
    run_again(bundled.folder / "results/tiny/tiny.zip", tmp_path / "elsewhere")


@pytest.mark.slow
def test_the_demos_bundle_is_run_again_in_an_empty_copy_to_the_same_bytes(demo: Project, tmp_path: Path) -> None:
    project = demo.twin(tmp_path / "project")
    done = project.snakemake("bundle", "--config", "package={bundle: [inputs, products]}")
    assert done.returncode == 0, done.stdout
    run_again(project.folder / "results/demo/demo.zip", tmp_path / "elsewhere")
