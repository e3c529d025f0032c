"""The report of an earlier configuration, which stays in the folder when a later pilot says no-go."""

from __future__ import annotations

from pathlib import Path

from snaketune import files
from snaketune.contracts.report import JsonObject
from snaketune.files import StrPath

NAME = "index-older.html"
HEADER = '<header class="top"'
WARNING = (
    '<p class="caution bad" id="older">This report is older than the configuration. It was made with other settings; '
    "with the present ones the pilot said no-go, and nothing was trained. "
    '<a href="../pilot/index.html">The pilot and its reasons</a></p>'
)


def set_aside(folder: StrPath, decision: JsonObject) -> str | None:
    """After a no-go that ends the run, rename the report of the run in `folder` and let it say that it is older.

    Returns the name of the older report, if there is one. The report of the present settings will be made under its
    own name, once there is one.
    """
    current, older = Path(folder, "report/index.html"), Path(folder, "report", NAME)
    if decision.get("decision") == "no-go" and not decision.get("overridden") and current.is_file():
        html = current.read_text(encoding="utf-8")
        files.write_text(older, html.replace(HEADER, f"{WARNING}\n{HEADER}", 1))
        current.unlink()
    return NAME if older.is_file() and not current.is_file() else None
