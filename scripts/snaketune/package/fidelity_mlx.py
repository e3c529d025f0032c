"""The checks of a quantized folder for MLX, the same as those of a GGUF: text, stops, and what it predicts."""

from __future__ import annotations

from pathlib import Path

import msgspec

from snaketune import files
from snaketune.contracts.package import FidelityCheck, MLXManifest, VariantFidelity
from snaketune.engines import load_model, load_served_tokenizer
from snaketune.engines.interface import LoadOptions
from snaketune.errors import ModelError
from snaketune.files import StrPath
from snaketune.package import fidelity_checks, fidelity_probes, tokenizer_parity
from snaketune.package.fidelity_probes import ProbeResult, ProbeSet
from snaketune.tokens.chat_template import Renderer


def measure_mlx(
    path: StrPath, adapter: ProbeResult, probes: ProbeSet, renderer: Renderer
) -> tuple[str, ProbeResult | None, VariantFidelity, list[FidelityCheck]]:
    """A folder by its manifest, compared with the adapter: the variant's name, results, measurements, checks."""
    manifest = files.read_json(path, MLXManifest)
    name = f"mlx-{manifest.type}"
    try:
        missing = [each for each in manifest.files if not Path(manifest.folder, each).is_file()]
        if missing:
            raise ModelError(f"{', '.join(missing)} is missing", where=manifest.folder, fix="Run snakemake again")
        parity, checks = _measure_text(manifest.folder, name, probes, renderer)
        streamed = not probes.limits.in_memory
        model = load_model(manifest.folder, LoadOptions(exact=True, layer_by_layer=streamed), engine="mlx")
    except ModelError as error:
        check = fidelity_checks.load_check(name, str(error))
        return name, None, VariantFidelity(bytes=manifest.bytes), [check]
    try:
        result = fidelity_probes.run_probes(model, probes, generate=not streamed)
    finally:
        model.close()
    facts = fidelity_probes.compare("adapter", adapter, result)
    if result.completions and adapter.top_logprobs:
        margin = fidelity_probes.divergence_margin(adapter, result, probes.stop_ids)
        facts = msgspec.structs.replace(facts, greedy_as_adapter=facts.greedy_same, divergence_margin=margin)
    facts = msgspec.structs.replace(
        facts,
        bytes=manifest.bytes,
        tensor_types=layer_types(manifest),
        tokens=parity.tokens,
        template=parity.template,
    )
    return name, result, facts, checks


def layer_types(manifest: MLXManifest) -> dict[str, int] | None:
    """How many layers have which bits, where they differ; the commonest first."""
    kinds = [each["bits"] for each in manifest.quantization.values() if isinstance(each, dict)]
    if not kinds:
        return None
    return {f"{bits}-bit": kinds.count(bits) for bits in sorted(set(kinds), key=lambda bits: -kinds.count(bits))}


def _measure_text(
    folder: str, name: str, probes: ProbeSet, renderer: Renderer
) -> tuple[VariantFidelity, list[FidelityCheck]]:
    """How mlx-lm reads text from the folder and where it stops."""
    reader = load_served_tokenizer(folder)
    texts = [*probes.texts, *tokenizer_parity.probe_texts(renderer)]
    tokens = tokenizer_parity.token_differences(reader, renderer, texts)
    template = tokenizer_parity.template_differences(reader.template(), renderer, probes.conversations)
    checks = [
        fidelity_checks.load_check(name, None),
        fidelity_checks.token_check(name, tokens, tokenizer_parity.bos_token_parity(reader, renderer)),
        fidelity_checks.template_check(name, template, len(probes.conversations)),
        fidelity_checks.stop_token_check(name, tokenizer_parity.missing_stop_tokens(reader, renderer)),
    ]
    return VariantFidelity(tokens=tokens, template=template), checks
