"""Rows come back from a token store as they went in."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.errors import DataError
from snaketune.model.rendering import Rendered
from snaketune.model.store import TokenStore, write_store

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
        assert trained.tolist() == row.trained
        assert store.weights[number] == weight
        assert store.lengths[number] == len(row.ids)
        assert store.targets[number] == sum(row.trained)
    assert store.lengths.dtype == np.int64


@pytest.mark.parametrize("cut", [0, 4, 20, -3])
def test_a_truncated_store_is_refused_by_name(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "train.safetensors"
    write_store(path, [(Rendered([1, 2, 3], [False, True, True]), 1.0)])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="train"):
        TokenStore(path)
