"""Models and adapters in torch and in MLX: the same scores, answers and merged weights; adapters in both formats."""

import json

import mlx.core as mx
import mlx.nn as nn
import mlx.utils
import numpy as np
import pytest
import tiny_models
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.numpy import save_file
from snaketune.config.sections import TrainConfig, section
from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import GenerationRequest, LoadOptions, LoglikelihoodRequest
from snaketune.engines.mlx import export as mlx_export
from snaketune.engines.mlx import language_model as mlx_models
from snaketune.engines.mlx import train as mlx_train
from snaketune.engines.torch import capabilities, export, language_model, loading, lora, loss, reference_merge, weights
from snaketune.engines.torch import train as torch_train
from snaketune.plan import architecture
from transformers import AutoModelForCausalLM

ROWS = tiny_models.rows(9, seed=4)
REQUESTS = [LoglikelihoodRequest(row.ids, row.loss_mask) for row in ROWS]
PROMPTS = [GenerationRequest(row.ids[: 2 + n % 3], 5 + n % 4, seed=n) for n, row in enumerate(ROWS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base with an adapter of each engine and method."""
    made = tiny_models.TrainingFolder(tmp_path_factory.mktemp("models"))
    for engine in (mlx_train, torch_train):
        name = engine.__name__.split(".")[2]
        for method in ("lora", "dora"):
            engine.train(made.job(f"{name}-{method}", max_steps=8, method=method))
    return made


def load(engine, folder, adapter=None, **options):
    path = folder.folder / adapter if adapter else None
    return engine.load(folder.folder / "model", LoadOptions(adapter=path, exact=True, **options))


def as_peft(folder, adapter):
    """The adapter as PEFT's folder."""
    target = folder.folder / f"{adapter}-peft"
    target.mkdir(exist_ok=True)
    exported = export.peft_adapter(folder.folder / adapter)
    save_file(exported.tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
    (target / "adapter_config.json").write_text(json.dumps(exported.config), encoding="utf-8")
    return target


@pytest.mark.parametrize("adapter", [None, "mlx-lora", "torch-lora", "mlx-dora", "torch-dora"])
def test_scores_and_greedy_answers_are_those_of_mlx_whichever_engine_trained(folder, adapter):
    ours, theirs = load(language_model, folder, adapter), load(mlx_models, folder, adapter)
    found, expected = (np.array(list(one.loglikelihood(REQUESTS))) for one in (ours, theirs))
    tokens = np.array([sum(row.loss_mask) for row in ROWS])
    np.testing.assert_allclose(found / tokens, expected / tokens, atol=1e-5, rtol=0)
    answers = [sorted(one.generate(PROMPTS, stop_ids={7, 9}, sampling=Sampling())) for one in (ours, theirs)]
    assert answers[0] == answers[1]
    positions = [[0, len(row.ids) - 2] for row in ROWS]
    for one, other in zip(
        *(model.next_token_logprobs([row.ids for row in ROWS], positions) for model in (ours, theirs)), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_sampled_answer_depends_on_its_own_request_alone(folder):
    model, sampling = load(language_model, folder, "torch-lora"), Sampling(temperature=1.0, top_p=0.9)
    together = {one.request_index: one.ids for one in model.generate(PROMPTS, stop_ids={7}, sampling=sampling)}
    for index, prompt in enumerate(PROMPTS):
        (alone,) = model.generate([prompt], stop_ids={7}, sampling=sampling)
        assert together[index] == alone.ids


def test_model_without_its_adapter_is_its_base(folder):
    model, base = load(language_model, folder, "mlx-dora"), load(language_model, folder)
    with model.without_adapter() as removed:
        assert removed
        assert list(model.loglikelihood(REQUESTS)) == list(base.loglikelihood(REQUESTS))
    assert list(model.loglikelihood(REQUESTS)) != list(base.loglikelihood(REQUESTS))


def test_adapter_in_pefts_format_scores_the_same_here_and_in_peft_itself(folder):
    peft = as_peft(folder, "mlx-lora")
    ours = load(language_model, folder, "mlx-lora")
    converted = language_model.load(folder.folder / "model", LoadOptions(adapter=peft, exact=True))
    expected = list(ours.loglikelihood(REQUESTS))
    np.testing.assert_allclose(list(converted.loglikelihood(REQUESTS)), expected, atol=1e-5)
    in_mlx = mlx_models.load(folder.folder / "model", LoadOptions(adapter=peft, exact=True))
    np.testing.assert_allclose(list(in_mlx.loglikelihood(REQUESTS)), expected, rtol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(folder.folder / "model", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, peft).eval()
    with torch.no_grad():
        ids = torch.tensor([ROWS[0].ids])
        torch.testing.assert_close(theirs(ids).logits, ours.model(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("adapter", ["torch-lora", "mlx-dora"])
def test_fused_weights_are_mlxs_and_those_of_the_reference_merge(folder, adapter, tmp_path):
    base, source = folder.folder / "model", folder.folder / adapter
    theirs = mlx_export.fuse(base, source, tmp_path / "mlx", dtype="bfloat16")
    ours = export.fuse(base, source, tmp_path / "torch", dtype="bfloat16", shard=9000)
    assert ours.parameters == theirs.parameters
    assert len(ours.files) > 2  # several shards and their index
    found = {}
    for path in (tmp_path / "torch").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    with safe_open(tmp_path / "mlx" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(found)
        for name, weight in found.items():
            torch.testing.assert_close(weight, file.get_tensor(name), atol=0, rtol=0.01)
    merged = export.merge(base, source)
    assert merged.keys() == found.keys()
    np.testing.assert_array_equal(
        torch.from_numpy(merged["model.norm.weight"].load()).bfloat16().float(), found["model.norm.weight"].float()
    )
    (tmp_path / "torch" / "config.json").write_bytes((base / "config.json").read_bytes())
    fused = language_model.load(tmp_path / "torch", LoadOptions(exact=True))
    reference = reference_merge.load(base, LoadOptions(adapter=source, exact=True), "bfloat16")
    np.testing.assert_allclose(list(fused.loglikelihood(REQUESTS)), list(reference.loglikelihood(REQUESTS)), atol=1e-4)


@pytest.mark.parametrize("adapter", ["torch-lora", "mlx-dora"])
def test_reference_merge_computed_block_by_block_is_the_merge_and_holds_no_block_after_that(folder, adapter):
    base, source = folder.folder / "model", folder.folder / adapter
    rows, positions = [row.ids for row in ROWS], [[1] for _ in ROWS]
    whole, streamed = (
        reference_merge.load(base, LoadOptions(adapter=source, exact=True, layer_by_layer=each), "bfloat16")
        for each in (False, True)
    )
    stored = [one.data_ptr() for block in lora.blocks(streamed.model) for one in block.parameters()]
    expected = list(whole.next_token_logprobs(rows, positions))
    for _ in range(2):  # what is merged when it computes is merged anew each time
        for one, other in zip(expected, streamed.next_token_logprobs(rows, positions), strict=True):
            np.testing.assert_array_equal(one, other)
    assert [one.data_ptr() for block in lora.blocks(streamed.model) for one in block.parameters()] == stored


def test_model_computed_block_by_block_is_the_model(folder):
    whole, streamed = (load(language_model, folder, "mlx-lora", layer_by_layer=each) for each in (False, True))
    rows, positions = [row.ids for row in ROWS], [[1] for _ in ROWS]
    for one, other in zip(*(model.next_token_logprobs(rows, positions) for model in (whole, streamed)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_block_goes_to_the_device_only_while_it_computes_and_all_else_at_once(folder, monkeypatch):
    """The device is one that is only written down: what is sent there stays here."""
    model, card, sent = load(language_model, folder, "mlx-lora").model.bfloat16(), torch.device("cuda"), []
    to = torch.Tensor.to

    def send(tensor, device, dtype=None):
        assert device is card
        sent.append(tensor.shape)
        return to(tensor, dtype or tensor.dtype)

    monkeypatch.setattr(torch.Tensor, "to", send)
    blocks = lora.blocks(model)
    stored = {one: one.data_ptr() for block in blocks for one in block.parameters()}
    language_model.compute_in_float32(model, card)
    assert sent == [one.shape for one in (*model.parameters(), *model.buffers()) if one not in stored]
    for block in blocks:
        sent.clear()
        for hook in block._forward_pre_hooks.values():
            hook(block, ())
        assert sent == [one.shape for one in block.parameters()]
        assert {one.dtype for one in block.parameters()} == {torch.float32}
        for hook in block._forward_hooks.values():
            hook(block, (), None)
    assert {one: one.data_ptr() for block in blocks for one in block.parameters()} == stored


@pytest.mark.parametrize("shape", ["llama", "qwen3", "gemma2", "gemma3"])
def test_attention_keeps_its_probabilities_for_the_backward_pass_where_the_forecast_counts_them(tmp_path, shape):
    tiny_models.write_model(tmp_path / "model", shape)
    config = tiny_models.CONFIGS[shape] | {"max_position_embeddings": 512}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model, length, kept = loading.load(tmp_path / "model"), 200, []
    lora.add_adapter(model, section(TrainConfig), 1)
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.shape) or one, lambda one: one):
        model.base_model(input_ids=torch.arange(2 * length).view(2, length) % 30, use_cache=False)
    whole = [one for one in kept if len(one) == 4 and one[1] > 1 and one[-2:] == (length, length)]
    forecast = architecture.read(config)
    assert bool(whole) is not (capabilities.ATTENTION_IN_TILES and not forecast.caps_scores)


class Calls:
    """Counts how often a part of a model runs."""

    def __init__(self, module):
        self.count = 0
        module.register_forward_hook(self._add)

    def _add(self, *_):
        self.count += 1


def test_distributions_of_rows_read_together_are_those_of_each_row_alone(folder):
    lengths = [3, 9, 10, 8, 40, 2, 2, 2]
    rows = [[(7 * n + i * i) % 50 for i in range(length)] for n, length in enumerate(lengths)]
    positions = [list(range(n % 2, length, 1 + n % 3)) for n, length in enumerate(lengths)]
    model = load(language_model, folder, "torch-lora")
    passes = Calls(model.model.base_model)
    together = list(model.next_token_logprobs(rows, positions))
    assert passes.count < len(rows)
    for ids, wanted, found in zip(rows, positions, together, strict=True):
        (alone,) = load(language_model, folder, "torch-lora").next_token_logprobs([ids], [wanted])
        np.testing.assert_allclose(found, alone, atol=1e-5)


def test_head_of_a_loaded_model_is_measured_once_with_and_without_its_adapter(folder):
    model = load(language_model, folder, "torch-lora")
    passes, row, wanted = Calls(model.model.base_model), [ROWS[0].ids], [[0, 1]]
    list(model.next_token_logprobs(row, wanted))
    assert passes.count == 1  # the row's: what the head is, is seen without the blocks
    with model.without_adapter():
        list(model.next_token_logprobs(row, wanted))
        list(model.loglikelihood(REQUESTS[:1]))
    list(model.loglikelihood(REQUESTS[:1]))
    assert passes.count == 4


@pytest.mark.parametrize(("name", "is_plain"), [("llama", True), ("gemma2", False)])
@pytest.mark.parametrize("layer_by_layer", [False, True])
def test_a_head_with_a_softcap_is_no_plain_product_and_both_give_the_models_own_logits(
    name, is_plain, layer_by_layer, tmp_path
):
    tiny_models.write_model(tmp_path / name, name)
    model = language_model.load(tmp_path / name, LoadOptions(exact=True, layer_by_layer=layer_by_layer))
    head, ids = loss.ChunkedCrossEntropy(model.model), torch.tensor([ROWS[0].ids])
    assert (head.head_weight is not None) is is_plain
    with torch.no_grad():
        hidden = model.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
        expected = model.model(input_ids=ids, use_cache=False).logits[0]
        torch.testing.assert_close(head.logits(hidden), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_base_that_mlx_has_quantized_is_dequantized_to_the_same_weights(bits):
    layer = nn.Linear(64, 32, bias=False)
    quantized = nn.QuantizedLinear.from_linear(layer, group_size=32, bits=bits)
    parts = {
        f"layer.{name}": torch.from_numpy(np.array(one)) for name, one in mlx.utils.tree_flatten(quantized.parameters())
    }
    found = weights.dequantized(parts, {"quantization": {"group_size": 32, "bits": bits}})
    expected = mx.dequantize(quantized.weight, quantized.scales, quantized.biases, 32, bits)
    assert found.keys() == {"layer.weight"}
    np.testing.assert_allclose(found["layer.weight"], np.array(expected), atol=1e-6)


def test_update_norm_is_that_of_mlx(folder):
    ours, theirs = (load(engine, folder, "torch-lora").adapter_norm_ratio() for engine in (language_model, mlx_models))
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_p=0.9)])
def test_streamed_tokens_are_those_of_the_completion(folder, sampling):
    model = load(language_model, folder)
    for request in PROMPTS[:3]:
        (whole,) = model.generate([request], stop_ids={3}, sampling=sampling)
        assert list(model.stream(request, stop_ids={3}, sampling=sampling)) == whole.ids
