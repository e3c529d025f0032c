"""Many `snakemake -n` from one process: it imports Snakemake once, and forks for each.

Started as a program: reads one JSON line a request, {"folder", "arguments"}, and answers one JSON line with what
Snakemake printed. A dry run costs a third of what it costs by itself.
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import tempfile
from pathlib import Path

JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", re.MULTILINE)
WILDCARDS = re.compile(r"^    wildcards: (.*)$", re.MULTILINE)
NOWHERE = re.compile(r"Nothing to be done")


class DryRuns:
    """A pool of such processes; `stale` may be called from as many threads."""

    def __init__(self, count: int) -> None:
        self.free: queue.Queue[subprocess.Popen[str]] = queue.Queue()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        for _ in range(count):
            self.free.put(
                subprocess.Popen(
                    [sys.executable, __file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"PATH": path, "PYTHONPATH": ""},
                )
            )

    def stale(self, folder: Path, *arguments: str) -> set[str]:
        """The jobs that `snakemake -n` would run there, as `rule` or `rule:wildcard`; the stages' targets left out."""
        process = self.free.get()
        try:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps({"folder": str(folder), "arguments": arguments}) + "\n")
            process.stdin.flush()
            said = json.loads(process.stdout.readline())
        finally:
            self.free.put(process)
        found = {named(rule, below) for rule, below in JOB.findall(said)}
        assert found or NOWHERE.search(said), said
        return found - {"all", "data", "plan", "pilot", "train", "package", "evaluate", "report"}

    def close(self) -> None:
        while not self.free.empty():
            process = self.free.get()
            assert process.stdin
            process.stdin.close()
            process.wait()


def named(rule: str, below: str) -> str:
    """`generate_answers:base`; the tiny run has one base, whose key is not said."""
    wildcards = WILDCARDS.search(below)
    if not wildcards or rule in ("fetch_config", "fetch_model", "quantize_base", "tokenize_rows"):
        return rule
    return ":".join([rule, *(part.split("=", 1)[1] for part in wildcards[1].split(", "))])


def answer(folder: str, arguments: list[str]) -> str:
    """Snakemake's words from a child of this process."""
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if not child:
            try:
                os.chdir(folder)
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                snakemake.cli.main(["-n", *arguments])
            except SystemExit:
                pass
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
        os.waitpid(child, 0)
        said.seek(0)
        return said.read()


if __name__ == "__main__":
    # what Snakemake and the Snakefile import when they need it: here it is imported once for all
    import jsonschema  # noqa: F401
    import pandas  # noqa: F401
    import snakemake.cli
    import snakemake.report
    import snakemake.report.html_reporter

    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)
