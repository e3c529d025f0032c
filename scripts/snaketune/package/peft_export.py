"""The adapter alone, for use over its base: PEFT's folder for transformers, and a GGUF LoRA for llama.cpp."""

from __future__ import annotations

import tempfile
from pathlib import Path

from safetensors.numpy import save_file

from snaketune import files
from snaketune.engines import get_exporter
from snaketune.files import StrPath, replacing
from snaketune.model.manifest import read_manifest
from snaketune.package import gguf_conversion


def export_adapter(*, model: StrPath, adapter: StrPath, peft: StrPath, lora: StrPath, threads: int = 1) -> None:
    """Write the folder `peft` and the GGUF `lora` of an adapter (its adapters.safetensors) to the base `model`.

    Raises PackageError for DoRA, full fine-tunes and experts, which a LoRA file cannot hold.
    """
    base = read_manifest(model)
    exported = get_exporter().peft_adapter(Path(adapter).parent)
    config = exported.config | {"base_model_name_or_path": base["base"]}
    with files.atomic_folder(Path(peft)) as folder:
        save_file(exported.tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        files.write_json(folder / "adapter_config.json", config)
        _convert(folder, base["folder"], lora, threads)


def _convert(folder: Path, base: StrPath, lora: StrPath, threads: int) -> None:
    with replacing(lora) as temporary, tempfile.TemporaryDirectory() as scratch:
        adapter, under = Path(scratch) / "adapter", Path(scratch) / "base"
        adapter.symlink_to(folder.resolve(), target_is_directory=True)
        under.symlink_to(Path(base).expanduser().resolve(), target_is_directory=True)
        options = [str(adapter), "--base", str(under), "--outfile", str(temporary.resolve()), "--outtype", "f32"]
        gguf_conversion.run_converter("convert_lora_to_gguf.py", options, source=folder, threads=threads)
