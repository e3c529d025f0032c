"""The proof that the files handed over are the model that was trained.

Adapter, fused model, every GGUF and every folder for MLX are given the same probes: tokens, next-token distributions,
greedy completions and the log-probability of the reference responses are compared along the chain, all computed in
float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from snaketune import files
from snaketune.config.products import is_product
from snaketune.contracts.package import Fidelity, FidelityCheck, FusedManifest, VariantFidelity
from snaketune.engines import get_capabilities, load_gguf, load_model, load_reference_merge
from snaketune.engines.interface import GGUFModel, LanguageModel, LoadOptions
from snaketune.errors import PackageError
from snaketune.files import StrPath
from snaketune.model.manifest import is_mixture, read_manifest
from snaketune.package import (
    fidelity_checks,
    fidelity_mlx,
    fidelity_probes,
    gguf_conversion,
    modelfile,
    tokenizer_parity,
)
from snaketune.package.fidelity_checks import Gain
from snaketune.package.fidelity_probes import ProbeLimits, ProbeResult, ProbeSet
from snaketune.runtime.machine import this_machine
from snaketune.tokens.chat_template import Renderer, renderer_of

SIXTEEN_BIT = ("f32", "f16", "bf16")
MAX_MEMORY_SHARE = 0.8  # of the usable memory: what a float32 copy of the model may take
CONTEXT_MULTIPLE = 256  # llama.cpp rounds a context up to it


@dataclass(frozen=True)
class FidelityInputs:
    """The files of a chain. model: the base's manifest; adapter: its weights; fused: the fused model's manifest."""

    model: StrPath
    adapter: StrPath
    fused: StrPath
    ggufs: Sequence[StrPath]
    rows: StrPath
    """Test rows, as JSON Lines."""
    mlx: Sequence[StrPath] = ()
    """Manifests of quantized folders for MLX."""


class FidelitySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the check depends on, from the sections `package` and `model` of the configuration."""

    rows: int
    num_prompts: int
    max_new_tokens: int
    min_gain_retained: float
    chat_template: str | None


@dataclass(frozen=True)
class _Measured:
    """One variant: its results (None if it does not load), its measurements, and the checks of it."""

    result: ProbeResult | None
    facts: VariantFidelity
    checks: list[FidelityCheck]


def run(inputs: FidelityInputs, settings: FidelitySettings, fidelity: StrPath, *, threads: int = 1) -> Fidelity:
    """Measure the chain base, adapter, fused, each GGUF on test rows and write the record with its checks.

    Of a large model so many rows are taken as cost no more than a small one's, and all of them where those do not
    decide. A failed check does not raise, so that the report can show it: `require_passed` does, on the written record.
    """
    fused = files.read_json(inputs.fused, FusedManifest)
    renderer, rows = _renderer(inputs, settings), list(files.read_jsonl(inputs.rows))
    limits = ProbeLimits(
        settings.rows,
        settings.num_prompts,
        settings.max_new_tokens,
        in_memory=_fits_in_memory(fused.parameters),
        mixture=is_mixture(files.read_json(Path(fused.folder) / "config.json")),
    )
    vocabulary = len(renderer.tokenizer)
    whole = fidelity_probes.make_probes(renderer, rows, limits, vocab_size=vocabulary)
    probes = fidelity_probes.make_probes(renderer, rows, limits.first_look(fused.parameters), vocab_size=vocabulary)
    measured = _measure(inputs, fused, probes, renderer, threads)
    if len(probes.rows) < len(whole.rows) and not _all_decided(measured, settings.min_gain_retained):
        probes = whole
        measured = _measure(inputs, fused, probes, renderer, threads)
    gains, with_logprob = _gain_checks(measured, probes, settings.min_gain_retained, fused.dtype)
    checks = [check for variant in measured.values() for check in variant.checks] + gains
    record = Fidelity(
        passed=all(check.passed for check in checks),
        rows=len(probes.rows),
        rows_allowed=len(whole.rows),
        prompts=len(probes.prompts),
        answer_tokens=probes.num_target_tokens(),
        layer_by_layer=not probes.limits.in_memory,
        variants=with_logprob,
        checks=checks,
    )
    files.write_json(fidelity, record)
    return record


def _measure(
    inputs: FidelityInputs, fused: FusedManifest, probes: ProbeSet, renderer: Renderer, threads: int
) -> dict[str, _Measured]:
    measured = _measure_folders(inputs, fused, probes)
    for path in inputs.ggufs:
        measured[f"gguf-{gguf_type(path)}"] = _measure_gguf(path, inputs, measured, probes, renderer, threads)
    adapter = measured["adapter"].result
    assert adapter is not None
    for path in inputs.mlx:
        name, result, facts, checks = fidelity_mlx.measure_mlx(path, adapter, probes, renderer)
        measured[name] = _Measured(result, facts, checks)
    return measured


def _all_decided(measured: dict[str, _Measured], minimum: float) -> bool:
    """Whether no more rows are needed to say which files retain enough of the gain."""
    base, adapter = measured["base"].result, measured["adapter"].result
    assert base is not None
    assert adapter is not None
    others = [variant.result for name, variant in measured.items() if is_product(name)]
    return all(fidelity_probes.is_decided(base, adapter, result, minimum) for result in others if result is not None)


def gguf_type(path: StrPath) -> str:
    """The type in a file's name, `<run>-<type>.gguf`."""
    return Path(path).stem.rpartition("-")[2]


def _renderer(inputs: FidelityInputs, settings: FidelitySettings) -> Renderer:
    return renderer_of(read_manifest(inputs.model), settings.chat_template)


def _fits_in_memory(parameters: int) -> bool:
    usable = this_machine(get_capabilities().describe_device()).usable_memory
    return 4 * parameters <= MAX_MEMORY_SHARE * usable


def _measure_folders(inputs: FidelityInputs, fused: FusedManifest, probes: ProbeSet) -> dict[str, _Measured]:
    """Base, adapter and fused model, and the check of the last.

    What bfloat16 rounds away is more than a mistake would be, so there the reference is a second merge, rounded in the
    same way. A float16 fuse is compared with the adapter itself, and with such a merge if that is too far off: a
    float32 base is rounded too, and that alone can be too much. On a first look at a large model the fused folder and
    that merge are read block by block, and write nothing.
    """
    folder = read_manifest(inputs.model).folder
    over_base = _over_base(inputs, probes)
    streamed = not probes.limits.in_memory or _is_large(fused)
    base, adapter = _probe_base_and_adapter(folder, over_base, probes)
    alone = LoadOptions(exact=True, layer_by_layer=streamed)
    result = _probe_and_close(load_model(fused.folder, alone), probes, generate=not streamed)
    facts = fidelity_probes.compare("adapter", adapter, result)
    if result.completions:
        margin = fidelity_probes.divergence_margin(adapter, result, probes.stop_ids)
        facts = msgspec.structs.replace(facts, divergence_margin=margin)
    mixture = probes.limits.mixture
    check = fidelity_checks.logprob_check("fused", "adapter", facts, mixture=mixture)
    merged = None
    if not check.passed or fused.dtype != "float16":
        merged = _probe_rounded(folder, over_base, fused.dtype, probes)
        distance = fidelity_probes.distance(merged, result)
        check = fidelity_checks.logprob_check("fused", "rounded", distance, mixture=mixture)
    variants = {"base": base, "adapter": adapter, "fused": result} | ({"rounded": merged} if merged else {})
    measured = {name: _Measured(found, VariantFidelity(), []) for name, found in variants.items()}
    return measured | {"fused": _Measured(result, facts, [check])}


def _is_large(fused: FusedManifest) -> bool:
    """Whether a first look at the model takes fewer tokens than a single row may have."""
    return fused.parameters > fidelity_probes.WORK / fidelity_probes.MAX_TOKENS


def _over_base(inputs: FidelityInputs, probes: ProbeSet) -> LoadOptions:
    return LoadOptions(exact=True, adapter=Path(inputs.adapter).parent, layer_by_layer=not probes.limits.in_memory)


def _probe_base_and_adapter(
    folder: StrPath, over_base: LoadOptions, probes: ProbeSet
) -> tuple[ProbeResult, ProbeResult]:
    """Both from one reading of the base, where the adapter can be taken off; the base reads no virtual tokens."""
    in_memory = probes.limits.in_memory
    model = load_model(folder, over_base)
    try:
        adapter = fidelity_probes.run_probes(model, probes, generate=in_memory, keep_top_logprobs=True)
        with model.without_adapter() as is_base:
            if is_base:
                return fidelity_probes.run_probes(model, probes.of_base(), generate=False), adapter
    finally:
        model.close()
    alone = load_model(folder, dataclasses.replace(over_base, adapter=None))
    return _probe_and_close(alone, probes.of_base(), generate=False), adapter


def _probe_rounded(folder: StrPath, over_base: LoadOptions, dtype: str, probes: ProbeSet) -> ProbeResult:
    """A second merge, by other code, rounded to `dtype`."""
    streamed = dataclasses.replace(over_base, layer_by_layer=True)
    return _probe_and_close(load_reference_merge(folder, streamed, dtype), probes, generate=False)


def _probe_and_close(model: LanguageModel, probes: ProbeSet, *, generate: bool) -> ProbeResult:
    try:
        return fidelity_probes.run_probes(model, probes, generate=generate)
    finally:
        model.close()


def _measure_gguf(
    path: StrPath,
    inputs: FidelityInputs,
    measured: dict[str, _Measured],
    probes: ProbeSet,
    renderer: Renderer,
    threads: int,
) -> _Measured:
    """A GGUF compared with the adapter, and the checks of what it reads and writes."""
    name = f"gguf-{gguf_type(path)}"
    size = Path(path).stat().st_size
    context_length = probes.max_length() + probes.limits.max_new_tokens
    context_length = -(-context_length // CONTEXT_MULTIPLE) * CONTEXT_MULTIPLE
    try:
        header = gguf_conversion.read(path)
        model = load_gguf(path, LoadOptions(context_length=context_length, threads=threads, exact=True))
    except PackageError as error:
        return _Measured(None, VariantFidelity(bytes=size), [fidelity_checks.load_check(name, str(error))])
    try:
        facts, checks = _measure_text(model, header, name, probes, renderer)
        result = fidelity_probes.run_probes(model, probes, generate=probes.limits.in_memory)
    finally:
        model.close()
    adapter = measured["adapter"].result
    assert adapter is not None
    compared = fidelity_probes.compare("adapter", adapter, result)
    if gguf_type(path) in SIXTEEN_BIT:
        checks.append(_sixteen_bit_check(name, header, inputs, adapter, result, probes))
    facts = msgspec.structs.replace(
        compared,
        greedy_as_adapter=compared.greedy_same,
        divergence_margin=fidelity_probes.divergence_margin(adapter, result, probes.stop_ids),
        bytes=size,
        tensor_types=header.tensor_types(),
        tokens=facts.tokens,
        template=facts.template,
        modelfile=facts.modelfile,
    )
    return _Measured(result, facts, checks)


def _sixteen_bit_check(
    name: str,
    header: gguf_conversion.GGUFHeader,
    inputs: FidelityInputs,
    adapter: ProbeResult,
    result: ProbeResult,
    probes: ProbeSet,
) -> FidelityCheck:
    """Whether a 16-bit GGUF with this result is the adapter.

    One that is too far from it for its rounding to be told from a mistake is compared with a second merge in its own
    format; one of a mixture of experts may be as far from the adapter as that merge is.
    """
    mixture, compared = probes.limits.mixture, fidelity_probes.distance(adapter, result)
    check = fidelity_checks.logprob_check(name, "adapter", compared, mixture=mixture)
    if check.passed or compared.not_finite:
        return check
    dtype = "bfloat16" if "bf16" in header.tensor_types() else "float16"
    merged = _probe_rounded(read_manifest(inputs.model).folder, _over_base(inputs, probes), dtype, probes)
    if mixture:
        limit = fidelity_checks.noise_limit(fidelity_probes.distance(adapter, merged))
        return fidelity_checks.logprob_check(name, "adapter", compared, mixture=True, limit=limit)
    return fidelity_checks.logprob_check(name, "rounded", fidelity_probes.distance(merged, result))


def _measure_text(
    model: GGUFModel, header: gguf_conversion.GGUFHeader, name: str, probes: ProbeSet, renderer: Renderer
) -> tuple[VariantFidelity, list[FidelityCheck]]:
    """How a GGUF reads text and where it stops."""
    texts = [*probes.texts, *tokenizer_parity.probe_texts(renderer)]
    tokens = tokenizer_parity.token_differences(model, renderer, texts)
    template = tokenizer_parity.template_differences(header.template(), renderer, probes.conversations)
    ollama = modelfile.format_of(renderer, header) if renderer.template and not probes.uses_tools else None
    in_modelfile = tokenizer_parity.format_differences(ollama, renderer, probes.conversations)
    count = len(probes.conversations)
    checks = [
        fidelity_checks.load_check(name, None),
        fidelity_checks.token_check(name, tokens, tokenizer_parity.bos_token_parity(model, renderer)),
        fidelity_checks.template_check(name, template, count),
        fidelity_checks.modelfile_check(name, in_modelfile, count),
        fidelity_checks.stop_token_check(name, tokenizer_parity.missing_stop_tokens(model, renderer)),
    ]
    return VariantFidelity(tokens=tokens, template=template, modelfile=in_modelfile), checks


def _gain_checks(
    measured: dict[str, _Measured], probes: ProbeSet, minimum: float, dtype: str
) -> tuple[list[FidelityCheck], dict[str, VariantFidelity]]:
    """The checks of what each file retains of the adapter's gain, and all measurements with the log-probabilities.

    dtype: of the fused folder.
    """
    results = {name: variant.result for name, variant in measured.items() if variant.result is not None}
    sums = {name: result.answer_logprob for name, result in results.items()}
    gain = Gain(sums["base"], sums["adapter"], probes.num_target_tokens())
    rounded = (dtype, sums["rounded"]) if "rounded" in sums and dtype != "float16" else None
    checks = [
        gain.retained_check(
            name,
            total,
            minimum,
            error=fidelity_probes.share_error(results["base"], results["adapter"], results[name]),
            rounded=rounded if name == "fused" else None,
        )
        for name, total in sums.items()
        if name not in ("base", "adapter", "rounded")
    ]
    facts = {name: variant.facts for name, variant in measured.items()}
    for name, total in sums.items():
        if math.isfinite(total):
            facts[name] = msgspec.structs.replace(facts[name], answer_logprob=round(total, 6))
    return checks, facts


def require_passed(fidelity: StrPath) -> str:
    """The gate: a short text for a record that passed; raises PackageError with the failed checks otherwise."""
    record = files.read_json(fidelity, Fidelity)
    failed = [check for check in record.checks if not check.passed]
    if failed:
        lines = [f"  {check.variant}: {check.message} (allowed: {check.limit})" for check in failed]
        raise PackageError(
            f"{len(failed)} of {len(record.checks)} fidelity checks failed; the first file that is not the trained "
            f"model is {failed[0].variant}",
            where=str(fidelity),
            why="\n".join(["", *lines, ""]),
            fix="docs/packaging.md says what each check means and what to do",
        )
    return f"{len(record.checks)} fidelity checks passed\n"
