"""Runs llama-cpp-python's server and writes down the ids that it feeds its model, a line of JSON for each request.

A program of its own: `python recording_server.py RECORD [options of llama_cpp.server]`. It imports nothing of this
project.
"""

import json
import sys

import llama_cpp
from llama_cpp.server import __main__ as server


def main(record: str, options: list[str]) -> None:
    """Serve, with the prompt of every generation written to the file `record`."""
    generate = llama_cpp.Llama.generate

    def recorded(self, tokens, *arguments, **named):  # type: ignore[no-untyped-def]
        with open(record, "a", encoding="utf-8") as out:
            out.write(json.dumps([int(token) for token in tokens]) + "\n")
        return generate(self, tokens, *arguments, **named)

    llama_cpp.Llama.generate = recorded  # type: ignore[method-assign]
    sys.argv = ["llama_cpp.server", *options]
    server.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
