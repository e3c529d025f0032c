"""Makes the bundle of a run, proves one that came from elsewhere, and puts its inputs where they are run again."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from snaketune.bundle import archive, contents
from snaketune.config.sections import RunConfig
from snaketune.errors import DataError, UserError
from snaketune.files import StrPath, read_json, sha256
from snaketune.runtime.provenance import RunRecord


def make(run: StrPath, bundle: StrPath, *, inputs: Sequence[StrPath] | None, products: bool) -> str:
    """Write the bundle of the run in the folder `run`; returns its digest. See `contents.members` for the rest."""
    members = contents.members(run, inputs=inputs, products=products)
    config = msgspec.convert(read_json(Path(run, "config.json")), RunConfig)
    record = read_json(Path(run, "run.json"), RunRecord)
    return archive.write(bundle, members | {contents.METADATA: contents.metadata(config, record, members)})


def verify(bundle: StrPath) -> str:
    """A sentence on a bundle whose every byte is as it was written; DataError with the members that are not."""
    damages = archive.damages(bundle)
    if damages:
        listed = "".join(f"  - {one}\n" for one in damages)
        raise DataError(
            f"{len(damages)} members of this bundle are not as they were written:\n{listed}",
            where=str(bundle),
            fix="Get the bundle again",
        )
    count = len(archive.checksums(bundle))
    return f"{bundle}: {count} members, all as they were written; SHA-256 {sha256(bundle)}"


def compare(bundle: StrPath, run: StrPath) -> str:
    """A sentence on a run that has the files of the bundle; DataError with those that differ.

    Members that hold measured times or the machine are left out, as are those that only one side was asked for.
    """
    stated = {
        name: digest
        for name, digest in archive.checksums(bundle).items()
        if name.startswith(contents.RUN) and not contents.is_measured(name)
    }
    found = contents.members(run, inputs=[], products=True)
    different = []
    for name, digest in sorted(stated.items()):
        member = found.get(name)
        if member is None:
            different.append(f"{name.removeprefix(contents.RUN)}: it is missing here")
        elif digest != (hashlib.sha256(member).hexdigest() if isinstance(member, bytes) else sha256(member)):
            different.append(f"{name.removeprefix(contents.RUN)}: other bytes")
    if different:
        listed = "".join(f"  - {one}\n" for one in different)
        raise DataError(
            f"{len(different)} of {len(stated)} files of this run are not those of the bundle:\n{listed}",
            where=str(run),
            why=f"Unless something is wrong, other versions or another kind of machine made it: {_made_on(bundle)}",
            fix="Compare its run.json with the one in the bundle",
        )
    return f"{run}: {len(stated)} files, the same bytes as in the bundle"


def _made_on(bundle: StrPath) -> str:
    record = msgspec.json.decode(archive.read(bundle, f"{contents.RUN}run.json"))
    where, versions = record["platform"], record["versions"]
    return f"{where['system']} {where['architecture']}, {where['processor']}, mlx {versions.get('mlx', 'absent')}"


def unpack(bundle: StrPath, project: StrPath = ".") -> str:
    """Write the configuration of a verified bundle and its inputs into a project; returns the configuration's path.

    Raises DataError before anything is written where a file of another content is in the way, or a name leads out.
    """
    verify(bundle)
    config = msgspec.json.decode(archive.read(bundle, contents.CONFIGURATION))
    folder = Path(project)
    wanted = {
        contents.inside(name.removeprefix(contents.INPUTS)): name
        for name in archive.names(bundle)
        if name.startswith(contents.INPUTS)
    }
    target = f"{config['run']}.json"
    wanted[contents.inside(target)] = contents.CONFIGURATION
    read = {path: archive.read(bundle, name) for path, name in wanted.items()}
    in_the_way = [path for path, content in read.items() if _differs(folder / path, content)]
    if in_the_way:
        raise DataError(
            f"{', '.join(in_the_way)} is there already, with another content",
            where=str(project),
            why="Nothing was written",
            fix="Unpack the bundle in a copy of the project of its own",
        )
    for path, content in read.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return target


def _differs(path: Path, content: bytes) -> bool:
    return path.exists() and not (path.is_file() and path.read_bytes() == content)


USAGE = "say which bundle: make verify BUNDLE=run.zip [RUN=name], or make unpack BUNDLE=run.zip"


def main(arguments: list[str]) -> int:
    """`verify BUNDLE [RUN]` or `unpack BUNDLE`; returns the exit code."""
    action, bundle, run, *_ = [*arguments, "", "", ""]
    if action not in ("verify", "unpack") or not bundle:
        print(f"snaketune: {USAGE}", file=sys.stderr)
        return 1
    try:
        if action == "unpack":
            print(f"next: snakemake --configfile {unpack(bundle)}")
            return 0
        print(verify(bundle))
        if run:
            print(compare(bundle, f"results/{run}"))
    except UserError as error:
        print(f"snaketune: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
