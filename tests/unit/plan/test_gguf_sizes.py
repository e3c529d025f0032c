"""The forecast size of a GGUF, against what llama.cpp's quantizer says of models of real shape without making them."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
from real_shapes import SHAPES, tensors
from snaketune.config.products import takes_imatrix
from snaketune.config.schema_nodes import json_schema
from snaketune.engines.llama_cpp import convertible, quantize
from snaketune.plan import architecture, resources

KINDS = json_schema()["properties"]["package"]["properties"]["gguf"]["items"]["enum"]


def sparse_gguf(name: str, path: Path) -> Path:
    """A float16 GGUF with the tensors of a real shape, all zeros that take no room on the disk."""
    sys.path.insert(0, str(convertible.LLAMA_CPP / "gguf-py"))
    try:
        import gguf
    finally:
        del sys.path[0]
    config = SHAPES[name].config
    writer = gguf.GGUFWriter(path, config["model_type"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(512)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    if config["model_type"] == "gemma2":
        writer.add_sliding_window(4096)
    known = gguf.MODEL_ARCH[config["model_type"].upper()]
    names = gguf.get_tensor_name_map(known, config["num_hidden_layers"])
    held = 0
    for tensor, shape in tensors(config):
        dtype = np.dtype(np.float32 if len(shape) == 1 else np.float16)
        size = int(np.prod(shape)) * dtype.itemsize
        found = names.get_name(tensor, try_suffixes=(".weight", ".bias"))
        assert found
        writer.add_tensor_info(found, shape, dtype, size)
        held += gguf.GGUFWriter.ggml_pad(size, 32)
    writer.open_output_file()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    (out,) = writer.fout
    out.truncate(gguf.GGUFWriter.ggml_pad(out.tell(), 32) + held)
    out.close()
    return path


@pytest.fixture(scope="module", params=list(SHAPES))
def shape(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, sparse_gguf(request.param, tmp_path_factory.mktemp("sparse") / "f16.gguf")


def size_by_llama_cpp(source: Path, kind: str) -> float:
    """The bytes of the tensors that the quantizer would write, with an importance matrix where `auto` gives it one."""
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.dry_run = quantize.check_type(kind), True
    if takes_imatrix(kind, "auto"):
        settings.imatrix = quantize.imatrix_entries({"any tensor": np.ones(1, np.float32)})
    with quantize.keeping_words() as words:
        failed = llama_cpp.llama_model_quantize(str(source).encode(), b"never written", ctypes.byref(settings))
    assert not failed, words[-1]
    said = next(found for line in words if (found := re.search(r"quant size += +([\d.]+) MiB", line)))
    return float(said[1]) * 2**20


def test_every_type_that_a_configuration_may_name_is_made_and_has_a_size() -> None:
    assert set(KINDS) == set(quantize.types()) == set(resources.GGUF_BITS)


@pytest.mark.parametrize("kind", KINDS)
def test_gguf_of_a_real_shape_is_forecast_within_a_tenth(shape: tuple[str, Path], kind: str) -> None:
    name, source = shape
    model = architecture.read(SHAPES[name].config)
    assert resources.gguf_bytes(model, kind) == pytest.approx(size_by_llama_cpp(source, kind), rel=0.1)
