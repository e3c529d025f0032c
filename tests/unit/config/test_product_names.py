"""What a type of package.mlx means, and which variants are products."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from snaketune.config.products import MLXType, is_product, products_of

SCHEMA = yaml.safe_load((Path(__file__).parents[3] / "schemas" / "package.yaml").read_text(encoding="utf-8"))
PATTERN = SCHEMA["properties"]["mlx"]["items"]["pattern"]


@given(st.from_regex(PATTERN, fullmatch=True))
def test_every_type_that_the_schema_allows_is_understood(name: str) -> None:
    kind = MLXType.named(name.strip())
    assert 2 <= kind.bits <= 8
    assert kind.group_size in (16, 32, 64, 128)
    assert kind.bits < kind.bits_per_weight() < kind.bits + 1.1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("4bit", (4, 64, "affine", None)),
        ("8bit-g32", (8, 32, "affine", None)),
        ("mxfp4", (4, 32, "mxfp4", None)),
        ("3bit-g128-dwq", (3, 128, "affine", "dwq")),
    ],
)
def test_a_type_says_bits_group_size_mode_and_calibration(name: str, expected: tuple[object, ...]) -> None:
    assert tuple(MLXType.named(name)) == expected


@pytest.mark.parametrize("name", ["7bit", "4bit-g48", "8bit-dwq", "mxfp4-awq", "4bits", "nvfp4-g32"])
def test_a_type_that_mlx_does_not_have_is_refused_by_the_schema(name: str) -> None:
    assert not re.search(PATTERN, name)


def test_products_are_the_files_that_people_run() -> None:
    assert products_of(["q8_0"], ["4bit"]) == ["gguf-q8_0", "mlx-4bit"]
    assert [name for name in ("base", "fused", "gguf-q8_0", "mlx-4bit", "adapter") if is_product(name)] == [
        "gguf-q8_0",
        "mlx-4bit",
    ]
