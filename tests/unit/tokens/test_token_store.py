"""Rows come back from a token store as they went in."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from snaketune.errors import DataError
from snaketune.tokens import token_store as store_module
from snaketune.tokens.chat_template import Rendered
from snaketune.tokens.token_store import TokenStore, write_store

rows = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1, max_size=20),
        st.floats(0.1, 10),
    ),
    max_size=8,
)


@given(rows)
def test_every_row_comes_back(tmp_path_factory: pytest.TempPathFactory, given_rows: list) -> None:
    path = tmp_path_factory.mktemp("store") / "train.safetensors"
    rendered = [(Rendered([i for i, _ in tokens], [t for _, t in tokens]), weight) for tokens, weight in given_rows]
    assert write_store(path, rendered) == len(rendered)
    store = TokenStore(path)
    assert len(store) == len(rendered)
    for number, (row, weight) in enumerate(rendered):
        ids, trained = store.row(number)
        assert ids.tolist() == row.ids
        assert trained.tolist() == row.loss_mask
        assert store.weights[number] == weight
        assert store.lengths[number] == len(row.ids)
        assert store.num_target_tokens[number] == sum(row.loss_mask)
    assert store.lengths.dtype == np.int64


def test_rows_are_counted_alike_in_blocks_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.safetensors"
    masks = [[True] * 5, [False, True], [True, False, True], [False], [True] * 9]
    write_store(path, [(Rendered([7] * len(mask), mask), 1.0) for mask in masks])
    for block in range(1, 25):
        monkeypatch.setattr(store_module, "BLOCK", block)
        assert TokenStore(path).num_target_tokens.tolist() == [5, 1, 2, 0, 9]


def test_a_store_is_a_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    write_store(path, [(Rendered([1, 2, 3], [False, True, True]), 0.5), (Rendered([4], [True]), 2.0)])
    read = load_file(path)
    assert {name: tensor.tolist() for name, tensor in read.items()} == {
        "ids": [1, 2, 3, 4],
        "loss_mask": [0, 1, 1, 1],
        "ends": [3, 4],
        "weights": [0.5, 2.0],
    }
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("cut", [0, 4, 20, -3])
def test_a_truncated_store_is_refused_by_name(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "train.safetensors"
    write_store(path, [(Rendered([1, 2, 3], [False, True, True]), 1.0)])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="train"):
        TokenStore(path)
