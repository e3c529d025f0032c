"""Many runs of `snakemake` from one process: it imports Snakemake once, and forks for each.

Started as a program: reads one JSON line a request, {"folder", "arguments"}, and answers one JSON line with the exit
code and what Snakemake printed. A dry run costs a third of what it costs by itself.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", re.MULTILINE)
WILDCARDS = re.compile(r"^    wildcards: (.*)$", re.MULTILINE)
NOWHERE = re.compile(r"Nothing to be done")


class DryRuns:
    """A pool of at most `count` such processes, started when they are needed; may be used from as many threads."""

    def __init__(self, count: int) -> None:
        self.free: queue.LifoQueue[subprocess.Popen[str] | None] = queue.LifoQueue()
        for _ in range(count):
            self.free.put(None)

    def run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `snakemake` there with these arguments; stdout and stderr are one text, as in a terminal."""
        process = self.free.get() or _start()
        try:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps({"folder": str(folder), "arguments": arguments}) + "\n")
            process.stdin.flush()
            code, text = json.loads(process.stdout.readline())
        finally:
            self.free.put(process)
        return subprocess.CompletedProcess(["snakemake", *arguments], code, text)

    def stale(self, folder: Path, *arguments: str) -> set[str]:
        """The jobs that `snakemake -n` would run there, as `rule` or `rule:wildcard`; the stages' targets left out."""
        text = self.run(folder, "-n", "-p", *arguments).stdout  # Snakemake's own text and not our table
        found = {named(rule, below) for rule, below in JOB.findall(text)}
        assert found or NOWHERE.search(text), text
        return found - {"all", "data", "plan", "pilot", "train", "package", "evaluate", "report"}

    def close(self) -> None:
        while not self.free.empty():
            if process := self.free.get():
                assert process.stdin
                process.stdin.close()
                process.wait()


def _start() -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, __file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def named(rule: str, below: str) -> str:
    """`generate_answers:base`; the tiny run has one base, whose key is not said."""
    wildcards = WILDCARDS.search(below)
    if not wildcards or rule in ("fetch_config", "fetch_model", "quantize_base", "tokenize_rows"):
        return rule
    return ":".join([rule, *(part.split("=", 1)[1] for part in wildcards[1].split(", "))])


def answer(folder: str, arguments: list[str]) -> tuple[int, str]:
    """The exit code of Snakemake in a child of this process, and its words."""
    with tempfile.TemporaryFile("w+") as printed:

        def run() -> None:
            os.chdir(folder)
            sys.argv = ["snakemake", *arguments]
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            snakemake.cli.main(arguments)

        _, status = os.waitpid(forked.fork(run), 0)
        printed.seek(0)
        return os.waitstatus_to_exitcode(status), printed.read()


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tests"))
    import forked

    # what Snakemake and the Snakefile import when they need it: here it is imported once for all
    import jsonschema  # noqa: F401
    import pandas  # noqa: F401
    import smart_open  # noqa: F401
    import snakemake.cli
    import snakemake.report
    import snakemake.report.html_reporter

    snakemake.cli.get_argument_parser()  # looks for plugins in all of site-packages, and keeps what it finds
    gc.collect()
    gc.freeze()  # what was imported is no garbage: looking for it took a fifth of a dry run
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)
