"""The five silent ways to lose a fine-tune, planted on purpose: each is caught, and the right check catches it."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import llama_cpps_gguf
import mlx.core as mx
import numpy as np
import pytest
from packaged_models import Chain
from sentencepiece import sentencepiece_model_pb2
from snaketune import files
from snaketune.contracts.package import Fidelity
from snaketune.errors import PackageError
from snaketune.package import fidelity, gguf_conversion


def failed(record: Fidelity) -> set[tuple[str, str]]:
    return {(check.check, check.variant) for check in record.checks if not check.passed}


def place_of(path: Path, key: str) -> int:
    """Where the value of a metadata key begins in a GGUF file, after its type."""
    content = path.read_bytes()
    name = key.encode()
    return content.index(struct.pack("<Q", len(name)) + name) + 8 + len(name) + 4


def damaged(source: Path, target: Path, damage: Callable[[bytearray], None]) -> Path:
    content = bytearray(source.read_bytes())
    damage(content)
    target.write_bytes(content)
    return target


def test_special_tokens_demoted_to_ordinary_ones_are_caught(chain: Chain, tmp_path: Path) -> None:
    place = place_of(chain.gguf("f16"), "tokenizer.ggml.token_type") + 12
    special = llama_cpps_gguf.value(chain.gguf("f16"), "tokenizer.ggml.token_type").index(3)

    def demote(content: bytearray) -> None:
        for number in range(special, special + 5):
            struct.pack_into("<i", content, place + 4 * number, 1)

    bad = damaged(chain.gguf("f16"), tmp_path / "tiny-f16.gguf", demote)
    assert ("tokens", "gguf-f16") in failed(chain.check(tmp_path / "f.json", ggufs=[bad]))


def test_special_tokens_lost_while_fusing_are_caught(quantized_chain: Chain, tmp_path: Path) -> None:
    fused = tmp_path / "fused"
    shutil.copytree(quantized_chain.folder / "fused", fused)
    config = files.read_json(fused / "tokenizer_config.json")
    config["added_tokens_decoder"] = {}
    (fused / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((fused / "tokenizer.model").read_bytes())
    for piece in model.pieces:
        if "_of_turn" in piece.piece:
            piece.type = 1  # what the file of a base from before its chat tuning says
    (fused / "tokenizer.model").write_bytes(model.SerializeToString())
    bad = tmp_path / "tiny-f16.gguf"
    gguf_conversion.convert(fused, bad, name="tiny")
    found = failed(quantized_chain.check(tmp_path / "f.json", ggufs=[bad]))
    assert ("tokens", "gguf-f16") in found


def test_a_wrong_chat_template_is_caught(chain: Chain, tmp_path: Path) -> None:
    def swap(content: bytearray) -> None:
        place = place_of(chain.gguf("f16"), "tokenizer.chat_template")
        found = content.index(b"<|eot_id|>", place)
        content[found : found + 10] = b"<|xot_id|>"

    bad = damaged(chain.gguf("f16"), tmp_path / "tiny-f16.gguf", swap)
    assert ("template", "gguf-f16") in failed(chain.check(tmp_path / "f.json", ggufs=[bad]))


def test_a_swapped_tokenizer_is_caught(chain: Chain, tmp_path: Path) -> None:
    def swap(content: bytearray) -> None:
        names = llama_cpps_gguf.value(chain.gguf("f16"), "tokenizer.ggml.tokens")
        place = place_of(chain.gguf("f16"), "tokenizer.ggml.tokens") + 12
        for number, name in enumerate(names):
            if number in (names.index("e"), names.index("a")):
                content[place + 8 : place + 9] = b"a" if name == "e" else b"e"
            place += 8 + len(name.encode())

    bad = damaged(chain.gguf("f16"), tmp_path / "tiny-f16.gguf", swap)
    assert ("tokens", "gguf-f16") in failed(chain.check(tmp_path / "f.json", ggufs=[bad]))


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_a_truncated_file_is_caught(chain: Chain, tmp_path: Path, share: float) -> None:
    content = chain.gguf("q8_0").read_bytes()
    bad = tmp_path / "tiny-q8_0.gguf"
    bad.write_bytes(content[: int(len(content) * share)])
    record = chain.check(tmp_path / "f.json", ggufs=[chain.gguf("f16"), bad])
    assert failed(record) == {("loads", "gguf-q8_0")}


def with_weights(chain: Chain, target: Path, change: Callable[[str, mx.array], mx.array]) -> Path:
    """The manifest of a copy of the fused model with other weights."""
    fused = target / "fused"
    shutil.copytree(chain.folder / "fused", fused)
    weights = {name: change(name, value) for name, value in mx.load(str(fused / "model.safetensors")).items()}
    mx.save_safetensors(str(fused / "model.safetensors"), weights, {"format": "mlx"})
    manifest = files.read_json(chain.folder / "fused.json") | {"folder": str(fused), "files": {}}
    files.write_json(target / "fused.json", manifest)
    return target / "fused.json"


def test_a_fuse_that_was_quantized_again_is_caught(quantized_chain: Chain, tmp_path: Path) -> None:
    def requantize(name: str, value: mx.array) -> mx.array:
        if not name.endswith("proj.weight"):
            return value
        again = mx.dequantize(*mx.quantize(value, group_size=32, bits=4), group_size=32, bits=4)
        return again.astype(value.dtype)

    manifest = with_weights(quantized_chain, tmp_path, requantize)
    found = failed(quantized_chain.check(tmp_path / "f.json", manifest=manifest))
    assert ("logprobs", "fused") in found


def test_a_fuse_without_the_adapter_is_caught_and_named_as_the_step_that_lost_it(chain: Chain, tmp_path: Path) -> None:
    base = mx.load(str(chain.base / "model.safetensors"))
    manifest = with_weights(chain, tmp_path, lambda name, value: base[name].astype(value.dtype))
    record = chain.check(tmp_path / "f.json", manifest=manifest, ggufs=[])
    assert {("logprobs", "fused"), ("gain", "fused")} <= failed(record)
    with pytest.raises(PackageError, match="the first file that is not the trained model is fused"):
        fidelity.require_passed(tmp_path / "f.json")


def test_weights_that_are_not_finite_are_caught(chain: Chain, tmp_path: Path) -> None:
    def spoil(name: str, value: mx.array) -> mx.array:
        return value * mx.array(np.nan, value.dtype) if "layers.1.mlp.down_proj" in name else value

    manifest = with_weights(chain, tmp_path, spoil)
    assert ("logprobs", "fused") in failed(chain.check(tmp_path / "f.json", manifest=manifest, ggufs=[]))


def test_an_end_token_that_llama_cpp_does_not_know_is_caught(chain: Chain, tmp_path: Path) -> None:
    def forget(content: bytearray) -> None:
        place = place_of(chain.gguf("f16"), "tokenizer.ggml.eos_token_id")
        struct.pack_into("<I", content, place, 65)
        for at in (i for i in range(len(content) - 10) if content[i : i + 10] == b"<|eot_id|>"):
            content[at : at + 10] = b"<|zzz_id|>"

    bad = damaged(chain.gguf("f16"), tmp_path / "tiny-f16.gguf", forget)
    assert ("stops", "gguf-f16") in failed(chain.check(tmp_path / "f.json", ggufs=[bad]))


def test_divergence_margin_separates_a_lost_adapter_from_near_ties(chain: Chain, tmp_path: Path) -> None:
    right = chain.check(tmp_path / "right.json", ggufs=[]).variants["fused"]
    base = mx.load(str(chain.base / "model.safetensors"))
    manifest = with_weights(chain, tmp_path, lambda name, value: base[name].astype(value.dtype))
    wrong = chain.check(tmp_path / "wrong.json", manifest=manifest, ggufs=[]).variants["fused"]
    assert wrong.greedy_same < right.greedy_same
    assert wrong.divergence_margin > 0.1 > (right.divergence_margin or 0.0)


def test_fidelity_gate_passes_an_undamaged_chain(chain: Chain, tmp_path: Path) -> None:
    record = chain.check(tmp_path / "f.json")
    assert failed(record) == set()
    assert "passed" in fidelity.require_passed(tmp_path / "f.json")
