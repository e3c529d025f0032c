"""Types, tensors, names and bytes of the files that are handed over."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import tiny_tokenizers
import yaml
from packaged_models import Chain
from snaketune import files
from snaketune.engines import load_gguf, load_model
from snaketune.engines.interface import LoadOptions
from snaketune.engines.llama_cpp import convertible, quantize
from snaketune.engines.mlx import capabilities, export, loading
from snaketune.engines.mlx import loading as mlx_loading
from snaketune.errors import ConfigError, ModelError, PackageError
from snaketune.package import gguf_conversion, tokenizer_files

SCHEMA = Path(__file__).resolve().parents[3] / "schemas" / "package.yaml"
IDS = list(range(5, 40))


def test_the_schema_offers_exactly_the_types_of_the_installed_llama_cpp() -> None:
    offered = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))["properties"]["gguf"]["items"]["enum"]
    assert set(offered) == set(quantize.types())


def test_misspelled_gguf_type_is_refused_with_the_nearest_name(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='did you mean "q4_k_m"'):
        quantize.quantize(chain.gguf("f16"), tmp_path / "x.gguf", "q4_km", threads=1)


def test_a_quantized_file_is_not_quantized_again_and_nothing_half_written_is_left(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="could not quantize"):
        quantize.quantize(chain.gguf("q4_k_m"), tmp_path / "x.gguf", "q8_0", threads=1)
    assert list(tmp_path.iterdir()) == []


def test_quantizing_gives_the_same_bytes_for_any_number_of_threads(chain: Chain, tmp_path: Path) -> None:
    for threads in (1, 2):
        quantize.quantize(chain.gguf("f16"), tmp_path / f"{threads}.gguf", "q4_k_m", threads=threads)
    assert files.sha256(tmp_path / "1.gguf") == files.sha256(tmp_path / "2.gguf")


def test_the_converter_loads_torch_but_not_its_compiler() -> None:
    """transformers imports that where it finds torch, at half the time of a small conversion."""
    command = [sys.executable, "-X", "importtime", gguf_conversion.PROCESS, gguf_conversion.LLAMA_CPP]
    done = subprocess.run(
        [*command, "convert_hf_to_gguf.py", files.dumps(gguf_conversion.Instead()), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "torch" in loaded
    assert not loaded & {"torch._dynamo", "torch.distributed.tensor", "transformers.activations"}


def test_converting_from_another_folder_gives_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    other = tmp_path / "Another-Name-7B-v2"
    shutil.copytree(chain.folder / "fused", other)
    gguf_conversion.convert(other, tmp_path / "again.gguf", name="tiny", merge=chain.source)
    assert files.sha256(tmp_path / "again.gguf") == files.sha256(chain.gguf("f16"))


def test_fusing_twice_gives_the_same_bytes_in_shards_of_any_size(chain: Chain, tmp_path: Path) -> None:
    whole = export.fuse(chain.base, chain.folder / "adapter", tmp_path / "a")
    again = export.fuse(chain.base, chain.folder / "adapter", tmp_path / "b", shard=40_000)
    assert whole.files == ["model.safetensors"]
    assert len(again.files) > 3
    assert files.sha256(tmp_path / "a/model.safetensors") == files.sha256(chain.folder / "fused/model.safetensors")
    one, other = (
        mlx_loading.open_lazily(_with_config(chain, tmp_path / name), dtype="float32").model for name in ("a", "b")
    )
    ours, theirs = loading.flatten(one.parameters()), loading.flatten(other.parameters())
    assert ours.keys() == theirs.keys()
    assert all((np.array(ours[name]) == np.array(theirs[name])).all() for name in ours)


def _with_config(chain: Chain, folder: Path) -> Path:
    shutil.copyfile(chain.folder / "fused" / "config.json", folder / "config.json")
    return folder


def test_an_adapter_of_another_shape_is_refused(chain: Chain, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(chain.folder / "adapter", adapter)
    config = files.read_json(adapter / "adapter_config.json")
    config["lora_parameters"]["rank"] = 7
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="does not fit its base"):
        export.fuse(chain.base, adapter, tmp_path / "x")


def test_the_fused_model_of_a_quantized_base_is_plain_and_16_bit(quantized_chain: Chain) -> None:
    folder = quantized_chain.folder / "fused"
    config = files.read_json(folder / "config.json")
    assert "quantization" not in config
    assert "quantization_config" not in config
    weights = loading.flatten(mlx_loading.open_lazily(folder).model.parameters())
    assert {str(value.dtype) for value in weights.values()} <= {"mlx.core.bfloat16", "mlx.core.float32"}
    assert not any(name.endswith((".scales", ".biases")) for name in weights)


def test_the_fused_manifest_names_every_file_by_its_bytes(chain: Chain) -> None:
    manifest = files.read_json(chain.folder / "fused.json")
    folder = chain.folder / "fused"
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()}
    assert all(files.sha256(folder / name) == facts["sha256"] for name, facts in manifest["files"].items())


def test_a_failed_fuse_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "fused").mkdir()
    (tmp_path / "fused" / "old").touch()

    def fail() -> None:
        with files.atomic_folder(tmp_path / "fused") as folder:
            (folder / "new").touch()
            raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["fused", "old"]


@pytest.mark.slow
def test_mlx_lm_generates_from_the_fused_folder(chain: Chain) -> None:
    command = [sys.executable, "-m", "mlx_lm", "generate", "--model", str(chain.folder / "fused")]
    said = subprocess.run(
        [*command, "--prompt", "what is the and of?", "--max-tokens", "8", "--temp", "0"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MLX_DISABLE_COMPILE": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert said.returncode == 0, said.stderr[-1000:]
    assert "Generation:" in said.stdout


@pytest.fixture(scope="module")
def half_chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A chain whose fused model is float16, so that rounding hides nothing."""
    from packaged_models import make_chain

    return make_chain(tmp_path_factory.mktemp("half"), "llama-sentencepiece", dtype="float32")


@pytest.mark.slow
def test_the_gguf_lora_over_its_base_is_the_fused_model(half_chain: Chain, tmp_path: Path) -> None:
    gguf_conversion.export_adapter(
        model=half_chain.folder / "base.json",
        adapter=half_chain.folder / "adapter" / "adapters.safetensors",
        peft=tmp_path / "peft",
        lora=tmp_path / "lora.gguf",
    )
    stated = files.read_json(tmp_path / "peft" / "adapter_config.json")
    assert (stated["peft_type"], stated["r"], stated["lora_alpha"]) == ("LORA", 4, 16.0)
    gguf_conversion.convert(half_chain.base, tmp_path / "base.gguf", name="base")
    said = [
        next(
            load_gguf(path, LoadOptions(context_length=256, adapter=lora, exact=True)).next_token_logprobs(
                [IDS], [range(len(IDS))]
            )
        )
        for path, lora in (
            (half_chain.gguf("f16"), None),
            (tmp_path / "base.gguf", tmp_path / "lora.gguf"),
            (tmp_path / "base.gguf", None),
        )
    ]
    assert np.abs(said[0] - said[1]).max() < 0.05
    assert np.abs(said[0] - said[2]).max() > 1


@pytest.mark.parametrize("kind", ["dora", "full"])
def test_exporting_an_adapter_that_is_no_lora_is_refused(kind: str, chain: Chain, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(chain.folder / "adapter", adapter)
    config = files.read_json(adapter / "adapter_config.json") | {"fine_tune_type": kind}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(PackageError, match=f"a {kind} fine-tune cannot be written as a LoRA"):
        gguf_conversion.export_adapter(
            model=chain.folder / "base.json",
            adapter=adapter / "adapters.safetensors",
            peft=tmp_path / "peft",
            lora=tmp_path / "lora.gguf",
        )
    assert not (tmp_path / "peft").exists()


@pytest.mark.parametrize("family", ["llama-sentencepiece", "gemma2", "mistral"])
def test_a_tokenizer_model_made_from_tokenizer_json_ranks_the_pieces_alike(family: str, tmp_path: Path) -> None:
    import sentencepiece

    families.FAMILIES[family].tokenizer(tmp_path)
    stated = files.read_json(tmp_path / "tokenizer.json")
    assert tokenizer_files.is_sentencepiece(stated)
    real = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    made = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_files.sentencepiece_model(stated))
    assert made.get_piece_size() == real.get_piece_size()
    count = real.get_piece_size()
    assert [made.id_to_piece(i) for i in range(count)] == [real.id_to_piece(i) for i in range(count)]
    assert [made.is_byte(i) for i in range(count)] == [real.is_byte(i) for i in range(count)]
    for text in tiny_tokenizers.corpus(40, seed=9):
        assert made.encode(text) == real.encode(text)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama-sentencepiece", "gemma2"])
def test_a_base_without_tokenizer_model_is_converted_with_the_same_tokens(family: str, tmp_path: Path) -> None:
    from packaged_models import make_chain

    write = tiny_tokenizers.write_sentencepiece
    try:
        tiny_tokenizers.write_sentencepiece = lambda *given, **more: write(*given, **more, with_model=False)
        chain = make_chain(tmp_path, family)
    finally:
        tiny_tokenizers.write_sentencepiece = write
    assert not (chain.base / "tokenizer.model").exists()
    assert chain.check(tmp_path / "f.json").passed


@pytest.mark.parametrize(
    ("split", "name"),
    [
        (tiny_tokenizers.LLAMA3, "llama-bpe"),
        (tiny_tokenizers.QWEN2, "qwen2"),
        ("gpt-2", "gpt-2"),
        ("smollm", "smollm"),
        (r"\w+|\W+", None),
        (tiny_tokenizers.QWEN2.replace("{1,3}", "") + "|x", None),
    ],
)
def test_a_pretokenizer_is_named_only_where_its_rule_is_exactly_llama_cpps(
    split: str, name: str | None, tmp_path: Path
) -> None:
    tiny_tokenizers.write_bpe(tmp_path, split=split, special=["<e>"], begin=None, end="<e>", template=None)
    assert convertible.pretokenizer(tmp_path) == name


def test_base_that_the_converter_does_not_know_is_refused_before_training(tmp_path: Path) -> None:
    tiny_tokenizers.write_bpe(tmp_path, split=r"\w+|\W+", special=["<e>"], begin=None, end="<e>", template=None)
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")
    with pytest.raises(ModelError, match="how this model's tokenizer splits text"):
        convertible.check_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(
        '{"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "n_routed_experts": 8}', "utf-8"
    )
    with pytest.raises(ModelError, match="mixtures of experts of the type deepseek_v2"):
        capabilities.check_fusable(files.read_json(tmp_path / "config.json"), tmp_path)
    assert "qwen2" not in convertible.tokenizer_hashes()
    assert len(convertible.tokenizer_hashes()) > 50


def test_converting_a_broken_folder_fails_with_the_converters_last_lines(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["NoSuchForCausalLM"]}', encoding="utf-8")
    with pytest.raises(PackageError, match="NoSuchForCausalLM"):
        gguf_conversion.convert(tmp_path, tmp_path / "x.gguf", name="x")
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.slow
def test_converting_holds_little_more_than_one_copy_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = families.FAMILIES["llama-bpe"]
    wide = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 16, "head_dim": 256}
    monkeypatch.setitem(families.FAMILIES, "wide", dataclasses.replace(small, config=small.config | wide))
    families.build(tmp_path / "wide", "wide", dtype="bfloat16")
    program = (
        "import resource, sys; from snaketune.package import gguf_conversion\n"
        "gguf_conversion.convert(sys.argv[1], sys.argv[2], name='wide')\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "wide"), str(tmp_path / "wide.gguf")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SCHEMA.parents[1] / "scripts")
    unit = 1 if sys.platform == "darwin" else 1024
    size = (tmp_path / "wide" / "model.safetensors").stat().st_size
    assert size > 400e6
    assert int(said.stdout) * unit < 1.3 * size


def test_streamed_model_has_the_distributions_of_the_model_in_memory(quantized_chain: Chain) -> None:
    base, adapter = quantized_chain.base, quantized_chain.folder / "adapter"
    rows, positions = [IDS, IDS[:20]], [range(35), range(3, 20)]
    streamed, whole = (
        load_model(base, LoadOptions(exact=True, adapter=adapter, layer_by_layer=layer_by_layer)).next_token_logprobs(
            rows, positions
        )
        for layer_by_layer in (True, False)
    )
    assert [np.abs(one - other).max() < 1e-3 for one, other in zip(streamed, whole, strict=True)] == [True, True]


def test_gguf_header_names_architecture_template_and_parameters(chain: Chain) -> None:
    head = gguf_conversion.read(chain.gguf("f16"))
    assert head.metadata["general.architecture"] == "llama"
    assert head.metadata["general.name"] == "tiny"
    assert head.template() == files.read_json(chain.folder / "fused" / "tokenizer_config.json")["chat_template"]
    assert head.parameters() == files.read_json(chain.folder / "fused.json")["parameters"]


def test_adapter_taken_off_leaves_the_base_and_put_back_is_the_same(quantized_chain: Chain) -> None:
    """One reading of the weights serves both, in the pilot's decision and in the fidelity check."""
    base, adapter = quantized_chain.base, quantized_chain.folder / "adapter"
    rows, positions = [IDS], [range(len(IDS))]

    def said(model: Any) -> np.ndarray:
        return next(iter(model.next_token_logprobs(rows, positions)))

    model = load_model(base, LoadOptions(exact=True, adapter=adapter))
    before = said(model)
    with model.without_adapter() as is_base:
        assert is_base
        alone = said(model)
    assert np.array_equal(alone, said(load_model(base, LoadOptions(exact=True))))
    assert np.array_equal(said(model), before)
    assert np.abs(before - alone).max() > 0.1
