"""`make verify BUNDLE=run.zip [RUN=name]` and `make unpack BUNDLE=run.zip`."""

from __future__ import annotations

import sys

from snaketune.bundle import handover
from snaketune.errors import UserError

USAGE = "say which bundle: make verify BUNDLE=run.zip [RUN=name], or make unpack BUNDLE=run.zip"


def main(arguments: list[str]) -> int:
    """`verify BUNDLE [RUN]` or `unpack BUNDLE`; returns the exit code."""
    action, bundle, run, *_ = [*arguments, "", "", ""]
    if action not in ("verify", "unpack") or not bundle:
        print(f"snaketune: {USAGE}", file=sys.stderr)
        return 1
    try:
        if action == "unpack":
            print(f"next: snakemake --configfile {handover.unpack(bundle)}")
            return 0
        print(handover.verify(bundle))
        if run:
            print(handover.compare(bundle, f"results/{run}"))
    except UserError as error:
        print(f"snaketune: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
