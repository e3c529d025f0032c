"""Where another tool's data lie, as a source of ours: a file beside the configuration, a folder, or the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from snaketune.errors import UserError
from snaketune.importers.draft import Draft

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
REMOTE = re.compile(r"(?:s3|gs|gcs|az|abfs|adl|oci|https?)://")
SLICE = re.compile(r"(?P<split>[\w.-]+)(?:\[(?P<range>[^\]]*)\])?")
FIRST = re.compile(r":(?P<count>\d+)(?P<percent>%?)")

Source = dict[str, object]  # one entry of data.sources


def place(name: str, beside: Path) -> Source | None:
    """Return {path: ...} or {hub: ...} for a name in another tool's configuration; None for storage elsewhere.

    beside: the folder of their configuration; they look in the folder that they are started in, so that comes first.
    """
    if REMOTE.match(name):
        return None
    given = Path(name).expanduser()
    for candidate in (given, beside / given):
        if candidate.exists():
            return {"path": _shown(candidate)}
    looks_local = name.startswith((".", "/", "~")) or Path(name).suffix.lower() in file_suffixes()
    return {"path": name} if looks_local or not HUB_ID.fullmatch(name) else {"hub": name}


def file_suffixes() -> set[str]:
    """How the names of data files end: those of ours, compressed ones, and plain texts, which other tools read."""
    from snaketune.data.sources import COMPRESSIONS, FORMATS_BY_SUFFIX

    return {*FORMATS_BY_SUFFIX, *COMPRESSIONS, ".txt"}


def _shown(path: Path) -> str:
    """A path as it is best written: from this folder where it lies below it."""
    whole = path.resolve()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)


def take_split(draft: Draft, key: str, value: object, source: Source) -> None:
    """Take a split such as `train[:5%]` over: its name for the hub, and the first rows as a sample."""
    found = SLICE.fullmatch(str(value).strip())
    first = FIRST.fullmatch(found["range"]) if found and found["range"] else None
    if not found or (found["range"] and not first):
        draft.refuse(
            key,
            value,
            "which rows of the split are read",
            "Put those rows into a file of their own; `limit` here takes a number or a share of the rows",
        )
        return
    if "hub" in source:
        source["hub_split"] = found["split"]
    if not first:
        return
    count = int(first["count"])
    source["limit"] = count / 100 if first["percent"] else count
    draft.write_out(key, f"the first {count}{first['percent']} rows", "", note=SAMPLE)


SAMPLE = "`limit` takes as many rows here, a random sample by the seed, since files are often sorted"


def as_mapping(value: object) -> Mapping[str, object]:
    """Return a mapping, or an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def count_rows(draft: Draft, at_most: object = None) -> int | None:
    """Return how many rows the sources have, where all are files on this machine. at_most: rows read of each."""
    import msgspec

    from snaketune.config import schema
    from snaketune.config.sections import SourceConfig
    from snaketune.data import sources
    from snaketune.data.readers import dispatch

    found = draft.get("data.sources") if draft.is_set("data.sources") else []
    total = 0
    try:
        for source in msgspec.convert(schema.validate_value(found, "data.sources", "data.sources"), list[SourceConfig]):
            if not source.path:
                return None
            files = sources.data_files(source, "data.sources")
            rows = sum(1 for file in files for _ in dispatch.rows(file.path, file.file_format, source))
            total += min(rows, at_most) if isinstance(at_most, int) else rows
    except UserError:  # whose message the plan of the imported configuration gives
        return None
    return total
