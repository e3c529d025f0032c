"""Adapters: which layers get one, its scale and size, and that mlx-lm loads what is written."""

import numpy as np
import pytest
import tiny_models
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model
from snaketune import files
from snaketune.engines.mlx import export as quantizing
from snaketune.engines.mlx import loading, lora
from snaketune.engines.mlx.loss import ChunkedCrossEntropy
from snaketune.errors import ConfigError, ModelError
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import MicroBatching, collate


def loaded(tmp_path, name="llama"):
    tiny_models.write_model(tmp_path / name, name)
    return loading.load(tmp_path / name).model


def test_lora_scale_is_alpha_over_rank_and_over_its_root_for_rslora():
    assert tiny_models.train_config(rank=16, alpha=32.0).lora_scale == 2
    assert tiny_models.train_config(rank=16, alpha=32.0, rslora=True).lora_scale == 8


def test_all_linear_names_every_linear_layer_of_a_block(tmp_path):
    assert lora.resolve_target_modules(loaded(tmp_path), "all-linear") == [
        "mlp.down_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "self_attn.k_proj",
        "self_attn.o_proj",
        "self_attn.q_proj",
        "self_attn.v_proj",
    ]


def test_target_modules_take_short_names_and_paths(tmp_path):
    model = loaded(tmp_path)
    assert lora.resolve_target_modules(model, ["v_proj", "q_proj"]) == lora.resolve_target_modules(
        model, ["self_attn.q_proj", "self_attn.v_proj"]
    )


def test_unknown_target_module_error_suggests_the_nearest_one(tmp_path):
    with pytest.raises(ConfigError, match=r'no linear layer "q_porj"; did you mean "q_proj"\?'):
        lora.resolve_target_modules(loaded(tmp_path), ["q_porj"])


def test_num_layers_trains_the_last_layers_only(tmp_path):
    model = loaded(tmp_path)
    lora.add_adapter(model, tiny_models.train_config(num_layers=1), seed=1)
    assert {name.split(".")[2] for name in loading.flatten(model.trainable_parameters())} == {"1"}


def test_parameter_counts_are_those_of_the_matrices(tmp_path):
    model = loaded(tmp_path)
    _, plain = lora.count_parameters(model)
    assert plain == sum(one.size for one in loading.flatten(model.parameters()).values())
    lora.add_adapter(model, tiny_models.train_config(rank=4, target_modules=["q_proj"]), seed=1)
    trainable, total = lora.count_parameters(model)
    assert trainable == 2 * 4 * (32 + 32)
    assert total == plain + trainable


def test_quantized_model_has_as_many_parameters_as_before(tmp_path):
    manifest = tiny_models.write_model(tmp_path / "model")
    _, plain = lora.count_parameters(loading.load(tmp_path / "model").model)
    quantize(manifest, tmp_path / "q")
    assert lora.count_parameters(loading.load(tmp_path / "q").model)[1] == plain


def quantize(manifest, folder, **changed):
    model = {"base": "x", "revision": "main", "quantize": {"bits": 4, "group_size": 32, "mode": "affine"} | changed}
    quantizing.quantize_base(manifest, model, folder, folder.with_suffix(".json"))
    return folder.with_suffix(".json")


def test_a_quantized_base_is_smaller_and_has_a_manifest(tmp_path):
    manifest = tiny_models.write_model(tmp_path / "model", "llama-untied")
    made = files.read_json(quantize(manifest, tmp_path / "q"))
    assert made["quantize"]["bits"] == 4
    assert made["files"]["model.safetensors"]["bytes"] < 0.4 * (tmp_path / "model" / "model.safetensors").stat().st_size
    assert files.read_json(tmp_path / "q" / "config.json")["quantization"]["group_size"] == 32


def test_quantizing_twice_gives_the_same_bytes(tmp_path):
    manifest = tiny_models.write_model(tmp_path / "model")
    first, second = (files.read_json(quantize(manifest, tmp_path / name))["files"] for name in ("a", "b"))
    assert first == second


def test_a_quantized_base_is_not_quantized_again(tmp_path):
    again = quantize(tiny_models.write_model(tmp_path / "model"), tmp_path / "q")
    with pytest.raises(ModelError, match="quantized already"):
        quantize(again, tmp_path / "qq")


def test_a_mode_with_other_bits_than_it_has_is_refused(tmp_path):
    with pytest.raises(ModelError, match="mxfp4 cannot have bits 8"):
        quantize(tiny_models.write_model(tmp_path / "model"), tmp_path / "q", mode="mxfp4", bits=8)


def test_full_training_of_a_quantized_base_is_refused(tmp_path):
    quantize(tiny_models.write_model(tmp_path / "model"), tmp_path / "q")
    with pytest.raises(ConfigError, match="full training needs a base that is not quantized"):
        lora.add_adapter(loading.load(tmp_path / "q").model, tiny_models.train_config(method="full"), seed=1)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("kind", ["lora", "qlora", "dora", "qdora", "full"])
def test_adapter_of_every_method_has_its_loss_when_mlx_lm_loads_it(tmp_path, architecture, kind):
    folder = tiny_models.TrainingFolder(tmp_path, model=architecture, train=8, valid=3)
    if kind.startswith("q"):
        folder.manifest = quantize(folder.manifest, tmp_path / "q")
    rate = 1e-3 if kind == "full" else 1e-2
    report = folder.train(
        method=kind.removeprefix("q"),
        epochs=6,
        batch_size=8,
        gradient_accumulation_steps=1,
        learning_rate=rate,
        warmup_steps=0,
    )
    assert report.best_validation_loss < report.base_validation_loss
    model, _ = load_model(tmp_path / ("q" if kind.startswith("q") else "model"))
    load_adapters(model, str(tmp_path / "out"))
    store = TokenStore(folder.valid_store)
    total = float(ChunkedCrossEntropy(model).value(collate(store, np.arange(3), MicroBatching(3, 1000))))
    assert total / store.num_target_tokens.sum() == pytest.approx(report.best_validation_loss, rel=1e-4)
