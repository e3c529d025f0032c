"""A chain of tiny real models from base to GGUF, as the package stage makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import families
from snaketune import files
from snaketune.config.sections import BaseConfig
from snaketune.contracts.package import Fidelity
from snaketune.engines.llama_cpp import quantize as quantizing
from snaketune.model.manifest import write_manifest
from snaketune.package import fidelity, fused_model, gguf_conversion


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

    def check(self, target: Path, *, ggufs: list[Path] | None = None, manifest: Path | None = None) -> Fidelity:
        """The fidelity record of this chain, or of one with some of its files in other places."""
        inputs = fidelity.FidelityInputs(
            model=self.folder / "base.json",
            adapter=self.folder / "adapter" / "adapters.safetensors",
            fused=manifest or self.folder / "fused.json",
            ggufs=ggufs if ggufs is not None else [self.gguf("f16"), self.gguf("q8_0"), self.gguf("q4_k_m")],
            rows=self.folder / "test.jsonl",
        )
        record = fidelity.run(inputs, self.settings, target)
        assert files.read_json(target, Fidelity) == record
        return record


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
    families.build(chain.base, family, dtype=dtype, quantize=quantize)
    if template:
        config = files.read_json(chain.base / "tokenizer_config.json")
        config["chat_template"] = families.TEMPLATES[template]
        files.write_json(chain.base / "tokenizer_config.json", config)
    rows = families.conversations()
    files.write_jsonl(folder / "test.jsonl", rows)
    families.adapt(chain.base, folder / "adapter", rows=rows, **adapting)
    settings = BaseConfig(base=str(chain.base), revision="main")
    write_manifest(folder / "base.json", settings, str(chain.base), patterns=("*.json", "*.model", "*.safetensors"))
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
