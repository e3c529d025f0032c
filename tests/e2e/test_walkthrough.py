"""docs/walkthrough.md shows commands that work and what they print; it is typed on a terminal here.

`SNAKETUNE_RECORD=1 pytest tests/e2e/test_walkthrough.py -m slow` writes what they print anew.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project_copy import ROOT, Project
from screen import Screen
from test_display import words

PAGE = ROOT / "docs" / "walkthrough.md"
CONSOLE = re.compile(r"```console\n\$ (.+)\n((?:.*\n)*?)```\n")
MAKE_NEW = re.compile(r"make new NAME=(\S+) PRESET=(\S+) DATA=(\S+)")
COLUMNS = 100


def shown(command: str, folder: Path) -> list[str]:
    """What a terminal shows once a command has ended; make new without the set-up, which a copy shares."""
    command = MAKE_NEW.sub(r"python -m snaketune.importers.data_file \1 \2 \3", command)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    given = {"PATH": path, "PYTHONPATH": str(folder / "scripts"), "TERM": "xterm-256color", "LANG": "en_US.UTF-8"}
    environment = {name: value for name, value in os.environ.items() if name not in ("LC_ALL", "NO_COLOR")} | given
    screen = Screen(columns=COLUMNS, rows=60)
    try:
        ends = {"stdin": screen.theirs, "stdout": screen.theirs, "stderr": screen.theirs}
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, start_new_session=True, **ends)
        time.sleep(0.5)  # what is still between the two ends
        assert done.returncode == 0, screen.lines()
        return screen.lines()
    finally:
        screen.close()


@pytest.mark.slow
def test_every_command_of_the_walk_through_works_and_prints_what_the_page_shows(tmp_path: Path) -> None:
    project = Project.copied(tmp_path / "walk")
    page = PAGE.read_text(encoding="utf-8")
    printed: list[str] = []
    for command, recorded in CONSOLE.findall(page):
        lines = shown(command, project.folder)
        printed.append("".join(f"{line}\n" for line in lines if lines != [""]))
        if not os.environ.get("SNAKETUNE_RECORD"):
            assert words(printed[-1]) == words(recorded), command
    if os.environ.get("SNAKETUNE_RECORD"):
        blocks = iter(printed)
        new = CONSOLE.sub(lambda block: f"```console\n$ {block[1]}\n{next(blocks)}```\n", page)
        PAGE.write_text(new, encoding="utf-8")
    assert "ollama create snaketune:numbers -f results/numbers/model/Modelfile" in "".join(printed)
