"""Which product is better for its size."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from snaketune.report.by_size import SizedProduct, better_for_its_size
from snaketune.report.formatting import SizePoint, sizes


def product(variant: str, size: int, kept: float, *, passed: bool = True) -> SizedProduct:
    return SizedProduct(variant=variant, file=variant, bytes=size, kept=kept, passed=passed)


def chosen(*products: SizedProduct) -> str | None:
    found = better_for_its_size(products)
    return found[0].variant if found else None


def test_a_smaller_folder_that_keeps_as_much_is_recommended() -> None:
    assert chosen(product("gguf-q8_0", 100, 0.99), product("mlx-8bit", 90, 0.99)) == "mlx-8bit"


def test_a_larger_folder_that_keeps_no_more_is_not_recommended() -> None:
    assert chosen(product("gguf-q8_0", 90, 0.99), product("mlx-8bit", 100, 0.992)) is None


def test_a_folder_that_failed_its_checks_is_not_recommended() -> None:
    assert chosen(product("gguf-q8_0", 100, 0.9), product("mlx-8bit", 90, 0.99, passed=False)) is None


def test_of_two_folders_the_one_that_no_other_beats_is_recommended() -> None:
    ggufs = [product("gguf-q8_0", 100, 0.99), product("gguf-q4_k_m", 55, 0.93)]
    assert chosen(*ggufs, product("mlx-4bit", 50, 0.9), product("mlx-4bit-dwq", 50, 0.97)) == "mlx-4bit-dwq"


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=8))
def test_what_is_recommended_beats_a_gguf_and_is_beaten_by_none(drawn: list[tuple[bool, int, int]]) -> None:
    products = [
        product(f"{'mlx' if is_mlx else 'gguf'}-{number}", size, kept / 20)
        for number, (is_mlx, size, kept) in enumerate(drawn)
    ]
    found = better_for_its_size(products)
    if found:
        best, gguf = found
        assert best.is_mlx
        assert not gguf.is_mlx
        assert best.beats(gguf)
        assert not any(other.beats(best) for other in products)


def test_the_picture_names_every_product() -> None:
    points = [SizePoint("q8_0", 900, 0.99, is_mlx=False), SizePoint("4bit-dwq", 500, 0.9, is_mlx=True)]
    picture = sizes(points, "sizes")
    assert all(name in picture for name in ("q8_0", "4bit-dwq", "GGUF", "MLX"))


def test_axes_of_products_that_differ_by_little_have_sizes_and_whole_percentages() -> None:
    points = [SizePoint("q8_0", 765_000, 0.9999, is_mlx=False), SizePoint("4bit", 431_000, 1.0007, is_mlx=True)]
    texts = re.findall(r">([^<>]+)</text>", sizes(points, "sizes"))
    assert {"500 kB", "700 kB"} <= set(texts)
    percentages = [float(text) for text in texts if re.fullmatch(r"[\d.]+", text)]
    assert percentages
    assert all(99.9 < one < 100.2 for one in percentages)
