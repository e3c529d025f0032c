"""Every family goes from its base through LoRA, fuse and conversion to GGUFs that are the model that was trained."""

from __future__ import annotations

from pathlib import Path

import families
import llama_cpps_gguf
import pytest
from packaged_models import VIRTUAL_TOKENS, Chain, make_chain, make_prompt_chain
from snaketune import files
from snaketune.config.sections import OllamaConfig
from snaketune.model.manifest import is_mixture
from snaketune.package import gguf_conversion, modelfile
from snaketune.plan import prompt_tuning

QUICK = ("llama-bpe", "gemma2")
CASES = [(name, bits) for name in families.FAMILIES for bits in (None, 4)]


def assert_faithful(chain: Chain, target: Path) -> None:
    record = chain.check(target)
    assert record.passed, [check.message for check in record.checks if not check.passed]
    f16 = record.variants["gguf-f16"]
    mixture = is_mixture(files.read_json(chain.folder / "fused" / "config.json"))
    # a random router is nearly undecided at one position in some hundred: there rounding may choose another expert
    assert (f16.most_dlogp if mixture else f16.max_dlogp) <= 0.05
    assert f16.kl < 1e-5
    assert f16.top1 > 0.99
    assert f16.greedy_same >= 3
    assert f16.greedy_total == 4


def test_a_bfloat16_llama_is_the_same_model_in_every_file(chain: Chain, tmp_path: Path) -> None:
    assert_faithful(chain, tmp_path / "fidelity.json")


def test_a_4_bit_gemma2_is_the_same_model_in_every_file(quantized_chain: Chain, tmp_path: Path) -> None:
    assert_faithful(quantized_chain, tmp_path / "fidelity.json")


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 4])
def test_a_dora_adapter_is_the_same_model_in_every_file(bits: int | None, tmp_path: Path) -> None:
    assert_faithful(make_chain(tmp_path, "llama-bpe", quantize=bits, kind="dora"), tmp_path / "fidelity.json")


@pytest.mark.slow
@pytest.mark.parametrize(("family", "bits"), CASES)
def test_a_family_is_the_same_model_in_every_file(family: str, bits: int | None, tmp_path: Path) -> None:
    chain = make_chain(tmp_path, family, quantize=bits)
    assert_faithful(chain, tmp_path / "fidelity.json")
    parameters = OllamaConfig(temperature=0.8, top_p=0.9, top_k=40, num_ctx=4096)
    modelfile.write_modelfile(
        tmp_path / "fused.json",
        chain.gguf("q8_0"),
        tmp_path / "test.jsonl",
        modelfile.ModelfileSettings(run="r", name=None, parameters=parameters, system=None),
        tmp_path / "Modelfile",
    )
    assert "TEMPLATE" in (tmp_path / "Modelfile").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("family", families.FAMILIES)
def test_fused_family_has_the_same_distributions_in_transformers(family: str, tmp_path: Path) -> None:
    import json
    import subprocess
    import sys

    chain = make_chain(tmp_path, family)
    record = chain.check(tmp_path / "fidelity.json", ggufs=[])
    program = (
        "import sys, torch; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model, info = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)\n"
        "assert not info['missing_keys'] and not info['unexpected_keys'], info\n"
        "AutoTokenizer.from_pretrained(sys.argv[1]).apply_chat_template([{'role': 'user', 'content': 'a'}])\n"
        "ids = torch.tensor([list(range(3, 20))])\n"
        "print(model.float()(ids).logits[0].log_softmax(-1).max(-1).values.tolist())\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "fused")], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr[-2000:]
    import numpy as np
    from snaketune.engines import load_model
    from snaketune.engines.interface import LoadOptions

    ours = next(
        load_model(tmp_path / "fused", LoadOptions(exact=True)).next_token_logprobs([range(3, 20)], [range(17)])
    )
    assert np.abs(ours.max(-1) - json.loads(said.stdout.splitlines()[-1])).max() < 0.02
    assert record.passed


def assert_prompt_tuned_as_trained(family: str, folder: Path) -> None:
    """Ids, template and Modelfile with the virtual tokens, and the probabilities of all other tokens."""
    chain = make_prompt_chain(folder, family)
    record = chain.check(folder / "fidelity.json")
    assert record.passed, [check.message for check in record.checks if not check.passed]
    for kind in ("f16", "q8_0"):
        facts = record.variants[f"gguf-{kind}"]
        assert (facts.tokens.differences, facts.template, facts.modelfile) == (0, 0, 0)
    assert record.variants["gguf-f16"].most_dlogp <= 0.05
    header = gguf_conversion.read(chain.gguf("q8_0"))
    tokens = llama_cpps_gguf.value(chain.gguf("q8_0"), "tokenizer.ggml.tokens")
    assert f"<|virtual_{VIRTUAL_TOKENS - 1}|>" in tokens
    assert "output.weight" in {tensor.name for tensor in header.tensors}


def test_a_prompt_tuned_llama_with_a_tied_head_is_the_same_model_in_every_file(tmp_path: Path) -> None:
    assert_prompt_tuned_as_trained("llama-sentencepiece", tmp_path)


def test_torch_hands_over_a_prompt_tuned_model_without_a_begin_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNAKETUNE_ENGINE", "torch")
    assert_prompt_tuned_as_trained("smollm", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [name for name, one in families.FAMILIES.items() if one.config["model_type"] in prompt_tuning.PROVEN]
)
def test_a_prompt_tuned_family_is_the_same_model_in_every_file(family: str, tmp_path: Path) -> None:
    assert_prompt_tuned_as_trained(family, tmp_path)


def test_rows_that_a_type_cannot_hold_are_reported_with_the_type_really_used(chain: Chain) -> None:
    head = gguf_conversion.read(chain.gguf("q4_k_m"))
    assert head.metadata["general.file_type"] == 15  # llama.cpp still calls the file Q4_K_M
    assert set(head.tensor_types()) == {"q5_0", "q8_0", "f32"}  # rows of 64 and 96 are no multiples of 256
