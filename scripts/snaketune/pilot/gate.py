"""The gate between the pilot and the long training: a file that is there only after a go, or an override."""

from __future__ import annotations

import sys

from snaketune.errors import NoGoError
from snaketune.files import StrPath, read_json, write_text
from snaketune.pilot import criteria

GO = "go\n"


def pass_on(decision: StrPath, on_no_go: str, go: StrPath) -> None:
    """Write `go` after a go, or after a no-go that the configuration overrides; else raise NoGoError."""
    made = read_json(decision)
    if made["decision"] == "no-go":
        table = criteria.table(made["criteria"])
        if on_no_go == "stop":
            raise NoGoError(
                f"the pilot's decision{criteria.tried(made['piloted'])} is no-go",
                where="pilot",
                why=f"\n{table}\n",
                mend=f"Likely: {made['likely_cause']}. Or go on all the same with `pilot.on_no_go: continue`",
            )
        print(f"snaketune: a no-go, overridden by pilot.on_no_go\n{table}", file=sys.stderr)
    write_text(go, GO)
