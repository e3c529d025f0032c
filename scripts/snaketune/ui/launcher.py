"""Starts snakemake for the page: `python -m snaketune.ui.launcher keep|stop WORD ...`, in a group of its own.

keep: this process becomes snakemake, which goes on whatever happens to the server. stop: it watches its standard input,
a pipe that only the server holds open; when the server ends, however it does, the run gets what a Ctrl-C sends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(ending: str, words: list[str]) -> int:
    """Run the command; returns its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    if ending == "keep":
        os.execvp(words[0], words)
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    threading.Thread(target=_watch, args=(process,), daemon=True).start()
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the whole group gets it; snakemake decides when it ends


def _watch(process: subprocess.Popen[bytes]) -> None:
    """Wait until nobody holds the other end of standard input."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    if process.poll() is None:
        process.send_signal(signal.SIGINT)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
