"""Two chains of tiny real models, made once for all tests of the package stage."""

from __future__ import annotations

import functools

import pytest
from made_once import made_once
from packaged_models import Chain, make_chain


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A llama with a byte-level BPE tokenizer, its base in bfloat16."""
    return Chain(made_once(tmp_path_factory, "llama", functools.partial(make_chain, family="llama-bpe")))


@pytest.fixture(scope="session")
def quantized_chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A gemma2 whose base is quantized to 4 bits, with a SentencePiece tokenizer."""
    make = functools.partial(make_chain, family="gemma2", quantize=4)
    return Chain(made_once(tmp_path_factory, "gemma", make))
