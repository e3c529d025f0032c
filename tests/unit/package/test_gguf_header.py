"""A GGUF's header is read as llama.cpp's own reader reads it, but for the lists, which are passed over."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import llama_cpps_gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snaketune.errors import PackageError
from snaketune.package import gguf_conversion

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INTEGERS = st.integers(-(2**31), 2**31 - 1)
SCALARS = st.one_of(TEXTS, st.booleans(), INTEGERS, st.floats(width=32, allow_nan=False))
LISTS = st.one_of(*(st.lists(one, min_size=1, max_size=8) for one in (TEXTS, st.booleans(), INTEGERS)))
TENSORS = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=4)


def write(path: Path, keys: dict[str, Any], shapes: list[list[int]], alignment: int | None = None) -> Path:
    """A GGUF of llama.cpp's own writer."""
    writer = llama_cpps_gguf.package().GGUFWriter(path, "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_int32, float: writer.add_float32}
    for key, value in keys.items():
        add.get(type(value), writer.add_array)(key, value)
    for number, shape in enumerate(shapes):
        kind = (np.float32, np.float16)[number % 2]
        writer.add_tensor(f"t{number}", np.full(shape, number, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@settings(max_examples=40, deadline=None)
@given(
    keys=st.dictionaries(TEXTS.map(lambda text: f"k.{text}"), st.one_of(SCALARS, LISTS), max_size=8),
    shapes=TENSORS,
    alignment=st.sampled_from([None, 32, 64]),
)
def test_header_is_what_llama_cpps_reader_finds_however_lists_stand_between(
    tmp_path_factory: pytest.TempPathFactory,
    keys: dict[str, Any],
    shapes: list[list[int]],
    alignment: int | None,
) -> None:
    path = write(tmp_path_factory.mktemp("gguf") / "m.gguf", keys, shapes, alignment)
    ours, theirs = gguf_conversion.read(path), llama_cpps_gguf.package().GGUFReader(path)
    expected = {key: field.contents() for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert ours.metadata == {key: None if isinstance(value, list) else value for key, value in expected.items()}
    found = [(t.name, list(t.shape), t.type, ours.data_offset + t.offset) for t in ours.tensors]
    assert found == [(t.name, t.shape.tolist(), t.tensor_type.name.lower(), int(t.data_offset)) for t in theirs.tensors]
    path.unlink()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_file_that_ends_within_a_list_is_damaged(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "m.gguf", {"k": ["text"] * 1000}, [[1]])
    path.write_bytes(path.read_bytes()[: int(share * 12000)])
    with pytest.raises(PackageError, match="damaged"):
        gguf_conversion.read(path)


@pytest.mark.parametrize("kind", [0, 8, 12])
def test_list_as_last_value_that_goes_past_the_end_is_damage_too(tmp_path: Path, kind: int) -> None:
    key = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", gguf_conversion.ARRAY, kind, 1)
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + struct.pack("<Q", 9)[: 0 if kind != 8 else 8])
    with pytest.raises(PackageError, match="damaged"):
        gguf_conversion.read(path)


@pytest.mark.parametrize("size", [2**61, 2**63, 2**64 - 1])
@pytest.mark.parametrize("kind", [8, 12])
def test_list_that_says_it_is_longer_than_any_file_is_damage(tmp_path: Path, kind: int, size: int) -> None:
    count = struct.pack("<Q", 2 if kind == gguf_conversion.STRING else size)
    key = struct.pack("<Q", 1) + b"k" + struct.pack("<II", gguf_conversion.ARRAY, kind) + count
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + key + struct.pack("<Q", size) + bytes(64))
    with pytest.raises(PackageError, match="damaged"):
        gguf_conversion.read(path)


def test_lists_within_lists_without_end_are_damage(tmp_path: Path) -> None:
    nested = struct.pack("<IQ", gguf_conversion.ARRAY, 1) * 5000
    key = struct.pack("<Q", 1) + b"k" + struct.pack("<I", gguf_conversion.ARRAY) + nested
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key)
    with pytest.raises(PackageError, match="damaged"):
        gguf_conversion.read(path)


def test_alignment_of_zero_is_damage(tmp_path: Path) -> None:
    key = struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, 0)
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key)
    with pytest.raises(PackageError, match="damaged"):
        gguf_conversion.read(path)
