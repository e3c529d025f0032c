"""The gate between the pilot and the long training: a file that is there only after a go, or an override."""

from __future__ import annotations

import sys
from pathlib import Path

from snaketune.contracts.pilot import PilotDecision
from snaketune.errors import NoGoError
from snaketune.files import StrPath, read_json, write_text
from snaketune.pilot import criteria

GO = "go\n"
REPORT, OLDER_REPORT = "report/index.html", "report/older.html"
OLDER = (
    '<p role="alert" style="margin:0;padding:1em;background:#fde68a;color:#000">This report is older than the last '
    'pilot, whose decision was no-go: <a href="../pilot/index.html">the pilot\'s page</a>. It describes the model '
    "that was trained before, not the present configuration.</p>"
)


def write_go_or_raise(decision: StrPath, on_no_go: str, go: StrPath) -> None:
    """Write `go` after a go, or after a no-go that the configuration overrides; else raise NoGoError.

    A report that this run already has then moves aside and says at its top that it is older.
    """
    made = read_json(decision, type=PilotDecision)
    if made.decision == "no-go":
        table = criteria.table(made.criteria)
        if on_no_go == "stop":
            older = _set_report_aside(Path(decision).parents[1])
            raise NoGoError(
                f"the pilot's decision{criteria.experiment_note(made.piloted)} is no-go",
                where="pilot",
                why=f"\n{table}\n{older}",
                fix=f"Likely: {made.likely_cause}. Or go on all the same with `pilot.on_no_go: continue`",
            )
        print(f"snaketune: a no-go, overridden by pilot.on_no_go\n{table}", file=sys.stderr)
    write_text(go, GO)


def _set_report_aside(run: Path) -> str:
    """Rename an earlier report of the run and mark it as older; a sentence that says so, empty where there is none."""
    report = run / REPORT
    if not report.is_file():
        return ""
    write_text(run / OLDER_REPORT, report.read_text(encoding="utf-8").replace("<body>", f"<body>{OLDER}", 1))
    report.unlink()
    return f"The report of the training before is now {run / OLDER_REPORT}\n"
