"""Two chains of tiny real models, made once for all tests of the package stage."""

from __future__ import annotations

import pytest
from packaged_models import Chain, make_chain


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A llama with a byte-level BPE tokenizer, its base in bfloat16."""
    return make_chain(tmp_path_factory.mktemp("llama"), "llama-bpe")


@pytest.fixture(scope="session")
def quantized_chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A gemma2 whose base is quantized to 4 bits, with a SentencePiece tokenizer."""
    return make_chain(tmp_path_factory.mktemp("gemma"), "gemma2", quantize=4)
