"""An archive with the same bytes for the same members, which a flipped byte cannot enter without being found and named.

A zip that nothing is compressed in, since compressors differ from machine to machine: names in order, no times, no
owners. `checksums.sha256` holds the digest of every other member, as sha256sum reads it.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from snaketune.errors import DataError
from snaketune.files import StrPath, replacing, sha256

CHECKSUMS = "checksums.sha256"
FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say
DIRECTORY = "the archive's directory of members"
CHUNK = 1 << 20


def write(archive: StrPath, members: Mapping[str, Path | bytes]) -> str:
    """Write the members by their names, and their checksums; returns the archive's own digest."""
    sums = "".join(f"{_digest(members[name])}  {name}\n" for name in sorted(members))
    everything = dict(members) | {CHECKSUMS: sums.encode()}
    with replacing(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as target:
        for name in sorted(everything):
            member = everything[name]
            with io.BytesIO(member) if isinstance(member, bytes) else open(member, "rb") as source:
                _copy_in(target, name, source)
    return sha256(archive)


def _digest(member: Path | bytes) -> str:
    return hashlib.sha256(member).hexdigest() if isinstance(member, bytes) else sha256(member)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, FIRST_DAY)
    info.external_attr = 0o644 << 16
    info.create_system = 3  # Unix, on every system
    return info


def _copy_in(target: zipfile.ZipFile, name: str, source: IO[bytes]) -> None:
    with target.open(_info(name), "w", force_zip64=True) as out:
        shutil.copyfileobj(source, out, CHUNK)


def read(archive: StrPath, name: str) -> bytes:
    """The content of a member; DataError where there is no such archive or member."""
    with _opened(archive) as source:
        try:
            return source.read(name)
        except (KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"{name} cannot be read ({error})", where=str(archive), fix="Get the archive again"
            ) from None


def names(archive: StrPath) -> list[str]:
    """The names of all members."""
    with _opened(archive) as source:
        return source.namelist()


def checksums(archive: StrPath) -> dict[str, str]:
    """The digests that the archive states of its members."""
    lines = read(archive, CHECKSUMS).decode("utf-8", errors="replace").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def damages(archive: StrPath) -> list[str]:
    """What is wrong with an archive, each with the name of the member; empty where every byte is as it was written."""
    try:
        found = dict(_damaged_members(archive))
    except DataError as error:
        return [f"{DIRECTORY}: {error}"]
    if not found:
        place = _first_difference(archive)
        found = {place: "its bytes are not those that the archive was written with"} if place else {}
    return [f"{name}: {problem}" for name, problem in found.items()]


def _damaged_members(archive: StrPath) -> Iterator[tuple[str, str]]:
    with _opened(archive) as source:
        actual = {info.filename: _actual(source, info) for info in source.infolist()}
        broken = {name: text for name, (digest, text) in actual.items() if digest is None}
        yield from broken.items()
        if CHECKSUMS in broken:
            return
        stated = checksums(archive) if CHECKSUMS in actual else {}
        for name in sorted((stated.keys() | actual.keys()) - {CHECKSUMS} - broken.keys()):
            if name not in actual:
                yield name, "it is missing"
            elif name not in stated:
                yield name, f"{CHECKSUMS} does not name it"
            elif actual[name][0] != stated[name]:
                yield name, f"its content has the digest {actual[name][0]}, {CHECKSUMS} says {stated[name]}"


def _actual(source: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[str | None, str]:
    """The digest of a member's content, or None and what is wrong."""
    digest = hashlib.sha256()
    try:
        with source.open(info) as content:
            while chunk := content.read(CHUNK):
                digest.update(chunk)
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        return None, f"it cannot be read ({error})"
    return digest.hexdigest(), ""


def _first_difference(archive: StrPath) -> str | None:
    """The member at which the archive is not what writing its members gives; None where it is."""
    with tempfile.TemporaryDirectory() as scratch:
        again = Path(scratch, "again.zip")
        with _opened(archive) as source, zipfile.ZipFile(again, "w", zipfile.ZIP_STORED) as target:
            for name in sorted(source.namelist()):
                with source.open(name) as content:
                    _copy_in(target, name, content)
        offset = _offset_of_difference(Path(archive), again)
        if offset is None:
            return None
        with zipfile.ZipFile(again) as written:
            before = [info for info in written.infolist() if info.header_offset <= offset < written.start_dir]
            return max(before, key=lambda info: info.header_offset).filename if before else DIRECTORY


def _offset_of_difference(one: Path, two: Path) -> int | None:
    offset = 0
    with open(one, "rb") as left, open(two, "rb") as right:
        while True:
            a, b = left.read(CHUNK), right.read(CHUNK)
            if a != b:
                same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
                return offset + same
            if not a:
                return None
            offset += len(a)


def _opened(archive: StrPath) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError) as error:
        raise DataError(f"this is no whole zip archive ({error})", where=str(archive), fix="Get it again") from None
