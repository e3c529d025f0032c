"""Programs in two processes of a torch process group, forked from one that has imported the engine once for all.

Started as a program: reads one JSON line a request, {"program", "arguments"}, and answers one JSON line with what
became of each rank. Importing the engine takes four seconds, and each rank would import it anew.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import forked

TIMEOUT = 120  # seconds for one program


@dataclass(frozen=True)
class Rank:
    """One process that has ended. exit_code: negative for a signal; said: its stdout; errors: its stderr."""

    exit_code: int
    said: str
    errors: str


class TorchRanks:
    """The process that they are forked from; started when it is needed first."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def run(self, program: Path, *arguments: str) -> list[Rank]:
        """Run a Python file as rank 0 and rank 1 of two."""
        if not self.process:
            command, environment = [sys.executable, __file__], os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"program": str(program), "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        return [Rank(**one) for one in json.loads(self.process.stdout.readline())]

    def close(self) -> None:
        if self.process:
            self.process.communicate()


def run_as(rank: int, port: int, program: str, arguments: list[str], folder: str) -> None:
    """Run the program as this rank, and write what it says into the folder."""
    signal.alarm(TIMEOUT)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    for number, name in enumerate(("said", "errors"), 1):
        os.dup2(os.open(f"{folder}/{rank}.{name}", os.O_CREAT | os.O_WRONLY), number)
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


def answer(program: str, arguments: list[str]) -> list[Rank]:
    """What became of the two ranks of a program."""
    port = launcher.free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        children = [forked.fork(partial(run_as, rank, port, program, arguments, folder)) for rank in range(2)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        texts = [[Path(folder, f"{rank}.{name}").read_text() for name in ("said", "errors")] for rank in range(2)]
    return [Rank(code, *text) for code, text in zip(codes, texts, strict=True)]


if __name__ == "__main__":
    # what the programs import: here it is imported once for all
    import tiny_models  # noqa: F401
    from snaketune.engines.torch import loading, lora, process_group, sharding, train, worker  # noqa: F401
    from snaketune.train import launcher

    for line in sys.stdin:
        print(json.dumps([asdict(rank) for rank in answer(**json.loads(line))]), flush=True)
