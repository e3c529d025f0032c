"""GGUFs with an importance matrix: what is collected, which types read it, and when it is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import families
import llama_cpps_gguf
import numpy as np
import pytest
from made_once import made_once
from packaged_models import Chain, make_chain, row_reader
from snaketune.config.products import NEEDS_IMATRIX, READS_IMATRIX, check_imatrix, takes_imatrix
from snaketune.contracts.package import CalibrationResult
from snaketune.engines import load_gguf
from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import GenerationRequest, LoadOptions, LoglikelihoodRequest
from snaketune.engines.llama_cpp import importance, quantize
from snaketune.engines.llama_cpp.importance import Importance
from snaketune.errors import ConfigError, PackageError
from snaketune.model.manifest import BaseConfig, write_manifest
from snaketune.package import gguf_conversion, imatrix

WIDE = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}


@pytest.fixture(scope="module")
def wide_chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A model whose rows k-quants and i-quants can hold, and some of whose inputs are large, as in trained ones."""

    def make(folder: Path) -> None:
        import mlx.core as mx

        chain = Chain(folder)
        families.build(chain.base, "llama-bpe", **WIDE)
        weights = mx.load(str(chain.base / "model.safetensors"))
        draw = np.random.default_rng(0)
        for name in sorted(weights):
            if name.endswith("layernorm.weight"):
                weights[name] = mx.array(0.3 * draw.lognormal(0, 1, weights[name].shape)).astype(mx.bfloat16)
        mx.save_safetensors(str(chain.base / "model.safetensors"), weights, {"format": "mlx"})
        settings = BaseConfig(base=str(chain.base), revision="main")
        write_manifest(folder / "base.json", settings, str(chain.base), patterns=("*.json", "*.safetensors"))
        gguf_conversion.convert(chain.base, chain.gguf("f16"), name="wide")
        rows = row_reader(folder).training_ids(families.conversations())
        imatrix.collect_imatrix(chain.gguf("f16"), rows, folder / "imatrix.gguf", threads=1)

    return Chain(made_once(tmp_path_factory, "wide", make))


@pytest.fixture
def token_rows(chain: Chain) -> list[list[int]]:
    return row_reader(chain.folder).training_ids(families.conversations())


def means(path: Path) -> dict[str, np.ndarray]:
    return {name: found.mean_squares() for name, found in imatrix.read_imatrix(path).tensors.items()}


def inputs_in_mlx(folder: Path, rows: list[list[int]]) -> dict[str, np.ndarray]:
    """The inputs of every linear layer of a model in MLX, all tokens of all rows; by the layer's name."""
    import mlx.core as mx
    import mlx.nn as nn
    from snaketune.engines.mlx.loading import load

    model = load(folder, dtype="float32").model
    names = {id(module): name for name, module in model.named_modules()}
    seen: dict[str, list[np.ndarray]] = {}
    compute = nn.Linear.__call__

    def noting(layer: nn.Linear, inputs: mx.array) -> mx.array:
        seen.setdefault(names[id(layer)], []).append(np.array(inputs).reshape(-1, inputs.shape[-1]))
        return compute(layer, inputs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(nn.Linear, "__call__", noting)
        for row in rows:
            mx.eval(model(mx.array([row])))
    return {name: np.concatenate(parts) for name, parts in seen.items()}


LAYERS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def test_what_is_collected_is_what_another_engine_multiplies_each_matrix_with(
    chain: Chain, token_rows: list[list[int]]
) -> None:
    found = importance.collect(chain.gguf("f16"), token_rows, threads=1)
    inputs = inputs_in_mlx(chain.folder / "fused", token_rows)
    assert set(found) == {f"blk.{block}.{name}.weight" for block in (0, 1) for name in LAYERS}
    for tensor, collected in found.items():
        _, block, name, _ = tensor.split(".")
        expected = np.square(inputs[f"model.layers.{block}.{LAYERS[name]}"].astype(np.float64))
        assert collected.counts.tolist() == [sum(map(len, token_rows))]
        # llama.cpp's arithmetic is in f16 where its weights are
        assert collected.mean_squares() == pytest.approx(expected.mean(0), rel=0.02, abs=1e-4), tensor


def test_each_expert_of_a_mixture_has_the_inputs_of_the_tokens_that_were_sent_to_it(tmp_path: Path) -> None:
    mixture = make_chain(tmp_path, "mixtral")
    rows = row_reader(tmp_path).training_ids(families.conversations())
    found = importance.collect(mixture.gguf("f16"), rows, threads=1)
    tokens = sum(map(len, rows))
    for block in (0, 1):
        router, gate = found[f"blk.{block}.ffn_gate_inp.weight"], found[f"blk.{block}.ffn_gate_exps.weight"]
        assert gate.counts.shape == (4,)
        assert gate.counts.sum() == 2 * tokens  # every token goes to two of four experts, with the router's input
        assert gate.squares.sum(0) == pytest.approx(2 * router.squares[0])
        assert found[f"blk.{block}.ffn_down_exps.weight"].counts.tolist() == gate.counts.tolist()


def test_an_expert_that_no_token_was_sent_to_counts_all_its_inputs_alike() -> None:
    found = Importance(np.array([[2.0, 4.0], [0.0, 0.0]]), np.array([2, 0]))
    assert found.mean_squares().tolist() == [1, 2, 1, 1]


def test_the_file_is_llama_cpps_own_format(wide_chain: Chain) -> None:
    path = wide_chain.folder / "imatrix.gguf"
    read = llama_cpps_gguf.package().GGUFReader(path)
    assert read.fields["general.type"].contents() == "imatrix"
    assert read.fields["imatrix.chunk_count"].contents() == 12
    tensors = {tensor.name: tensor.data for tensor in read.tensors}
    ours = imatrix.read_imatrix(path)
    assert len(tensors) == 2 * len(ours.tensors)
    for name, found in ours.tensors.items():
        assert np.array_equal(tensors[f"{name}.in_sum2"], found.squares)
        assert np.array_equal(tensors[f"{name}.counts"].ravel(), found.counts)


def test_a_model_is_no_importance_matrix(chain: Chain) -> None:
    with pytest.raises(PackageError, match="no importance matrix"):
        imatrix.read_imatrix(chain.gguf("f16"))


def test_rows_beyond_the_bound_of_tokens_are_left_out_evenly(
    chain: Chain, tmp_path: Path, token_rows: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imatrix, "COLLECTED_TOKENS", sum(map(len, token_rows)) // 3)
    assert imatrix.collect_imatrix(chain.gguf("f16"), token_rows, tmp_path / "imatrix.gguf", threads=1) <= 4


def test_the_same_rows_give_the_same_bytes_with_any_number_of_threads(wide_chain: Chain, tmp_path: Path) -> None:
    rows = row_reader(wide_chain.folder).training_ids(families.conversations())
    imatrix.collect_imatrix(wide_chain.gguf("f16"), rows, tmp_path / "imatrix.gguf", threads=2)
    assert (tmp_path / "imatrix.gguf").read_bytes() == (wide_chain.folder / "imatrix.gguf").read_bytes()
    matrix = means(tmp_path / "imatrix.gguf")
    for threads in (1, 2):
        quantize.quantize(wide_chain.gguf("f16"), tmp_path / f"{threads}", "iq2_xs", threads=threads, imatrix=matrix)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


SLOWEST = "iq1_m"  # llama.cpp looks for its bits for ten seconds


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == SLOWEST)) for kind in sorted(quantize.types())]
)
def test_the_types_that_need_or_read_a_matrix_are_those_that_llama_cpp_makes_so(
    kind: str, wide_chain: Chain, tmp_path: Path
) -> None:
    source, matrix = wide_chain.gguf("f16"), means(wide_chain.folder / "imatrix.gguf")
    quantize.quantize(source, tmp_path / "with", kind, threads=1, imatrix=matrix)
    if kind in NEEDS_IMATRIX:
        with pytest.raises(PackageError, match=f"could not quantize it to {kind}"):
            quantize.quantize(source, tmp_path / "without", kind, threads=1)
    else:
        quantize.quantize(source, tmp_path / "without", kind, threads=1)
        changed = (tmp_path / "with").read_bytes() != (tmp_path / "without").read_bytes()
        assert changed == (kind in READS_IMATRIX)


def validation_rows(chain: Chain) -> list[LoglikelihoodRequest]:
    """Other questions than those of the matrix, with the model's own answers: a file that is further from it loses."""
    asked = row_reader(chain.folder).validation_requests(families.conversations(24, seed=5))
    prompts = [list(row.ids[: row.loss_mask.index(True)]) for row in asked]
    model = load_gguf(chain.gguf("f16"), LoadOptions(context_length=128, exact=True))
    greedy = Sampling(temperature=0.0)
    answers = model.generate([GenerationRequest(one, 24) for one in prompts], stop_ids=frozenset(), sampling=greedy)
    found = {answer.request_index: answer.ids for answer in answers}
    model.close()
    return [
        LoglikelihoodRequest(prompt + found[i], [False] * len(prompt) + [True] * len(found[i]))
        for i, prompt in enumerate(prompts)
    ]


def outcome_of(chain: Chain, kind: str, target: Path, matrix: Path | None = None) -> CalibrationResult:
    return imatrix.quantize_with_imatrix(
        chain.gguf("f16"),
        matrix or chain.folder / "imatrix.gguf",
        target,
        kind,
        judge=imatrix.Judge(validation_rows(chain), merged_loss=0.25),
        threads=1,
    )


def distances(chain: Chain, target: Path) -> float:
    """The mean Kullback-Leibler divergence, in nats a position, of a GGUF from the 16-bit one on validation rows."""
    rows = [row.ids for row in validation_rows(chain)]
    positions = [range(len(row)) for row in rows]
    true, found = (
        np.concatenate(list(load_gguf(path, LoadOptions(context_length=128, exact=True)).next_token_logprobs(*asked)))
        for path, asked in ((chain.gguf("f16"), (rows, positions)), (target, (rows, positions)))
    )
    return float((np.exp(true) * (true - found)).sum(-1).mean())


def test_two_bits_are_nearer_to_the_model_with_the_matrix_of_the_training_rows(
    wide_chain: Chain, tmp_path: Path
) -> None:
    matrix = means(wide_chain.folder / "imatrix.gguf")
    quantize.quantize(wide_chain.gguf("f16"), tmp_path / "with", "q2_k", threads=1, imatrix=matrix)
    quantize.quantize(wide_chain.gguf("f16"), tmp_path / "without", "q2_k", threads=1)
    assert distances(wide_chain, tmp_path / "with") < 0.9 * distances(wide_chain, tmp_path / "without")


def upside_down(found: Importance) -> Importance:
    """A matrix that says that small inputs count and large ones do not."""
    return Importance(found.squares.mean() ** 3 / np.maximum(found.squares, 1e-9) ** 2, found.counts)


@pytest.mark.parametrize("changed", [None, upside_down])
def test_the_file_with_the_lower_loss_on_validation_rows_is_kept(
    changed: Callable[[Importance], Importance] | None, wide_chain: Chain, tmp_path: Path
) -> None:
    matrix = imatrix.read_imatrix(wide_chain.folder / "imatrix.gguf")
    if changed:
        tensors = {name: changed(found) for name, found in matrix.tensors.items()}
        matrix = imatrix.ImportanceMatrix(tensors, matrix.rows, matrix.longest)
    imatrix.write_imatrix(tmp_path / "imatrix.gguf", matrix)
    outcome = outcome_of(wide_chain, "q2_k", tmp_path / "q2_k.gguf", tmp_path / "imatrix.gguf")
    assert outcome.kept == (outcome.loss < outcome.plain_loss)
    assert (outcome.rows, outcome.validation_rows, outcome.merged_loss) == (12, 24, 0.25)
    assert outcome.kept == (changed is None)
    quantize.quantize(wide_chain.gguf("f16"), tmp_path / "plain", "q2_k", threads=1)
    assert ((tmp_path / "q2_k.gguf").read_bytes() == (tmp_path / "plain").read_bytes()) == (not outcome.kept)


def test_the_loss_before_quantizing_is_that_of_the_16_bit_file_and_below_that_of_few_bits(
    wide_chain: Chain, tmp_path: Path
) -> None:
    rows = validation_rows(wide_chain)
    found = imatrix.merged_loss(wide_chain.gguf("f16"), rows, threads=1)
    model = load_gguf(wide_chain.gguf("f16"), LoadOptions(context_length=128, exact=True))
    targets = sum(sum(row.loss_mask[1:]) for row in rows)
    assert found.loss == pytest.approx(-sum(model.loglikelihood(rows)) / targets, abs=1e-5)
    assert found.validation_rows == len(rows)
    assert found.loss < outcome_of(wide_chain, "iq2_xs", tmp_path / "iq2_xs.gguf").loss


def test_a_type_that_needs_the_matrix_has_nothing_to_be_compared_with(wide_chain: Chain, tmp_path: Path) -> None:
    outcome = outcome_of(wide_chain, "iq2_xs", tmp_path / "iq2_xs.gguf")
    assert outcome.kept
    assert outcome.plain_loss is None
    assert "iq2_xs" in gguf_conversion.read(tmp_path / "iq2_xs.gguf").tensor_types()


@pytest.mark.parametrize(
    ("imatrix_setting", "expected"),
    [("auto", {"q2_k", "iq4_xs", "iq2_xs"}), (True, {"q2_k", "iq4_xs", "iq2_xs", "q4_k_m"}), (False, set())],
)
def test_the_setting_says_which_types_have_a_matrix(imatrix_setting: bool | str, expected: set[str]) -> None:
    kinds = ("f16", "q8_0", "q4_k_m", "q2_k", "iq4_xs", "iq2_xs", "tq1_0")
    assert {kind for kind in kinds if takes_imatrix(kind, imatrix_setting)} == expected


def test_a_type_that_needs_the_matrix_is_refused_where_it_is_switched_off() -> None:
    check_imatrix(["q2_k", "iq4_xs"], False)
    check_imatrix(["iq2_xs"], "auto")
    with pytest.raises(ConfigError, match="does not make iq2_xs, q2_k_s without an importance matrix") as refused:
        check_imatrix(["q8_0", "iq2_xs", "q2_k_s"], False)
    assert refused.value.where == "package.gguf"


def test_another_layout_of_ggmls_tensors_is_noticed_before_any_is_read(
    chain: Chain, token_rows: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importance, "OBJECT_BYTES", 40)
    with pytest.raises(PackageError, match="is not the one"):
        importance.collect(chain.gguf("f16"), token_rows, threads=1)
