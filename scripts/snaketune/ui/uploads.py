"""Files that a person drops on the page: rows into data/, other tools' configurations into data/imported/."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

from snaketune.data.sources import COMPRESSIONS, FORMATS_BY_SUFFIX, SPREADSHEETS, data_suffix
from snaketune.errors import ConfigError, DataError
from snaketune.files import replacing, temporary_name
from snaketune.ui.project import Project

MAX_BYTES = 2_000_000_000  # of one file
MAX_IMPORT = 2_000_000  # of another tool's configuration
NAME = re.compile(r"[\w][\w .()+-]{0,120}")
KNOWN = {*FORMATS_BY_SUFFIX, *SPREADSHEETS, ".txt"}
IMPORTED = {".yaml", ".yml", ".json"}  # a command line may name files anywhere


def data_target(project: Project, name: str) -> Path:
    """Where a file of rows goes; DataError for a name that is no data file's, or is taken."""
    if not NAME.fullmatch(name) or name.endswith((".", " ")):
        raise DataError("a file cannot be called that here", where=name[:120], fix="Use letters, digits, . - _ ( )")
    if data_suffix(name) not in KNOWN:
        raise DataError(
            f"{name} is no data file by its name",
            fix=f"Data files end in {', '.join(sorted(KNOWN))}, and may be compressed ({', '.join(COMPRESSIONS)})",
        )
    target = project.path(f"data/{name}")
    if target.exists():
        raise DataError(f"data/{name} exists", why="It may be the data of a run", fix="Rename your file")
    return target


def import_target(project: Project, name: str) -> Path:
    """Where another tool's configuration goes; a later one of the same name takes its place."""
    if not NAME.fullmatch(name) or Path(name).suffix not in IMPORTED:
        raise ConfigError("this is no configuration by its name", where=name[:120], fix="Give a YAML or JSON file")
    return project.path(f"data/imported/{name}")


def import_source(project: Project, name: str) -> str:
    """A configuration of another tool's in this project; ConfigError for anything else."""
    path = project.path(name)
    if not path.is_file() or path.suffix not in IMPORTED:
        raise ConfigError("this is no YAML or JSON file of this project", where=name[:120])
    return name


async def receive(target: Path, parts: AsyncIterator[bytes], limit: int) -> int:
    """Write what arrives, of at most `limit` bytes, whole or not at all; returns its size."""
    size = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(target) as temporary, open(temporary, "wb") as out:
            async for part in parts:
                size += len(part)
                if size > limit:
                    raise DataError(
                        f"{target.name} is larger than {limit // 1_000_000:,} MB",
                        fix=f"Copy it into {target.parent.name}/ by hand",
                    )
                out.write(part)
            if not size:
                raise DataError(f"{target.name} is empty")
    finally:
        temporary_name(target).unlink(missing_ok=True)
    return size


def data_files(project: Project) -> list[str]:
    """The data files below data/, as a source would name them."""
    found = []
    for folder, below, names in os.walk(project.root / "data"):
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "imported")
        here = Path(folder).relative_to(project.root)
        found += [f"{here}/{name}" for name in sorted(names) if data_suffix(name) in FORMATS_BY_SUFFIX]
    return found
