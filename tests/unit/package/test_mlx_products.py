"""Quantized folders for MLX: what is in them, what the checks find, and when a calibration is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import families
import msgspec
import pytest
from packaged_models import Chain, row_reader
from snaketune import files
from snaketune.contracts.package import Fidelity, FusedManifest, MLXManifest
from snaketune.engines.interface import CalibrationRows
from snaketune.errors import PackageError
from snaketune.evaluate.variants import ModelVariant
from snaketune.package import fidelity, mlx_folder


def quantized(chain: Chain, folder: Path, kind: str, rows: CalibrationRows | None = None) -> MLXManifest:
    adapter = chain.folder / "adapter" / "adapters.safetensors"
    target = folder / f"tiny-mlx-{kind}.json"
    base = chain.folder / "base.json"
    return mlx_folder.quantize_mlx(chain.folder / "fused.json", base, adapter, target, name=kind, rows=rows)


def checked(chain: Chain, folder: Path, manifests: list[Path]) -> Fidelity:
    inputs = fidelity.FidelityInputs(
        model=chain.folder / "base.json",
        adapter=chain.folder / "adapter" / "adapters.safetensors",
        fused=chain.folder / "fused.json",
        ggufs=[],
        rows=chain.folder / "test.jsonl",
        mlx=manifests,
    )
    return fidelity.run(inputs, chain.settings, folder / "fidelity.json")


def failed(record: Fidelity) -> set[str]:
    return {check.check for check in record.checks if not check.passed}


def changed(manifest: MLXManifest, folder: Path, faults: dict[str, dict[str, object]]) -> Path:
    """A copy of a folder with keys of its JSON files changed; the manifest of the copy."""
    target = folder / "changed"
    shutil.copytree(manifest.folder, target)
    for name, values in faults.items():
        files.write_json(target / name, files.read_json(target / name) | values)
    files.write_json(folder / "changed.json", msgspec.structs.replace(manifest, folder=str(target)))
    return folder / "changed.json"


@pytest.mark.parametrize("kind", ["8bit-g32", "4bit-g32", "mxfp8", "6bit-g32"])
def test_a_folder_is_read_by_mlx_lm_and_passes_every_check(kind: str, chain: Chain, tmp_path: Path) -> None:
    import mlx_lm

    made = quantized(chain, tmp_path, kind)
    weights = files.read_json(chain.folder / "fused.json", FusedManifest).files["model.safetensors"]
    assert made.files["model.safetensors"].bytes < 0.7 * weights.bytes
    model, tokenizer = mlx_lm.load(made.folder)
    assert mlx_lm.generate(model, tokenizer, "hello", max_tokens=3) is not None
    record = checked(chain, tmp_path, [tmp_path / f"tiny-mlx-{kind}.json"])
    assert failed(record) <= {"gain"}
    assert {check.check for check in record.checks if check.variant == f"mlx-{kind}"} == {
        *("loads", "tokens", "template", "stops", "gain")
    }
    assert record.variants[f"mlx-{kind}"].bytes == made.bytes


def test_eight_bits_keep_the_gain_and_more_bits_keep_more(chain: Chain, tmp_path: Path) -> None:
    for kind in ("8bit-g32", "3bit-g32"):
        quantized(chain, tmp_path, kind)
    record = checked(chain, tmp_path, [tmp_path / f"tiny-mlx-{kind}.json" for kind in ("8bit-g32", "3bit-g32")])
    kept = {check.variant: check.value for check in record.checks if check.check == "gain"}
    assert kept["mlx-8bit-g32"] > 0.97
    assert abs(1 - kept["mlx-8bit-g32"]) < abs(1 - kept["mlx-3bit-g32"])


def test_quantizing_twice_gives_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    one, two = (quantized(chain, tmp_path / name, "4bit-g32") for name in ("a", "b"))
    assert one.files == two.files


def test_a_quantized_base_is_dequantized_merged_and_quantized_once(quantized_chain: Chain, tmp_path: Path) -> None:
    quantized(quantized_chain, tmp_path, "8bit-g32")
    assert failed(checked(quantized_chain, tmp_path, [tmp_path / "tiny-mlx-8bit-g32.json"])) == set()


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ({"tokenizer_config.json": {"chat_template": "{{ messages[0]['content'] }}"}}, "template"),
        ({"generation_config.json": {"eos_token_id": 7}, "tokenizer_config.json": {"eos_token": "a"}}, "stops"),
        ({"config.json": {"hidden_size": 65}}, "loads"),
    ],
)
def test_a_fault_in_a_folder_is_found_and_named(
    faults: dict[str, dict[str, object]], expected: str, chain: Chain, tmp_path: Path
) -> None:
    made = quantized(chain, tmp_path, "8bit-g32")
    record = checked(chain, tmp_path, [changed(made, tmp_path, faults)])
    assert expected in failed(record)
    with pytest.raises(PackageError, match="mlx-8bit-g32"):
        fidelity.require_passed(tmp_path / "fidelity.json")


def test_a_folder_without_its_weights_does_not_load(chain: Chain, tmp_path: Path) -> None:
    made = quantized(chain, tmp_path, "8bit-g32")
    (Path(made.folder) / "model.safetensors").unlink()
    record = checked(chain, tmp_path, [tmp_path / "tiny-mlx-8bit-g32.json"])
    assert [check.message for check in record.checks if check.check == "loads"] == [
        f"{made.folder}: model.safetensors is missing. Run snakemake again."
    ]


def test_a_type_that_fits_no_layer_is_refused_and_leaves_nothing(tmp_path: Path, chain: Chain) -> None:
    config = json.loads((chain.folder / "fused" / "config.json").read_text(encoding="utf-8"))
    assert config["hidden_size"] % 128
    with pytest.raises(PackageError, match="no layer of this model can be quantized to 4bit-g128"):
        quantized(chain, tmp_path, "4bit-g128")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["dwq", "awq", "dynamic"])
def test_a_calibration_is_kept_only_with_a_lower_validation_loss(method: str, chain: Chain, tmp_path: Path) -> None:
    rows = families.conversations()
    calibration = row_reader(chain.folder).calibration_rows(rows[:8], rows[8:], seed=1)
    plain = quantized(chain, tmp_path / "plain", "4bit-g32")
    made = quantized(chain, tmp_path / method, f"4bit-g32-{method}", calibration)
    outcome = made.calibration
    assert outcome
    assert outcome.method == method
    assert outcome.kept == (outcome.loss < outcome.plain_loss)
    weights = "model.safetensors"
    assert (made.files[weights] == plain.files[weights]) == (not outcome.kept)
    model = ModelVariant(
        "mlx-4bit-g32", model=chain.folder / "base.json", fused=tmp_path / method / f"tiny-mlx-4bit-g32-{method}.json"
    )
    model.load(dtype="auto", context_length=64, threads=1).close()


def test_calibration_rows_are_training_rows_and_judges_are_validation_rows(chain: Chain) -> None:
    rows = families.conversations()
    found = row_reader(chain.folder).calibration_rows(rows[:5], rows[5:9], seed=1)
    assert len(found.train) == 5
    assert len(found.valid) == 4
    assert all(any(row.loss_mask) for row in found.valid)
    assert not {tuple(row.ids) for row in found.valid} & {tuple(ids) for ids in found.train}
