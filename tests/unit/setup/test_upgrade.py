"""`make upgrade` with real pip against an index on loopback, in a small project whose packages are stand-ins."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pins
import pytest
import scratch
from loopback import serving
from package_index import Index, wheel

ROOT = Path(__file__).resolve().parents[3]
DRIVER = f"""
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
import sys; sys.path.insert(0, {str(ROOT / "setup")!r})
from pathlib import Path
from scratch import Check
from upgrade import Upgrade, main
checks = (Check("contract tests", ("tests",)), Check("demo", command=("python", "demo.py")))
raise SystemExit(main(Upgrade(Path.cwd(), checks), sys.argv[1:]))
"""
# in the place of setup/lock.sh and setup/run.sh: pip resolves, and an environment that sees these tests' packages
LOCK = """
set -e
python3 -m pip install --quiet --dry-run --ignore-installed -r requirements.txt
cp requirements.txt requirements.lock
cp requirements.txt requirements-dev.lock
"""
SET_UP = f"""
set -e
test -d .venv || {sys.executable} -m venv --without-pip .venv
echo {Path(pytest.__file__).parents[1]} >"$(echo .venv/lib/python3*/site-packages)/tests.pth"
.venv/bin/python -m pip install --quiet --no-deps -r requirements.txt
"""
FILES = {
    ".gitignore": "/.upgrade/\n",
    "requirements.txt": "# tried together\nsteady==1.0\nbrisk[fast]==1.0; sys_platform == 'linux'\n",
    "requirements.lock": "steady==1.0\nbrisk==1.0\n",
    "requirements-dev.lock": "steady==1.0\nbrisk==1.0\n",
    "envs/data.yaml": "- 'steady==1.0'\n- 'steady-other==1.0'\n",
    "setup/lock.sh": LOCK,
    "setup/run.sh": SET_UP,
    "tests/test_steady.py": "import steady\n\ndef test_steady_is_there():\n    assert steady.VERSION\n",
    "tests/test_brisk.py": """
import brisk

def test_brisk_stays_at_one():
    assert brisk.VERSION[0] == '1', 'brisk is another'
""",
    "demo.py": "import brisk, steady\n",
}


class Workplace:
    """A small project under git, and an index on loopback that pip is configured with."""

    def __init__(self, folder: Path, index: str) -> None:
        self.folder, self.packages = folder / "project", folder / "index"
        for name, text in FILES.items():
            self.write(name, text)
        self._git("init", "--quiet")
        self._git("add", ".")
        self._git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
        env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        self.env = env | {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index, "PIP_NO_CACHE_DIR": "1"}
        self.env |= {"no_proxy": "127.0.0.1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        for name in ("steady", "brisk"):
            self.offer(name, "1.0")

    def _git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=True).stdout

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def offer(self, name: str, version: str, *requires: str) -> None:
        wheel(self.packages / name, name, version, requires)

    def start(self, *only: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", DRIVER, *only]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )

    def upgrade(self, *only: str) -> tuple[int, str]:
        """Run it as make does; the exit code and all that was said."""
        process = self.start(*only)
        said = process.communicate(timeout=300)[0]
        return process.returncode, said

    def changed(self) -> list[str]:
        """The files that git sees changed or new."""
        return sorted(line[3:] for line in self._git("status", "--porcelain").splitlines())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with serving(Index) as server:
        server.told = [str(tmp_path)]
        yield Workplace(tmp_path, f"{server.address}/index")


def test_newer_versions_that_hold_are_raised_wherever_they_are_pinned(place: Workplace) -> None:
    place.offer("steady", "1.1")
    place.offer("brisk", "1.0.1")
    code, said = place.upgrade()
    assert code == 0, said
    assert place.changed() == ["envs/data.yaml", "requirements-dev.lock", "requirements.lock", "requirements.txt"]
    assert place.read("requirements.txt") == FILES["requirements.txt"].replace("steady==1.0", "steady==1.1").replace(
        "[fast]==1.0", "[fast]==1.0.1"
    )
    assert place.read("envs/data.yaml") == "- 'steady==1.1'\n- 'steady-other==1.0'\n"
    assert "steady   1.0     1.1     holds" in said
    assert not (place.folder / ".upgrade/project").exists()
    code, again = place.upgrade()
    assert code == 0
    assert "every pin is the newest version that pip may take here" in again


def test_a_version_that_breaks_a_contract_is_named_with_the_test_and_no_pin_changes(place: Workplace) -> None:
    place.offer("steady", "1.1")
    place.offer("brisk", "2.0")
    code, said = place.upgrade()
    assert code == 1
    assert place.changed() == []
    assert "brisk 2.0: contract tests\n  tests/test_brisk.py::test_brisk_stays_at_one\n      " in said
    assert "brisk is another" in said
    page = (place.folder / ".upgrade/report.md").read_text()
    assert "| steady | 1.0 | 1.1 | alone lock and set-up and contract tests hold |" in page
    assert "| brisk | 1.0 | 2.0 | breaks contract tests alone |" in page
    assert 'make upgrade ONLY="steady"' in said


@pytest.mark.slow
def test_packages_that_hold_can_be_raised_without_the_others(place: Workplace) -> None:
    place.offer("steady", "1.1")
    place.offer("brisk", "2.0")
    code, said = place.upgrade("steady")
    assert code == 0, said
    assert place.read("requirements.lock").splitlines()[1:] == [
        "steady==1.1",
        "brisk[fast]==1.0; sys_platform == 'linux'",
    ]


def test_an_unknown_package_is_refused_by_its_name(place: Workplace) -> None:
    code, said = place.upgrade("absent")
    assert code == 1
    assert "requirements.txt has no absent" in said


@pytest.mark.slow
def test_versions_that_do_not_go_together_are_told_from_those_that_break(place: Workplace) -> None:
    place.offer("steady", "1.1", "brisk<1.1")
    place.offer("brisk", "1.1")
    code, said = place.upgrade()
    assert code == 1
    assert place.changed() == []
    assert "all together: lock" in said
    assert "steady   1.0     1.1     alone lock and set-up hold" in said


@pytest.mark.slow
def test_what_pip_is_constrained_to_is_the_newest(place: Workplace) -> None:
    place.offer("steady", "1.1")
    place.offer("steady", "3.0")
    place.write(".upgrade/constraints.txt", "# a comment\nsteady<3\n")
    place.env["PIP_CONSTRAINT"] = str(place.folder / ".upgrade/constraints.txt")
    code, said = place.upgrade()
    assert code == 0, said
    assert "steady==1.1" in place.read("requirements.txt")


def test_ctrl_c_leaves_the_project_and_the_next_run_goes_on_with_what_was_not_finished(place: Workplace) -> None:
    place.offer("steady", "1.1")
    place.write("demo.py", "import pathlib, time\npathlib.Path('../demo').touch()\ntime.sleep(600)\n")
    place.write("tests/test_steady.py", "def test_counted():\n    print('x', end='', file=open('../counted', 'a'))\n")
    process = place.start()
    deadline = time.monotonic() + 120
    while not (place.folder / ".upgrade/demo").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    before = place.changed()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "stopped; the project is as it was" in said
    assert place.changed() == before == ["demo.py", "tests/test_steady.py"]
    (place.folder / ".upgrade/project/demo.py").write_text("")  # the copy's, so that the candidate stays the same
    code, again = place.upgrade()
    assert code == 0, again
    assert (place.folder / ".upgrade/counted").read_text() == "x"
    assert "contract tests" not in again
    assert "steady==1.1" in place.read("requirements.lock")


@pytest.mark.slow
def test_a_project_that_changed_meanwhile_keeps_its_pins(place: Workplace) -> None:
    place.offer("steady", "1.1")
    place.write("demo.py", "open('../../tests/test_steady.py', 'a').write('# mine')\n")
    code, said = place.upgrade()
    assert code == 1
    assert "files changed while new versions were tried" in said
    assert "steady==1.0" in place.read("requirements.txt")


def test_raised_version_of_snakemake_and_llama_cpp_agrees_in_all_files_that_state_it(tmp_path: Path) -> None:
    for path in pins.places(ROOT):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    chosen = pins.chosen((ROOT / pins.CHOSEN).read_text())
    for name, old in chosen.items():
        pins.write(tmp_path, pins.Change(name, old, "999.1"))
    pins.write_llama(tmp_path, pins.Change("llama-cpp-python", chosen["llama-cpp-python"], "999.1"), "abc")
    assert set(pins.chosen((tmp_path / pins.CHOSEN).read_text()).values()) == {"999.1"}
    text = "".join(path.read_text() for path in pins.places(tmp_path))
    assert [f"{name}=={old}" for name, old in chosen.items() if f"{name}=={old}" in text] == []
    assert f"Snakemake {chosen['snakemake']}" not in text
    assert 'TESTED_VERSION = "999.1"' in text
    assert 'VERSION = "999.1"\n' in (tmp_path / pins.LLAMA).read_text()
    assert 'ARCHIVE_SHA256 = "abc"\n' in (tmp_path / pins.LLAMA).read_text()


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("snaketune: setting up\nan error\nsnaketune: the disk is full\n", "snaketune: the disk is full"),
        (
            "a.py:3: error: Name is not defined  [name-defined]\nFound 1 error\n",
            "a.py:3: error: Name is not defined  [name-defined]",
        ),
        ("\n  × No solution found when resolving dependencies:\n", "× No solution found when resolving dependencies:"),
        ("only this\n\n", "only this"),
    ],
)
def test_the_line_that_says_why_a_command_failed_is_found(output: str, line: str) -> None:
    assert scratch.first_error(output) == line
