"""An archive has the same bytes for the same members, and every flipped byte in it is found and named."""

from __future__ import annotations

import random
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snaketune.bundle import archive
from snaketune.errors import DataError

MEMBERS: dict[str, Path | bytes] = {
    "run/config.json": b'{"run": "x"}\n',
    "run/data/Hawai\u02bbi.jsonl": "ʻōlelo\n".encode() * 40,
    "run/model/x.gguf": bytes(range(256)) * 30,
    "inputs/empty.jsonl": b"",
}


def written(folder: Path) -> Path:
    archive.write(folder / "x.zip", MEMBERS)
    return folder / "x.zip"


def test_an_archive_holds_its_members_and_no_damage(tmp_path: Path) -> None:
    bundle = written(tmp_path)
    assert archive.damages(bundle) == []
    assert {name: archive.read(bundle, name) for name in MEMBERS} == MEMBERS
    assert set(archive.checksums(bundle)) == set(MEMBERS)


def test_the_order_and_the_source_of_members_change_no_byte(tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_bytes(bytes(range(256)) * 30)
    mixed = dict(reversed([*MEMBERS.items()])) | {"run/model/x.gguf": file}
    assert archive.write(tmp_path / "a.zip", MEMBERS) == archive.write(tmp_path / "b.zip", mixed)


def test_other_programs_read_the_archive_and_its_checksums(tmp_path: Path) -> None:
    with zipfile.ZipFile(written(tmp_path)) as source:
        assert source.testzip() is None
        source.extractall(tmp_path / "out")
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", archive.CHECKSUMS], cwd=tmp_path / "out", capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout


def member_at(bundle: Path, offset: int) -> str | None:
    """The member in whose bytes an offset lies; None in the directory at the end."""
    with zipfile.ZipFile(bundle) as source:
        if offset >= source.start_dir:
            return None
        return max((i for i in source.infolist() if i.header_offset <= offset), key=lambda i: i.header_offset).filename


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_and_its_member_named(place: float, bit: int, tmp_path: Path) -> None:
    bundle = written(tmp_path)
    content = bytearray(bundle.read_bytes())
    offset = int(place * len(content))
    member = member_at(bundle, offset)
    content[offset] ^= 1 << bit
    bundle.write_bytes(content)
    found = archive.damages(bundle)
    assert found
    if member:
        assert any(line.startswith(f"{member}:") for line in found), (member, found)


@pytest.mark.parametrize("kept", [0, 1, 100, 5000])
def test_an_archive_that_is_cut_off_is_found(kept: int, tmp_path: Path) -> None:
    bundle = written(tmp_path)
    bundle.write_bytes(bundle.read_bytes()[:kept])
    assert len(archive.damages(bundle)) == 1


def test_bytes_before_and_after_the_archive_are_found(tmp_path: Path) -> None:
    bundle = written(tmp_path)
    whole = bundle.read_bytes()
    for changed in (whole + b"x", b"x" + whole):
        bundle.write_bytes(changed)
        assert archive.damages(bundle)


def test_a_member_that_was_exchanged_with_a_right_crc_is_named(tmp_path: Path) -> None:
    bundle = written(tmp_path)
    sums = archive.read(bundle, archive.CHECKSUMS)
    with zipfile.ZipFile(bundle, "w") as target:
        for name, content in (MEMBERS | {"run/config.json": b"{}\n", archive.CHECKSUMS: sums}).items():
            target.writestr(name, content)  # type: ignore[arg-type]
    assert [line.partition(":")[0] for line in archive.damages(bundle)] == ["run/config.json"]


def test_a_member_too_many_and_one_too_few_are_named(tmp_path: Path) -> None:
    bundle = written(tmp_path)
    sums = archive.read(bundle, archive.CHECKSUMS)
    with zipfile.ZipFile(bundle, "w") as target:
        target.writestr("added.txt", b"x")
        target.writestr("run/config.json", MEMBERS["run/config.json"])  # type: ignore[arg-type]
        target.writestr(archive.CHECKSUMS, sums)
    said = "\n".join(archive.damages(bundle))
    assert "added.txt: checksums.sha256 does not name it" in said
    assert "run/model/x.gguf: it is missing" in said


def test_what_is_no_archive_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(random.Random(1).randbytes(1000))
    with pytest.raises(DataError, match="no whole zip archive"):
        archive.checksums(tmp_path / "x.zip")
    with pytest.raises(DataError, match="no whole zip archive"):
        archive.checksums(tmp_path / "absent.zip")
