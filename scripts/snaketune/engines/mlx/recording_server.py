"""Runs mlx_lm.server and writes down the ids that it feeds its model, a line of JSON for each request.

A program of its own: `python recording_server.py RECORD [options of mlx_lm.server]`. It imports nothing of this
project.
"""

import json
import sys

import mlx_lm.server as server


def main(record: str, options: list[str]) -> None:
    """Serve, with what `_tokenize` hands to the model written to the file `record`."""
    tokenize = server.ResponseGenerator._tokenize

    def recorded(self, tokenizer, request, args):  # type: ignore[no-untyped-def]
        found = tokenize(self, tokenizer, request, args)  # type: ignore[no-untyped-call]
        with open(record, "a", encoding="utf-8") as out:
            out.write(json.dumps([int(token) for token in found[0]]) + "\n")
        return found

    server.ResponseGenerator._tokenize = recorded  # type: ignore[method-assign]
    sys.argv = ["mlx_lm.server", *options]
    server.main()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
