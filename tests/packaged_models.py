"""A chain of tiny real models from base to GGUF, as the package stage makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import families
import msgspec
from snaketune import files
from snaketune.contracts.package import Fidelity
from snaketune.contracts.train import TrainingJob, TrainingOutputs
from snaketune.engines import get_trainer
from snaketune.engines.llama_cpp import quantize as quantizing
from snaketune.model.manifest import BaseConfig, write_manifest
from snaketune.package import fidelity, fused_model, gguf_conversion
from snaketune.package.calibration_rows import RowReader
from snaketune.tokens.chat_template import Renderer
from snaketune.tokens.token_store import write_store
from snaketune.tokens.tokenize import FilterConfig
from tiny_models import train_config

VIRTUAL_TOKENS = 4


@dataclass
class Chain:
    """Where everything of a run's package stage lies; `type` in gguf() is f16, q8_0 or q4_k_m."""

    folder: Path
    template: str | None = None

    @property
    def settings(self) -> fidelity.FidelitySettings:
        return fidelity.FidelitySettings(
            rows=12, num_prompts=4, max_new_tokens=16, min_gain_retained=0.9, chat_template=self.template
        )

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def source(self) -> gguf_conversion.MergeSource:
        """What its GGUF is made from."""
        adapter = self.folder / "adapter" / "adapters.safetensors"
        return gguf_conversion.merge_source(self.folder / "fused.json", self.folder / "base.json", adapter)

    def gguf(self, kind: str) -> Path:
        return self.folder / f"tiny-{kind}.gguf"

    def check(
        self, target: Path, *, ggufs: list[Path] | None = None, manifest: Path | None = None, **settings: Any
    ) -> Fidelity:
        """The fidelity record of this chain, or of one with some of its files in other places or other settings."""
        inputs = fidelity.FidelityInputs(
            model=self.folder / "base.json",
            adapter=self.folder / "adapter" / "adapters.safetensors",
            fused=manifest or self.folder / "fused.json",
            ggufs=ggufs if ggufs is not None else [self.gguf("f16"), self.gguf("q8_0"), self.gguf("q4_k_m")],
            rows=self.folder / "test.jsonl",
        )
        record = fidelity.run(inputs, msgspec.structs.replace(self.settings, **settings), target)
        assert files.read_json(target, Fidelity) == record
        return record


def row_reader(folder: Path, max_length: int = 2048) -> RowReader:
    """Renders rows as the base of a chain in this folder reads them."""
    return RowReader(folder / "base.json", None, FilterConfig(max_length=max_length, on_too_long="truncate"))


def make_chain(
    folder: Path,
    family: str,
    *,
    quantize: int | None = None,
    dtype: str = "bfloat16",
    template: str | None = None,
    **adapting: Any,
) -> Chain:
    """Build a base of a family, adapt (adapting: see `families.adapt`), fuse, convert and quantize it.

    template: a chat template of the tests that takes the place of the family's own.
    """
    chain = Chain(folder)
    rows = _base(chain, family, quantize=quantize, dtype=dtype, template=template)
    families.adapt(chain.base, folder / "adapter", rows=rows, **adapting)
    return _packaged(chain)


def make_prompt_chain(folder: Path, family: str, *, quantize: int | None = None, dtype: str = "bfloat16") -> Chain:
    """The same by prompt tuning, with the engine that SNAKETUNE_ENGINE names."""
    chain = Chain(folder)
    rows = _base(chain, family, quantize=quantize, dtype=dtype)
    manifest = folder / "base.json"
    read_as = {"chat_template": chain.template, "dtype": "auto", "num_virtual_tokens": VIRTUAL_TOKENS}
    files.write_json(manifest, files.read_json(manifest) | {"read_as": read_as})
    renderer = Renderer(chain.base, chain.template, VIRTUAL_TOKENS)
    stores = {name: folder / f"{name}.safetensors" for name in ("train", "valid")}
    for store in stores.values():
        write_store(store, [(renderer.record(row), 1.0) for row in rows], renderer.virtual_ids)
    (folder / "adapter").mkdir()
    job = TrainingJob(
        train_tokens=str(stores["train"]),
        valid_tokens=str(stores["valid"]),
        model=str(manifest),
        config=train_config(
            method="prompt", num_virtual_tokens=VIRTUAL_TOKENS, learning_rate=0.1, max_steps=50, eval_steps=10
        ),
        dtype="float32",
        seed=1,
        outputs=TrainingOutputs.in_folder(folder / "adapter"),
    )
    get_trainer().train(job)
    return _packaged(chain)


def _base(
    chain: Chain, family: str, *, quantize: int | None, dtype: str, template: str | None = None
) -> list[dict[str, Any]]:
    """Build the base of a chain; returns its rows."""
    families.build(chain.base, family, dtype=dtype, quantize=quantize)
    if template:
        config = files.read_json(chain.base / "tokenizer_config.json")
        config["chat_template"] = families.TEMPLATES[template]
        files.write_json(chain.base / "tokenizer_config.json", config)
    rows = families.conversations()
    files.write_jsonl(chain.folder / "test.jsonl", rows)
    settings = BaseConfig(base=str(chain.base), revision="main")
    patterns = ("*.json", "*.model", "*.safetensors")
    write_manifest(chain.folder / "base.json", settings, str(chain.base), patterns=patterns)
    return rows


def _packaged(chain: Chain) -> Chain:
    """Fuse, convert and quantize."""
    folder = chain.folder
    fused_model.fuse_model(
        folder / "base.json",
        folder / "adapter" / "adapters.safetensors",
        folder / "fused",
        folder / "fused.json",
        chat_template=chain.template,
        dtype="auto",
    )
    gguf_conversion.convert(folder / "fused", chain.gguf("f16"), name="tiny", merge=chain.source)
    for kind in ("q8_0", "q4_k_m"):
        quantizing.quantize(chain.gguf("f16"), chain.gguf(kind), kind, threads=1)
    return chain
