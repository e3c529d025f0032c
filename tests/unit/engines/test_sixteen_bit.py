"""Merged weights are written in 16 bits as they are given, hashed on the way; what 16 bits do not hold is refused."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from snaketune import files
from snaketune.engines import sixteen_bit
from snaketune.engines.sixteen_bit import MergedNumbers, Sample
from snaketune.errors import PackageError

SHAPES = {"b": (300, 500), "a": (7,), "c": (2, 3)}


def numbers(name: str) -> np.ndarray:
    return np.random.default_rng(len(name) + ord(name)).normal(size=SHAPES[name]).astype(np.float32)


def merged(name: str) -> MergedNumbers:
    return MergedNumbers(numbers(name).reshape(-1), Sample(numbers(name), None))


@pytest.mark.parametrize(("shard", "count"), [(1 << 30, 1), (1000, 3)])
def test_files_hold_the_rounded_numbers_whatever_their_size_and_have_the_digests_that_are_told(
    shard: int, count: int, tmp_path: Path
) -> None:
    written = sixteen_bit.write(tmp_path, "float16", SHAPES, merged, shard)
    assert len(written.digests) == count
    assert written.digests == {name: files.sha256(tmp_path / name) for name in written.digests}
    found = {key: value for name in written.digests for key, value in load_file(tmp_path / name).items()}
    assert found.keys() == SHAPES.keys()
    assert all((found[name] == numbers(name).astype(np.float16)).all() for name in SHAPES)
    assert written.parameters == sum(value.size for value in found.values())


def test_a_tensor_that_has_the_format_already_is_written_as_it_is(tmp_path: Path) -> None:
    bits = numbers("b").astype(np.float16).view(np.uint16)
    given = MergedNumbers(bits.reshape(-1), Sample(numbers("b"), None))
    sixteen_bit.write(tmp_path, "float16", {"b": SHAPES["b"]}, lambda _: given)
    assert (load_file(tmp_path / "model.safetensors")["b"].view(np.uint16) == bits).all()


@pytest.mark.parametrize(("dtype", "wild"), [("float16", 1e5), ("bfloat16", np.inf), ("bfloat16", np.nan)])
def test_a_number_that_the_format_does_not_hold_stops_the_writing(dtype: str, wild: float, tmp_path: Path) -> None:
    one = numbers("b").reshape(-1)
    one[-1] = wild
    with pytest.raises(PackageError, match="of b are not finite in 16 bits"):
        sixteen_bit.write(tmp_path, dtype, {"b": SHAPES["b"]}, lambda _: MergedNumbers(one, Sample(numbers("b"), None)))
