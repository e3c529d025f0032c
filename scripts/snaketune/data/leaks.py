"""The check for leaks between the final splits, whoever made them."""

from __future__ import annotations

from typing import Any

from snaketune.data.identity import prompts, row_key
from snaketune.errors import DataError
from snaketune.files import StrPath, read_jsonl, write_json


def run(config: dict[str, Any], train: StrPath, valid: StrPath, test: StrPath, leaks: StrPath) -> list[dict[str, Any]]:
    """Look for rows on two sides that share content, a question or a group; write leaks.json.

    config: {"leaks": "fail" | "warn"}. Raises DataError naming the pairs when leaks are to fail.
    """
    seen: dict[tuple[str, Any], tuple[str, str]] = {}
    pairs: list[dict[str, Any]] = []
    for split, path in (("train", train), ("valid", valid), ("test", test)):
        for record in read_jsonl(path):
            where = f"{record['source']}:{record['line']}"
            for why, key in _ties(record):
                other_split, other = seen.setdefault((why, key), (split, where))
                if other_split != split:
                    pairs.append({"why": why, "left": [other_split, other], "right": [split, where]})
                    break
    write_json(leaks, {"pairs": len(pairs), "examples": pairs[:50]})
    if pairs and config["leaks"] == "fail":
        said = "".join(
            f"\n  {p['why']}: {p['left'][1]} ({p['left'][0]}) and {p['right'][1]} ({p['right'][0]})" for p in pairs[:5]
        )
        raise DataError(
            f"{len(pairs)} rows stand on two sides of the split:{said}\n",
            where="data.leaks",
            why="Scores on a test set that was trained on say nothing",
            mend="Take those rows out of one side, or let snaketune make the split; `leaks: warn` only lists them",
        )
    return pairs


def _ties(record: dict[str, Any]) -> list[tuple[str, Any]]:
    ties: list[tuple[str, Any]] = [("same row", row_key(record))]
    ties += [("same question", asked) for asked in prompts(record)]
    if "group" in record:
        ties.append(("same group", record["group"]))
    return ties
