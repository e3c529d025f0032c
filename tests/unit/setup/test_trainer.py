"""A trainer's environment shares the set-up's packages exactly where the versions are the same."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trainer

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set-up with an interpreter and two packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    for name, version in (("transformers", "5.1.0"), ("Some_Torch", "2.9.0+cpu")):
        (packages / f"{name}-{version}.dist-info").mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (packages / f"{name}-{version}.dist-info" / "METADATA").write_text(text)
    monkeypatch.setattr(trainer, "ENVIRONMENT", tmp_path / "venv")
    return packages


@pytest.mark.parametrize(
    ("pins", "is_shared"),
    [
        ("transformers==5.1.0\nabsent==1.0\n", True),
        ("transformers==5.1.0\nsome-torch==2.9.0\n", True),
        ("# a comment\ntransformers[extra]==5.1.0; sys_platform == 'linux'\n", True),
        ("transformers==5.1.1\n", False),
        ("transformers==5.1.0\nsome.torch==2.9.1\n", False),
        ("absent==1.0\n", False),
    ],
)
def test_packages_are_shared_only_where_every_common_one_has_the_same_version(
    set_up: Path, pins: str, is_shared: bool
) -> None:
    assert trainer.shared_packages(pins) == (set_up if is_shared else None)


def test_without_a_set_up_nothing_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "ENVIRONMENT", tmp_path)
    assert trainer.shared_packages("transformers==5.1.0\n") is None


@pytest.fixture
def built(set_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment beside the set-up that shares its packages."""
    monkeypatch.setattr(trainer, "ENVIRONMENTS", tmp_path / "trainers")
    folder = tmp_path / "trainers" / "lm-eval"
    assert not trainer.is_built("lm-eval")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (folder / trainer.STAMP).write_text(trainer.digest("lm-eval"))
    assert trainer.is_built("lm-eval")  # one that shares nothing
    trainer.share(set_up, folder)
    assert trainer.is_built("lm-eval")
    return folder


def test_an_environment_is_built_anew_where_the_packages_of_the_set_up_are_gone(built: Path, set_up: Path) -> None:
    set_up.rename(built.parent / "elsewhere")
    assert not trainer.is_built("lm-eval")


def test_an_environment_is_built_anew_where_it_reads_the_packages_of_the_project_that_it_was_copied_from(
    built: Path, set_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tmp_path / "venv", tmp_path / "copy" / "venv", symlinks=True)
    (link,) = built.glob(f"lib/python3*/site-packages/{trainer.SHARED}")
    link.write_text(f"{set_up}\n")  # as an earlier version wrote it
    assert trainer.is_built("lm-eval")
    monkeypatch.setattr(trainer, "ENVIRONMENT", tmp_path / "copy" / "venv")
    assert not trainer.is_built("lm-eval")


def test_a_copied_project_reads_the_packages_of_its_own_set_up(built: Path, tmp_path: Path) -> None:
    for name in ("venv", "trainers"):
        shutil.copytree(tmp_path / name, tmp_path / "copy" / name, symlinks=True)
    for project in (tmp_path, tmp_path / "copy"):
        python = project / built.relative_to(tmp_path) / "bin" / "python"
        done = subprocess.run([python, "-c", "import sys; print(*sys.path, sep='\\n')"], capture_output=True, text=True)
        found = [Path(line) for line in done.stdout.splitlines() if "venv" in line]
        assert [path.relative_to(project / "venv").name for path in found] == ["site-packages"]


@pytest.mark.parametrize("name", ["trl", "mlx-lm"])
def test_pins_of_a_trainer_that_shares_are_those_of_requirements(name: str) -> None:
    """Otherwise the set-up for tests would fetch a second torch."""
    pin = re.compile(r"^([\w-]+)(?:\[\w+\])?==([\w.]+)", re.M)
    ours = dict(pin.findall((ROOT / "requirements.txt").read_text()))
    theirs = dict(pin.findall((ROOT / "envs/trainers" / f"{name}.txt").read_text()))
    assert {one: theirs[one] for one in theirs.keys() & ours.keys()} == {
        one: ours[one] for one in theirs.keys() & ours.keys()
    }
    assert "transformers" in theirs
