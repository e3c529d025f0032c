"""The checks of a product, a GGUF or a quantized folder for MLX: what it reads, where it stops, what it predicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from snaketune import files
from snaketune.config.products import GGUF, MLX
from snaketune.contracts.package import FidelityCheck, MLXManifest, VariantFidelity
from snaketune.engines import load_gguf, load_model, load_served_tokenizer
from snaketune.engines.interface import GGUFModel, LanguageModel, LoadOptions, TextReader
from snaketune.errors import ModelError, PackageError
from snaketune.files import StrPath
from snaketune.package import fidelity_checks, fidelity_probes, gguf_conversion, modelfile, tokenizer_parity
from snaketune.package.fidelity_probes import ProbeResult, ProbeSet
from snaketune.tokens.chat_template import Renderer

SIXTEEN_BIT = ("f32", "f16", "bf16")


@dataclass(frozen=True)
class Measured:
    """One variant: its results (None if it does not load), its measurements, the checks of it, and how to load it."""

    result: ProbeResult | None
    facts: VariantFidelity
    checks: list[FidelityCheck]
    load: Callable[[], LanguageModel] | None = None

    def with_rows(self, more: ProbeSet) -> Measured:
        """The same as if these rows had been read too."""
        assert self.result is not None
        assert self.load is not None
        found = fidelity_probes.probe_and_close(self.load(), more, generate=False)
        return dataclasses.replace(self, result=self.result.with_rows(found))


@dataclass(frozen=True)
class Reference:
    """What a product is compared with: the adapter's results for the probes, and what the renderer reads and writes.

    probe_rounded: the results of a second merge in a 16-bit format; context_length: tokens that the longest row or
    prompt needs, of a later look too; threads: of llama.cpp.
    """

    adapter: ProbeResult
    probes: ProbeSet
    renderer: Renderer
    probe_rounded: Callable[[str], ProbeResult]
    context_length: int
    threads: int


def gguf_type(path: StrPath) -> str:
    """The type in a file's name, `<run>-<type>.gguf`."""
    return Path(path).stem.rpartition("-")[2]


def measure_gguf(path: StrPath, reference: Reference) -> tuple[str, Measured]:
    """A GGUF: the variant's name, what was measured, and the checks of what it reads and writes."""
    name = f"{GGUF}{gguf_type(path)}"
    size = Path(path).stat().st_size
    probes, adapter = reference.probes, reference.adapter
    options = LoadOptions(context_length=reference.context_length, threads=reference.threads, exact=True)
    load = partial(load_gguf, path, options)
    try:
        header = gguf_conversion.read(path)
        model = load()
    except PackageError as error:
        return name, Measured(None, VariantFidelity(bytes=size), [fidelity_checks.load_check(name, str(error))])
    try:
        text, checks = _measure_gguf_text(model, header, name, reference)
        result = fidelity_probes.run_probes(model, probes, generate=probes.limits.in_memory)
    finally:
        model.close()
    compared = fidelity_probes.compare("adapter", adapter, result)
    if gguf_type(path) in SIXTEEN_BIT:
        checks.append(_sixteen_bit_check(name, header, compared, result, reference))
    facts = _with_text(compared, text, result, reference)
    return name, Measured(
        result, msgspec.structs.replace(facts, bytes=size, tensor_types=header.tensor_types()), checks, load
    )


def _with_text(
    compared: VariantFidelity, text: VariantFidelity, result: ProbeResult, reference: Reference
) -> VariantFidelity:
    """A product's distance from the adapter, with what was found of its completions and of how it reads text."""
    margin = None
    if result.completions and reference.adapter.top_logprobs:
        margin = fidelity_probes.divergence_margin(reference.adapter, result, reference.probes.stop_ids)
    return msgspec.structs.replace(
        compared,
        greedy_as_adapter=compared.greedy_same,
        divergence_margin=margin,
        tokens=text.tokens,
        template=text.template,
        modelfile=text.modelfile,
    )


def _sixteen_bit_check(
    name: str,
    header: gguf_conversion.GGUFHeader,
    compared: VariantFidelity,
    result: ProbeResult,
    reference: Reference,
) -> FidelityCheck:
    """Whether a 16-bit GGUF with this result, compared with the adapter, is the adapter.

    One that is too far from it for its rounding to be told from a mistake is compared with a second merge in its own
    format; one of a mixture of experts may be as far from the adapter as that merge is.
    """
    mixture = reference.probes.limits.mixture
    check = fidelity_checks.logprob_check(name, "adapter", compared, mixture=mixture)
    if check.passed or compared.not_finite:
        return check
    merged = reference.probe_rounded("bfloat16" if "bf16" in header.tensor_types() else "float16")
    if mixture:
        limit = fidelity_checks.noise_limit(fidelity_probes.distance(reference.adapter, merged))
        return fidelity_checks.logprob_check(name, "adapter", compared, mixture=True, limit=limit)
    return fidelity_checks.logprob_check(name, "rounded", fidelity_probes.distance(merged, result))


class _TextFidelity(NamedTuple):
    """How a product reads text: what was measured, the checks of what it reads, and that of where it stops."""

    facts: VariantFidelity
    reads: list[FidelityCheck]
    stops: FidelityCheck

    def checks(self, *of_servers: FidelityCheck) -> list[FidelityCheck]:
        """All checks in the order of the page; of_servers: what else is checked of how text is read."""
        return [*self.reads, *of_servers, self.stops]


def _measure_gguf_text(
    model: GGUFModel, header: gguf_conversion.GGUFHeader, name: str, reference: Reference
) -> tuple[VariantFidelity, list[FidelityCheck]]:
    """How a GGUF reads text and where it stops, and what Ollama makes of it."""
    probes, renderer = reference.probes, reference.renderer
    text = _measure_text(model, header.template(), name, reference)
    ollama = modelfile.format_of(renderer, header) if renderer.template and not probes.uses_tools else None
    in_modelfile = tokenizer_parity.format_differences(ollama, renderer, probes.conversations)
    check = fidelity_checks.modelfile_check(name, in_modelfile, len(probes.conversations))
    return msgspec.structs.replace(text.facts, modelfile=in_modelfile), text.checks(check)


def _measure_text(reader: TextReader, template: str | None, name: str, reference: Reference) -> _TextFidelity:
    """How a product reads text, by its own tokenizer and template, and where it stops."""
    probes, renderer = reference.probes, reference.renderer
    texts = [*probes.texts, *tokenizer_parity.probe_texts(renderer)]
    tokens = tokenizer_parity.token_differences(reader, renderer, texts)
    differences = tokenizer_parity.template_differences(template, renderer, probes.conversations)
    reads = [
        fidelity_checks.load_check(name, None),
        fidelity_checks.token_check(name, tokens, tokenizer_parity.bos_token_parity(reader, renderer)),
        fidelity_checks.template_check(name, differences, len(probes.conversations)),
    ]
    stops = fidelity_checks.stop_token_check(name, tokenizer_parity.missing_stop_tokens(reader, renderer))
    return _TextFidelity(VariantFidelity(tokens=tokens, template=differences), reads, stops)


def measure_mlx(path: StrPath, reference: Reference) -> tuple[str, Measured]:
    """A folder by its manifest: the variant's name, what was measured, and the checks of it."""
    manifest = files.read_json(path, MLXManifest)
    name = f"{MLX}{manifest.type}"
    probes = reference.probes
    streamed = not probes.limits.in_memory
    options = LoadOptions(exact=True, layer_by_layer=streamed)
    load = partial(load_model, manifest.folder, options, engine="mlx")
    try:
        missing = [each for each in manifest.files if not Path(manifest.folder, each).is_file()]
        if missing:
            raise ModelError(f"{', '.join(missing)} is missing", where=manifest.folder, fix="Run snakemake again")
        reader = load_served_tokenizer(manifest.folder)
        text = _measure_text(reader, reader.template(), name, reference)
        model = load()
    except ModelError as error:
        check = fidelity_checks.load_check(name, str(error))
        return name, Measured(None, VariantFidelity(bytes=manifest.bytes), [check])
    result = fidelity_probes.probe_and_close(model, probes, generate=not streamed)
    facts = _with_text(fidelity_probes.compare("adapter", reference.adapter, result), text.facts, result, reference)
    checks = text.checks()
    return name, Measured(
        result, msgspec.structs.replace(facts, bytes=manifest.bytes, tensor_types=layer_types(manifest)), checks, load
    )


def layer_types(manifest: MLXManifest) -> dict[str, int] | None:
    """How many layers have which bits, where they differ; the commonest first."""
    kinds = [each["bits"] for each in manifest.quantization.values() if isinstance(each, dict)]
    if not kinds:
        return None
    return {f"{bits}-bit": kinds.count(bits) for bits in sorted(set(kinds), key=lambda bits: -kinds.count(bits))}
