"""The fused model: the folder that everything after the training reads, and the manifest that names its bytes."""

from __future__ import annotations

from pathlib import Path

from snaketune import files
from snaketune.contracts.data import ModelManifest, ReadAs
from snaketune.contracts.package import FileFacts, FusedManifest, Rounding
from snaketune.engines import get_exporter
from snaketune.files import StrPath
from snaketune.model.manifest import WRAPPER_PREFIX, is_wrapped, read_as, text_config
from snaketune.package.tokenizer_files import RenderedBy, write_model_files
from snaketune.runtime import machine
from snaketune.tokens.chat_template import renderer_of


def fuse_model(
    model: StrPath, adapter: StrPath, folder: StrPath, manifest: StrPath, *, chat_template: str | None, dtype: str
) -> FusedManifest:
    """Merge `adapter` (its adapters.safetensors) into the base of the manifest `model`.

    chat_template, dtype: of the configuration's section `model`, for a base whose manifest does not say. Writes the
    folder whole or not at all, then the manifest.
    """
    machine.keep_freed_memory()
    base = files.read_json(model, ModelManifest)
    chosen = read_as(base, ReadAs(chat_template=chat_template, dtype=dtype))
    renderer = renderer_of(base, chat_template)
    target = Path(folder)
    config = files.read_json(Path(base.folder) / "config.json")
    prefix = WRAPPER_PREFIX if is_wrapped(config) else ""
    with files.atomic_folder(target) as temporary:
        written = get_exporter().fuse(
            base.folder,
            Path(adapter).parent,
            temporary,
            dtype=chosen.dtype,
            drop_prefix=prefix,
        )
        names = written.files + write_model_files(
            base.folder,
            temporary,
            config=text_config(config) | written.config,
            dtype=written.dtype,
            written=RenderedBy(renderer.template, renderer.stop_ids, renderer.virtual_ids),
        )
    record = FusedManifest(
        base=base.base,
        revision=base.revision,
        folder=str(folder),
        dtype=written.dtype,
        gguf_dtype=least_rounding(written.rounding),
        rounding=written.rounding,
        adapter_sha256=files.sha256(adapter),
        drop_prefix=prefix,
        parameters=written.parameters,
        template=chosen.chat_template,
        stop_ids=sorted(renderer.stop_ids),
        files={name: _facts(target / name, written.digests.get(name)) for name in sorted(names)},
    )
    files.write_json(manifest, record)
    return record


def _facts(path: Path, digest: str | None) -> FileFacts:
    return FileFacts(bytes=path.stat().st_size, sha256=digest or files.sha256(path))


def least_rounding(rounding: dict[str, Rounding]) -> str:
    """The 16-bit format that loses least of the merged weights, of those that hold the largest one; else float16."""
    found = {dtype: one.error for dtype, one in rounding.items() if one.in_range}
    return min(found, key=lambda dtype: found[dtype], default="float16")
