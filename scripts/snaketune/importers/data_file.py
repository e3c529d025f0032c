"""Makes a configuration for a person's data file: `make new NAME=mine DATA=rows.csv`, with its columns guessed."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from snaketune.config import presets, schema
from snaketune.config.sections import SourceConfig
from snaketune.data import guess, sources
from snaketune.data.guess import Guess, Row
from snaketune.data.readers import dispatch
from snaketune.data.readers.raw_row import Rejection
from snaketune.data.records import Layout, parse_fields
from snaketune.errors import DataError, UserError

DEFAULT_PRESET = "gemma-2-2b-mac-16gb"


class Found(NamedTuple):
    """What a data file was found to be: the entry of data.sources, one row, and the guess where there was one."""

    source: dict[str, object]
    row: Row
    guess: Guess | None


def look_at(path: str) -> Found:
    """Return how a data file, or a folder of them, is to be read. Raises DataError where nothing can be made of it."""
    rows = _first_rows(path, "auto")
    source: dict[str, object] = {"path": path}
    if all("paragraphs" in row for row in rows):
        rows = _first_rows(path, "squad")
        return Found(source | {"format": "squad"}, rows[0], None)
    if _is_readable(rows[0], Layout()):
        return Found(source, rows[0], None)
    found = guess.guess(rows)
    if not found.settings():
        raise DataError(
            f"which of its columns are the prompt and the response cannot be guessed: {', '.join(found.columns)}",
            where=path,
            fix="Write a configuration from a preset, and name them in this source's `fields`",
        )
    return Found(source | found.settings(), rows[0], found)


def _first_rows(path: str, file_format: str) -> list[Row]:
    given = schema.validate_value([{"path": path, "format": file_format}], "data.sources", "DATA")
    (source,) = msgspec.convert(given, list[SourceConfig])
    rows = (
        row.parsed
        for file in sources.data_files(source, "DATA")
        for row in dispatch.rows(file.path, file.file_format, source)
        if isinstance(row.parsed, dict)
    )
    found: list[Row] = list(itertools.islice(rows, guess.MAX_SAMPLE))
    if not found:
        raise DataError("there is no row in it that can be read", where=path, fix="Name the file that holds the data")
    return found


def _is_readable(row: Row, layout: Layout) -> bool:
    try:
        parse_fields(row, layout)
    except Rejection:
        return False
    return True


def new(name: str, preset: str, path: str, folder: str | Path = ".") -> tuple[Path, Found]:
    """Write `<name>.yaml` for a data file, from a preset."""
    found = look_at(path)
    return presets.new(name, preset or DEFAULT_PRESET, folder, found.source), found


def main(arguments: list[str]) -> int:
    """Run as a command: NAME PRESET DATA; without DATA, a preset alone."""
    name, preset, path = [*arguments, "", "", ""][:3]
    if not path:
        return presets.main([name, preset])
    try:
        made, found = new(name, preset, path)
    except UserError as error:
        print(f"snaketune: {error}", file=sys.stderr)
        return 1
    print(f"{made} is written, from the preset {preset or DEFAULT_PRESET} and for {path}.")
    if found.guess:
        print(f"Its columns are guessed, by {found.guess.why}; correct them there if this is wrong:")
        print(f"  {guess.line(path, found.guess)}")
    print("A row will be:")
    layout = found.guess or Guess([])
    template = "{context}\n\n{question}" if found.source.get("format") == "squad" else layout.template
    shown = guess.example(found.row, Guess(layout.columns, layout.fields, template, layout.turn_fields))
    print("    " + shown.replace("\n", "\n    "))
    print(f"Next: snakemake preview --configfile {made}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
