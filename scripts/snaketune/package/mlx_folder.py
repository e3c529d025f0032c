"""Quantized folders for MLX: weights from the merge, and everything else as in the fused folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from snaketune import files
from snaketune.config.products import MLXType
from snaketune.contracts.package import FileFacts, FusedManifest, MLXManifest
from snaketune.engines import get_product_quantizer
from snaketune.engines.interface import CalibrationRows, MergeFolders
from snaketune.errors import PackageError
from snaketune.files import StrPath
from snaketune.model.manifest import read_manifest


def quantize_mlx(
    fused: StrPath, model: StrPath, adapter: StrPath, manifest: StrPath, *, name: str, rows: CalibrationRows | None
) -> MLXManifest:
    """Quantize the merge of a base and an adapter as `name` says, into the folder beside `manifest`.

    fused, model: the manifests of the fused model and of the base; adapter: its adapters.safetensors. Writes the folder
    whole or not at all, then the manifest. Raises PackageError for a model none of whose layers could be quantized.
    """
    merged, base = files.read_json(fused, FusedManifest), read_manifest(model)
    kind, folder = MLXType.named(name), Path(manifest).with_suffix("")
    source = MergeFolders(base.folder, Path(adapter).parent, merged.folder, merged.drop_prefix)
    with files.atomic_folder(folder) as temporary:
        written = get_product_quantizer().quantize(source, kind, temporary, dtype=merged.dtype, calibration=rows)
        if not _is_smaller(written.bits_per_weight):
            raise PackageError(
                f"no layer of this model can be quantized to {name}",
                where="package.mlx",
                why=f"Rows of its matrices are no multiple of {kind.group_size} numbers, which share a scale",
                fix="Name a type with a smaller group, such as 4bit-g32, or leave package.mlx out",
            )
        names = written.files + _copy_settings(Path(merged.folder), temporary, set(merged.files), written.quantization)
    record = MLXManifest(
        base=merged.base,
        revision=merged.revision,
        folder=str(folder),
        type=name,
        dtype=merged.dtype,
        quantization=written.quantization,
        bits_per_weight=written.bits_per_weight,
        files={each: _facts(folder / each) for each in sorted(names)},
        calibration=written.calibration,
    )
    files.write_json(manifest, record)
    return record


def _is_smaller(bits_per_weight: float) -> bool:
    return bits_per_weight < 15.9


def _copy_settings(source: Path, target: Path, names: set[str], quantization: dict[str, object]) -> list[str]:
    """Configuration, tokenizer, template and generation settings of the fused folder, with the quantization added."""
    kept = sorted(name for name in names if not name.startswith("model") and name != "config.json")
    for name in kept:
        shutil.copyfile(source / name, target / name)
    added = {"quantization": quantization, "quantization_config": quantization}  # the latter is for transformers
    files.write_json(target / "config.json", files.read_json(source / "config.json") | added)
    return [*kept, "config.json"]


def _facts(path: Path) -> FileFacts:
    return FileFacts(bytes=path.stat().st_size, sha256=files.sha256(path))
