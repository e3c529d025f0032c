"""Loaded by every Python process of a traced run: notes which files of the project its step opens.

Small and plain, since it runs before everything else: no pathlib.
"""

# ruff: noqa: PTH100, PTH118

import os
import re
import sys

FOLDER = os.environ.get("TRACED_INTO")
PROJECT = os.environ.get("TRACED_PROJECT", "")
SCRIPT = re.compile(r"\.snakemake/scripts/tmp[^.]+\.(\w+)\.py$")


def note(event, arguments, seen=set()):  # noqa: B006 - one set a process
    """Bytecode stands for its module: Python opens one or the other."""
    if event != "open" or not isinstance(arguments[0], str):
        return
    path = os.path.abspath(arguments[0])
    if "__pycache__" in path:
        path = re.sub(r"__pycache__/([^/]+?)\.cpython-\d+\.pyc(\.\d+)?$", r"\1.py", path)
    step = os.environ.get("TRACED_STEP")
    if step and path.startswith(PROJECT) and path not in seen:
        seen.add(path)
        with os.fdopen(os.open(os.path.join(FOLDER, step), os.O_WRONLY | os.O_CREAT | os.O_APPEND), "a") as out:
            out.write(os.path.relpath(path, PROJECT) + "\n")


if FOLDER:
    named = SCRIPT.search(os.path.abspath(sys.argv[0])) if getattr(sys, "argv", None) else None
    if named:
        os.environ["TRACED_STEP"] = named[1]
    sys.addaudithook(note)
