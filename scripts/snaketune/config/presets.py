"""Makes a user's configuration from a preset: `make new NAME=... PRESET=...`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from snaketune.config import schema
from snaketune.config.docs import to_commented_yaml
from snaketune.config.schema_nodes import SCHEMAS
from snaketune.errors import ConfigError, UserError
from snaketune.files import write_text

PRESETS = SCHEMAS.parent / "presets"


def names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def new(name: str, preset: str, folder: str | Path = ".", source: Mapping[str, object] | None = None) -> Path:
    """Write `<name>.yaml` from a preset, complete and commented; an existing file is never overwritten.

    source: the one entry of data.sources, in the place of the preset's.
    """
    target = Path(folder) / f"{name}.yaml"
    if not name:
        raise ConfigError("a configuration needs a name", fix=f"make new NAME=jessy-v1 PRESET={names()[0]}")
    if preset not in names():
        near = schema.did_you_mean(preset, names())
        raise ConfigError(f'there is no preset "{preset}"{near}', where="PRESET", fix=f"Presets: {', '.join(names())}")
    if target.exists():
        raise ConfigError("this file exists", where=str(target), fix="Choose another NAME, or edit the file")
    path = PRESETS / f"{preset}.yaml"
    given = schema.read(path) | {"run": name}
    if source:
        given["data"] = {**given.get("data", {}), "sources": [dict(source)]}
    values = schema.complete(given)
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    write_text(target, head + "\n" + to_commented_yaml(values))
    return target


def main(arguments: list[str]) -> int:
    """Run as a command: NAME PRESET."""
    name, preset = [*arguments, "", ""][:2]
    try:
        made = new(name, preset)
    except UserError as error:
        print(f"snaketune: {error}", file=sys.stderr)
        return 1
    print(f"{made} is written. Point data.sources to your rows, then: snakemake -n --configfile {made}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
