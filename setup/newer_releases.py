"""Write which releases after the pins know which models: `make releases`.

Each release of transformers, mlx-lm and llama-cpp-python that is newer than its pin is fetched by pip, as it is
configured, and its lists of models are read from its source; nothing of it is installed or run. The plan's refusal of
a base names what is found here (snaketune.plan.known_architectures).
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pins
from commands import ROOT, SetupError, pip
from progress_line import ProgressLine
from snaketune import files
from snaketune.engines.llama_cpp import convertible
from snaketune.engines.mlx import capabilities as mlx
from snaketune.engines.torch import capabilities as torch
from snaketune.plan.known_architectures import NEWER_RELEASES, NewerReleases


@dataclass(frozen=True)
class Source:
    """Where a package's releases state what they know.

    form: the option by which pip fetches that kind of archive; folder: its place in the archive, below any first
    folder; needed: patterns of the files in it that are read; known: what the pinned release knows.
    """

    form: tuple[str, str]
    folder: str
    needed: tuple[str, ...]
    read: Callable[[Path], frozenset[str]]
    known: Callable[[], frozenset[str]]


SOURCES = {
    "transformers": Source(
        ("--only-binary", ":all:"),
        "transformers",
        ("models/auto/modeling_auto.py",),
        torch.model_types_in,
        lambda: torch.model_library().model_types,
    ),
    "mlx-lm": Source(
        ("--only-binary", ":all:"),
        "mlx_lm",
        ("models/*.py", "utils.py"),
        mlx.model_types_in,
        lambda: mlx.model_library().model_types,
    ),
    "llama-cpp-python": Source(
        ("--no-binary", "llama-cpp-python"),
        "vendor/llama.cpp",
        ("conversion/__init__.py",),
        convertible.architectures_in,
        convertible.architecture_names,
    ),
}


def main(target: Path = NEWER_RELEASES) -> None:
    """Ask for the releases of all packages and write what they add."""
    pinned = pins.chosen((ROOT / pins.CHOSEN).read_text(encoding="utf-8"))
    line = ProgressLine("newer releases")
    found = {name: added_since(pinned[name], name, source, line) for name, source in SOURCES.items()}
    files.write_json(target, found)
    count = sum(len(names) for one in found.values() for names in one.added.values())
    line.finish(f"{count} models that the pinned versions do not know")


def added_since(pinned: str, package: str, source: Source, line: ProgressLine) -> NewerReleases:
    """Fetch each release after the pinned one and return what it adds to those before it."""
    known, added = source.known(), {}
    newer = pins.newer(package, pinned)
    for release in newer:
        line.update(f"{package} {release}")
        with tempfile.TemporaryDirectory() as scratch:
            pip("download", "--no-deps", *source.form, "--dest", scratch, f"{package}=={release}", line=line)
            (archive,) = Path(scratch).iterdir()
            names = source.read(unpacked(archive, source, Path(scratch, "source")))
        if names - known:
            added[release] = sorted(names - known)
        known |= names
    return NewerReleases(newest=newer[-1] if newer else pinned, added=added)


def unpacked(archive: Path, source: Source, target: Path) -> Path:
    """Take out of a release's archive the files that are read, into a folder that stands for the source's own."""
    wanted = [f"{source.folder}/{pattern}" for pattern in source.needed]
    for path, content in members(archive, wanted):
        place = target / path.relative_to(source.folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return target


def members(archive: Path, wanted: Sequence[str]) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the files of a wheel or a source archive that match a pattern; the latter has one folder around all."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if any(fnmatch(name, pattern) for pattern in wanted):
                    yield PurePosixPath(name), wheel.read(name)
        return
    with tarfile.open(archive) as sources:
        for member in sources:
            name = member.name.partition("/")[2]
            stream = sources.extractfile(member) if any(fnmatch(name, pattern) for pattern in wanted) else None
            if stream:
                yield PurePosixPath(name), stream.read()


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        sys.exit(f"snaketune: {error}")
