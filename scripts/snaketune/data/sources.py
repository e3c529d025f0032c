"""Which files a configuration's sources name: a file, a folder or a glob each, in an order that does not change.

Uses the standard library alone, because the Snakefile calls it while it is parsed.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from snaketune.errors import ConfigError, DataError

COMPRESSIONS = (".gz", ".zst")
CONTAINERS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
}
SPREADSHEETS = (".xls", ".xlsb", ".ods", ".numbers")  # not read
BY_LINE = ("pairs", "parallel")  # containers that a file's name does not give away


def files(sources: list[dict[str, Any]]) -> list[str]:
    """Every local file of the configured sources, each once, in the configured order; DataError for a missing one.

    A source on the hub has no local file before it is fetched, and adds none.
    """
    found: dict[str, None] = {}
    for number, source in enumerate(sources):
        for path in expanded(source, f"data.sources[{number}]"):
            found[path] = None
        if source.get("target_path"):
            found[at_home(source["target_path"])] = None
    return list(found)


def at_home(path: str) -> str:
    """A path with a leading ~ written out."""
    return str(Path(path).expanduser()) if path.startswith("~") else path


def title(source: dict[str, Any]) -> str:
    """What a person calls a source: its path, or its name on the hub."""
    return source.get("path") or source.get("hub") or "a source"


def expanded(source: dict[str, Any], where: str) -> list[str]:
    """The files of one source: its path itself, the data files in that folder, or the matches of that glob, sorted."""
    path = source.get("path")
    if bool(path) == bool(source.get("hub")):
        raise ConfigError("a source needs either a path or a hub data set", where=where, fix="Give it one of them")
    if not path:
        return []
    if bool(source.get("target_path")) != (source.get("format") == "parallel"):
        raise ConfigError(
            "`format: parallel` and `target_path` belong together",
            where=where,
            fix="Give `path` the file of the source language, `target_path` that of the other, and `format: parallel`",
        )
    path = at_home(path)
    for name in filter(None, (path, at_home(source.get("target_path") or ""))):
        if not Path(name).exists() and not (name == path and glob.has_magic(name)):
            raise missing(name, where)
    if Path(path).is_file():
        return [path]
    if Path(path).is_dir():
        found = sorted(str(file) for file in _data_files(Path(path), source.get("format") or "auto"))
        kind = "no data file in this folder"
    else:
        # Path.glob takes no absolute pattern.
        found = sorted(name for name in glob.glob(path, recursive=True) if Path(name).is_file())  # noqa: PTH207
        kind = "no file matches this glob"
    if not found:
        known = ", ".join(CONTAINERS)
        raise DataError(
            f"{kind}: {path}",
            where=f"{where}.path",
            fix=f"Data files end in {known}, each optionally followed by {' or '.join(COMPRESSIONS)}",
        )
    return found


class Readable(NamedTuple):
    """A file of a source: where it lies, how to read it, and what records.jsonl calls it."""

    path: str
    container: str
    name: str


def readable(source: dict[str, Any], where: str) -> Iterator[Readable]:
    """The files of one source; those of a hub data set are fetched."""
    chosen = source.get("format") or "auto"
    if source.get("hub"):
        from snaketune.data.hub import fetched

        found = fetched(source, where)
    else:
        found = [(path, path) for path in expanded(source, where)]
    for path, name in found:
        yield Readable(path, container_of(path, chosen), name)


def _data_files(folder: Path, container: str) -> Iterator[Path]:
    """The files of a folder, at any depth, that hold rows by their name; hidden ones are passed over."""
    for file in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        suits = suffix(file.name) == ".txt" if container in BY_LINE else suffix(file.name) in CONTAINERS
        if file.is_file() and suits and not hidden:
            yield file


def suffix(name: str) -> str:
    """The ending that tells the container, in small letters, a compression's own ending left out."""
    name = name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return Path(name).suffix


def container_of(path: str, chosen: str) -> str:
    """How a file is to be read: as the configuration says, or as its name tells."""
    if chosen != "auto":
        return chosen
    known = CONTAINERS.get(suffix(path))
    if known:
        return known
    if suffix(path) in SPREADSHEETS:
        raise DataError(
            f"spreadsheets of this kind ({suffix(path)}) are not read",
            where=path,
            fix="In your spreadsheet program: save it as .xlsx or as CSV UTF-8, and name that file here",
        )
    raise DataError(
        f"how to read {path} cannot be told from its name",
        where=path,
        fix="Set this source's `format`, for instance `pairs` for a text file of alternating prompt and answer lines; "
        f"or give the file one of the endings {', '.join(CONTAINERS)}",
    )


def missing(path: str, where: str) -> DataError:
    """The message for a path that is not there, with the nearest name in its folder."""
    from difflib import get_close_matches

    folder, name = Path(path).parent, Path(path).name
    if Path(path).is_symlink():
        return DataError(
            f"{path} is a link to {Path(path).readlink()}, which is not there",
            where=f"{where}.path",
            fix="Put that file back, for instance by mounting its disk, or make the link again",
        )
    names = [one.name for one in folder.iterdir() if one.exists()] if folder.is_dir() else []
    near = get_close_matches(name, names, n=1)
    hint = f" (did you mean {folder / near[0]}?)" if near else ""
    absent = "" if folder.is_dir() else f"; there is no folder {folder} either"
    return DataError(
        f"there is no file {path}{hint}{absent}",
        where=f"{where}.path",
        fix="Give the path from the folder in which snakemake is run, or an absolute path",
    )
