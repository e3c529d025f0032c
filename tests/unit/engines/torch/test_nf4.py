"""A base in NF4: packed as bitsandbytes packs, loaded as floats where there is no card, and fused from those."""

import json

import pytest
import tiny_models
import torch
from safetensors.torch import load_file
from snaketune.engines.interface import LoadOptions, LoglikelihoodRequest
from snaketune.engines.torch import export, language_model, nf4, train
from snaketune.errors import ModelError

QUANTIZED = {"base": "tiny", "revision": "main", "quantize": {"bits": 4, "group_size": 64, "mode": "nf4"}}


def unpacked(weight, block):
    packed = nf4.pack(weight, block)
    stored = dict(nf4._as_stored("w", weight, block))
    assert torch.equal(stored["w"], packed.weight)
    return nf4.unpack(stored, "w")


@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_number_becomes_the_nearest_of_sixteen_times_the_largest_of_its_block(block, dtype):
    weight = torch.randn(24, 128, generator=torch.Generator().manual_seed(1)).to(dtype)
    weight.view(-1, block)[3] = 0
    found = unpacked(weight, block)
    assert (found.dtype, found.shape) == (dtype, weight.shape)
    blocks = weight.float().reshape(-1, block)
    choices = blocks.abs().amax(1)[:, None, None] * torch.tensor(nf4.CODE)
    nearest = (choices - blocks[:, :, None]).abs().amin(2)
    error = (found.float().reshape(-1, block) - blocks).abs()
    torch.testing.assert_close(error, nearest, atol=1e-6 if dtype == torch.float32 else 2e-2, rtol=0)


def test_packing_is_that_of_bitsandbytes():
    functional = pytest.importorskip(
        "bitsandbytes.functional", reason="bitsandbytes is installed on NVIDIA cards alone"
    )
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(2))
    packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    ours = nf4.pack(weight, 64)
    assert torch.equal(packed, ours.weight)
    torch.testing.assert_close(state.absmax, ours.absmax)
    theirs = functional.QuantState.from_dict(
        {name.removeprefix("w."): one for name, one in nf4._as_stored("w", weight, 64) if name != "w"},
        torch.device("cpu"),
    )
    torch.testing.assert_close(functional.dequantize_4bit(ours.weight, theirs), unpacked(weight, 64))


@pytest.fixture
def folder(tmp_path):
    """A tiny base and its copy in NF4, with an adapter trained on the copy."""
    made = tiny_models.TrainingFolder(tmp_path)
    nf4.quantize_base(made.manifest, QUANTIZED, tmp_path / "packed", tmp_path / "packed.json")
    return made


@pytest.mark.usefixtures("folder")
def test_base_in_nf4_holds_its_blocks_in_four_bits_and_loads_as_the_floats_they_stand_for(tmp_path):
    stored = {}
    for path in (tmp_path / "packed").glob("*.safetensors"):
        stored |= load_file(path)
    name = "model.layers.0.mlp.up_proj.weight"
    original = load_file(tmp_path / "model" / "model.safetensors")
    assert stored[name].dtype == torch.uint8
    assert stored[name].numel() * 2 == original[name].numel()
    torch.testing.assert_close(stored["model.embed_tokens.weight"], original["model.embed_tokens.weight"])
    index = json.loads((tmp_path / "packed" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == stored.keys()
    model = language_model.load(tmp_path / "packed", LoadOptions()).model
    torch.testing.assert_close(model.get_parameter(name), nf4.unpack(stored, name))
    assert not torch.equal(model.get_parameter(name), original[name])


def test_adapter_on_a_base_in_nf4_trains_and_fuses_into_floats(folder, tmp_path):
    folder.manifest = tmp_path / "packed.json"
    summary = train.train(folder.job("adapter", max_steps=20, eval_steps=20))
    assert summary.best_validation_loss < 0.8 * summary.base_validation_loss
    export.fuse(tmp_path / "packed", tmp_path / "adapter", tmp_path / "fused")
    fused = load_file(tmp_path / "fused" / "model.safetensors")
    assert fused.keys() == load_file(tmp_path / "model" / "model.safetensors").keys()
    requests = [LoglikelihoodRequest(row.ids, row.loss_mask) for row in tiny_models.rows(5, seed=3)]
    (tmp_path / "fused" / "config.json").write_bytes((tmp_path / "model" / "config.json").read_bytes())
    whole = language_model.load(tmp_path / "fused", LoadOptions(exact=True))
    parts = language_model.load(tmp_path / "packed", LoadOptions(adapter=tmp_path / "adapter", exact=True))
    assert list(whole.loglikelihood(requests)) == pytest.approx(list(parts.loglikelihood(requests)), rel=2e-2)


@pytest.mark.usefixtures("folder")
def test_quantized_base_is_not_quantized_again(tmp_path):
    with pytest.raises(ModelError, match="quantized already"):
        nf4.quantize_base(tmp_path / "packed.json", QUANTIZED, tmp_path / "twice", tmp_path / "twice.json")
