"""An adapter that PEFT saved is read as mlx-lm's, without loss; what that cannot hold is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_models
from safetensors.numpy import load_file, save_file
from snaketune.engines import get_exporter
from snaketune.errors import TrainingError
from snaketune.files import read_json
from snaketune.train import peft_format


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tiny_models.TrainingFolder(tmp_path_factory.mktemp("trained"), "qwen3")
    folder.train(max_steps=4, num_layers=1, target_modules=["v_proj", "down_proj"])
    return folder


@pytest.fixture
def peft(trained, tmp_path):
    exported = get_exporter().peft_adapter(trained.folder / "out")
    save_file(exported.tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(exported.config | {"peft_version": "0.21.2"}))
    return tmp_path


def test_an_exported_adapter_comes_back_as_it_was(trained, peft):
    adapter = peft_format.read_peft(peft)
    before = trained.adapter()
    assert adapter.tensors.keys() == before.keys()
    assert all(np.array_equal(adapter.tensors[name], before[name]) for name in before)
    own = read_json(trained.folder / "out" / "adapter_config.json")
    assert adapter.config.num_layers == own["num_layers"] == 1
    assert adapter.config.lora_parameters.keys == own["lora_parameters"]["keys"]
    assert adapter.config.lora_parameters.scale == own["lora_parameters"]["scale"]


def test_a_saved_adapter_has_mlx_lms_two_files(peft, tmp_path):
    adapter = peft_format.read_peft(peft)
    peft_format.save(adapter, tmp_path / "adapters.safetensors", tmp_path / "mlx.json")
    assert load_file(tmp_path / "adapters.safetensors").keys() == adapter.tensors.keys()
    assert read_json(tmp_path / "mlx.json")["fine_tune_type"] == "lora"


def test_bfloat16_is_read_as_the_numbers_that_it_stands_for(tmp_path):
    values = np.array([1.5, -0.0078125, 3.0e38, 0.0], np.float32)
    raw = (values.view(np.uint32) >> 16).astype(np.uint16)
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + raw.tobytes())
    expected = (raw.astype(np.uint32) << 16).view(np.float32).reshape(2, 2)
    assert np.array_equal(peft_format.read_tensors(tmp_path / "a.safetensors")["x"], expected)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"peft_type": "LOHA"}, "the method LOHA"),
        ({"rank_pattern": {"v_proj": 2}}, "differ between layers"),
        ({"bias": "all"}, "trained biases"),
        ({"modules_to_save": ["lm_head"]}, "whole trained layers"),
    ],
)
def test_an_adapter_that_the_format_cannot_hold_is_refused(peft, changed, words):
    config = read_json(peft / "adapter_config.json")
    (peft / "adapter_config.json").write_text(json.dumps(config | changed))
    with pytest.raises(TrainingError, match=words):
        peft_format.read_peft(peft)


def test_an_adapter_on_the_embedding_is_refused_by_its_name(peft):
    tensors = load_file(peft / "adapter_model.safetensors")
    tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = np.zeros((4, 64), np.float32)
    save_file(tensors, peft / "adapter_model.safetensors")
    with pytest.raises(TrainingError, match="embed_tokens"):
        peft_format.read_peft(peft)
