"""The head of a model in torch, run without the blocks: architectures whose forwards read more than hidden states."""

import numpy as np
import pytest
import tiny_models
import torch
from snaketune.engines.torch.loss import ChunkedCrossEntropy
from snaketune.errors import ModelError
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import MicroBatching, collate
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, OPTForCausalLM

SHAPE = {
    "vocab_size": tiny_models.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
GRANITE = {"num_local_experts": 0, "shared_intermediate_size": 48, "layer_types": ["attention"], "mamba_n_heads": 2}
FALCON = {"mamba_d_ssm": 32, "mamba_n_heads": 2, "mamba_d_state": 8, "head_dim": 16}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32}
OLDER = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
XGLM = {"d_model": 32, "ffn_dim": 48, "num_layers": 1, "attention_heads": 2}

MODELS = {  # the architecture, its own settings, whether its logits are the head's product and nothing more
    "granitemoehybrid": ("granitemoehybrid", GRANITE | {"logits_scaling": 1.0}, True),
    "granitemoehybrid-scaled": ("granitemoehybrid", GRANITE | {"logits_scaling": 6.0}, False),
    "falcon_h1": ("falcon_h1", FALCON | {"lm_head_multiplier": 1.0}, True),
    "falcon_h1-scaled": ("falcon_h1", FALCON | {"lm_head_multiplier": 0.02}, False),
    "jamba": ("jamba", {"num_experts": 1, "attn_layer_period": 1, "attn_layer_offset": 0}, True),
    "qwen3_moe": ("qwen3_moe", {"num_experts": 0, "head_dim": 16}, True),
    "opt": ("opt", OPT, True),
    "gpt_bigcode": ("gpt_bigcode", OLDER, True),
    "biogpt": ("biogpt", {}, True),
    "xglm": ("xglm", XGLM, True),
}


def config_of(name):
    architecture, settings, _ = MODELS[name]
    return AutoConfig.for_model(architecture, **SHAPE | settings)


def made(name, build=AutoModelForCausalLM.from_config):
    torch.manual_seed(0)
    return build(config_of(name)).eval()


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    rows = tiny_models.store(tmp_path_factory.mktemp("heads") / "rows.safetensors", tiny_models.rows(3))
    return collate(TokenStore(rows), np.arange(3), MicroBatching(3, 1000))


def loss_of_the_whole_model(model, batch):
    """The same sum, from the logits of all positions at once."""
    logits = model(input_ids=torch.from_numpy(batch.inputs).long(), use_cache=False).logits
    at_targets = logits.reshape(-1, logits.shape[-1])[torch.from_numpy(batch.target_positions).long()]
    return functional.cross_entropy(at_targets, torch.from_numpy(batch.labels).long(), reduction="sum")


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_loss_of_an_architecture_are_its_own_whatever_its_forward_reads_of_its_backbone(name, batch):
    model, ids = made(name), torch.tensor([tiny_models.rows(1)[0].ids])
    backbone = model.base_model
    head = ChunkedCrossEntropy(model)
    assert (head.head_weight is not None) is MODELS[name][2]
    assert model.base_model is backbone
    with torch.no_grad():
        hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state[0]
        torch.testing.assert_close(head.logits(hidden), model(input_ids=ids, use_cache=False).logits[0])
        torch.testing.assert_close(head.value(batch), loss_of_the_whole_model(model, batch))


@pytest.mark.parametrize("name", ["granitemoehybrid-scaled", "falcon_h1-scaled", "opt"])
def test_gradient_through_a_head_that_runs_alone_is_the_whole_models(name, batch):
    ours, theirs = made(name), made(name)
    ChunkedCrossEntropy(ours).backward(batch, 7)
    (loss_of_the_whole_model(theirs, batch) / 7).backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)


class ScaledOPT(OPTForCausalLM):
    """Calls a part of its backbone alone, as OPT does, and changes the logits after its head."""

    def forward(self, *arguments, **options):
        output = super().forward(*arguments, **options)
        output.logits = output.logits / 6
        return output


def test_head_that_neither_runs_alone_nor_is_a_plain_product_is_refused_in_words(batch):
    model = made("opt", ScaledOPT)
    with pytest.raises(ModelError, match="the head of ScaledOPT does not run without its backbone"):
        ChunkedCrossEntropy(model).value(batch)
