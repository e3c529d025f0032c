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
from functools import partial
from pathlib import Path

import msgspec

from snaketune import files
from snaketune.config.products import is_product
from snaketune.contracts.package import Fidelity, FidelityCheck, FusedManifest, VariantFidelity
from snaketune.engines import get_capabilities, load_model, load_reference_merge
from snaketune.engines.interface import LanguageModel, LoadOptions
from snaketune.errors import PackageError
from snaketune.files import StrPath
from snaketune.model.manifest import is_mixture, read_manifest
from snaketune.package import fidelity_checks, fidelity_probes, fidelity_products
from snaketune.package.fidelity_checks import Gain
from snaketune.package.fidelity_probes import ProbeLimits, ProbeResult, ProbeSet
from snaketune.package.fidelity_products import Measured, Reference
from snaketune.runtime import machine
from snaketune.tokens.chat_template import Renderer, renderer_of

MAX_MEMORY_SHARE = 0.6  # of the usable memory, for a float32 copy of the model; the rest is for its file and others
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


def run(inputs: FidelityInputs, settings: FidelitySettings, fidelity: StrPath, *, threads: int = 1) -> Fidelity:
    """Measure the chain base, adapter, fused, each GGUF on test rows and write the record with its checks.

    Of a large model few rows are read first, and twice as many where those do not decide what a product retains of the
    gain, until they do or all rows are read. A failed check does not raise, so that the report can show it:
    `require_passed` does, on the written record.
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
    if not limits.in_memory:
        machine.keep_freed_memory()  # each block is made float32 where the one before was
    limits = limits.first_look(fused.parameters)
    probes = fidelity_probes.make_probes(renderer, rows, limits, vocab_size=len(renderer.tokenizer))
    measured = _measure(inputs, fused, probes, renderer, threads)
    measured = _measure_undecided(measured, inputs, probes, settings.min_gain_retained, fused.dtype)
    gains, facts = _gain_checks(measured, probes, settings.min_gain_retained, fused.dtype)
    num_rows = len(_result(measured, "base").row_logprobs)
    checks = [check for variant in measured.values() for check in variant.checks] + gains
    record = Fidelity(
        passed=all(check.passed for check in checks),
        rows=num_rows,
        rows_allowed=len(probes.rows),
        prompts=len(probes.prompts),
        answer_tokens=probes.num_target_tokens(num_rows),
        layer_by_layer=not probes.limits.in_memory,
        variants=facts,
        checks=checks,
    )
    files.write_json(fidelity, record)
    return record


def _measure(
    inputs: FidelityInputs, fused: FusedManifest, probes: ProbeSet, renderer: Renderer, threads: int
) -> dict[str, Measured]:
    """The first look at every variant."""
    first = probes.part(0, probes.first_look)
    measured = _measure_folders(inputs, fused, first)
    context_length = probes.max_length() + probes.limits.max_new_tokens
    reference = Reference(
        _result(measured, "adapter"),
        first,
        renderer,
        lambda dtype: _probe_rounded(inputs, dtype, first),
        context_length=-(-context_length // CONTEXT_MULTIPLE) * CONTEXT_MULTIPLE,
        threads=threads,
    )
    measured |= dict(fidelity_products.measure_gguf(path, reference) for path in inputs.ggufs)
    return measured | dict(fidelity_products.measure_mlx(path, reference) for path in inputs.mlx)


def _measure_undecided(
    measured: dict[str, Measured], inputs: FidelityInputs, probes: ProbeSet, minimum: float, dtype: str
) -> dict[str, Measured]:
    """Read more rows, twice as many each time, with the files whose share of the gain is undecided.

    dtype: of the fused folder.
    """
    for start, end in probes.later_looks():
        undecided = _undecided(measured, probes, minimum, dtype)
        if not undecided:
            break
        more = probes.part(start, end)
        base, adapter = _probe_base_and_adapter(inputs, more)
        for name, found in (("base", base), ("adapter", adapter)):
            result = _result(measured, name).with_rows(found)
            measured = measured | {name: dataclasses.replace(measured[name], result=result)}
        measured = measured | {name: measured[name].with_rows(more) for name in undecided}
    return measured


def _undecided(measured: dict[str, Measured], probes: ProbeSet, minimum: float, dtype: str) -> list[str]:
    """The files that need more rows; with the fused folder the merge that may excuse it."""
    gain, excuse = _gain(measured, probes), _excuse(measured, dtype)
    found = []
    for name, variant in measured.items():
        if variant.result is None or not (name == "fused" or is_product(name)):
            continue
        rounded = excuse[1] if excuse and name == "fused" else None
        if not gain.is_decided(variant.result.row_logprobs, minimum, rounded):
            found.append(name)
    return [*found, "rounded"] if excuse and "fused" in found else found


def _excuse(measured: dict[str, Measured], dtype: str) -> tuple[str, list[float]] | None:
    """What excuses a fused folder in the base's own format that loses some of the gain: that format, and another merge.

    That merge is given by the log-probabilities of its rows.
    """
    if "rounded" not in measured or dtype == "float16":
        return None
    return dtype, _result(measured, "rounded").row_logprobs


def _result(measured: dict[str, Measured], name: str) -> ProbeResult:
    result = measured[name].result
    assert result is not None
    return result


def _gain(measured: dict[str, Measured], probes: ProbeSet) -> Gain:
    base, adapter = (_result(measured, name).row_logprobs for name in ("base", "adapter"))
    return Gain(base, adapter, [len(each) for each in probes.target_positions])


def _renderer(inputs: FidelityInputs, settings: FidelitySettings) -> Renderer:
    return renderer_of(read_manifest(inputs.model), settings.chat_template)


def _fits_in_memory(parameters: int) -> bool:
    usable = machine.this_machine(get_capabilities().describe_device()).usable_memory
    return 4 * parameters <= MAX_MEMORY_SHARE * usable


def _measure_folders(inputs: FidelityInputs, fused: FusedManifest, probes: ProbeSet) -> dict[str, Measured]:
    """Base, adapter and fused model, and the check of the last.

    What bfloat16 rounds away is more than a mistake would be, so there the reference is a second merge, rounded in the
    same way. A float16 fuse is compared with the adapter itself, and with such a merge if that is too far off: a
    float32 base is rounded too, and that alone can be too much. On a first look at a large model the fused folder and
    that merge are read block by block, and write nothing.
    """
    alone = _alone(probes)
    streamed = alone.layer_by_layer or _is_large(fused)
    base, adapter = _probe_base_and_adapter(inputs, probes)
    alone = dataclasses.replace(alone, layer_by_layer=streamed)
    result = fidelity_probes.probe_and_close(load_model(fused.folder, alone), probes, generate=not streamed)
    facts = fidelity_probes.compare("adapter", adapter, result)
    if result.completions:
        margin = fidelity_probes.divergence_margin(adapter, result, probes.stop_ids)
        facts = msgspec.structs.replace(facts, divergence_margin=margin)
    mixture = probes.limits.mixture
    check = fidelity_checks.logprob_check("fused", "adapter", facts, mixture=mixture)
    merged = None
    if not check.passed or fused.dtype != "float16":
        merged = _probe_rounded(inputs, fused.dtype, probes)
        distance = fidelity_probes.distance(merged, result)
        check = fidelity_checks.logprob_check("fused", "rounded", distance, mixture=mixture)
    variants = {"base": base, "adapter": adapter, "fused": result} | ({"rounded": merged} if merged else {})
    measured = {name: Measured(found, VariantFidelity(), []) for name, found in variants.items()}
    measured["fused"] = Measured(result, facts, [check], partial(load_model, fused.folder, _alone(probes)))
    if merged:
        again = partial(_load_rounded, inputs, fused.dtype, probes)
        measured["rounded"] = dataclasses.replace(measured["rounded"], load=again)
    return measured


def _is_large(fused: FusedManifest) -> bool:
    """Whether a first look at the model takes fewer tokens than a single row may have."""
    return fused.parameters > fidelity_probes.WORK / fidelity_probes.MAX_TOKENS


def _alone(probes: ProbeSet) -> LoadOptions:
    return LoadOptions(exact=True, layer_by_layer=not probes.limits.in_memory)


def _over_base(inputs: FidelityInputs, probes: ProbeSet) -> LoadOptions:
    return dataclasses.replace(_alone(probes), adapter=Path(inputs.adapter).parent)


def _probe_base_and_adapter(inputs: FidelityInputs, probes: ProbeSet) -> tuple[ProbeResult, ProbeResult]:
    """Both from one reading of the base, where the adapter can be taken off; the base reads no virtual tokens."""
    folder, over_base = read_manifest(inputs.model).folder, _over_base(inputs, probes)
    model = load_model(folder, over_base)
    try:
        generate = probes.limits.in_memory
        adapter = fidelity_probes.run_probes(model, probes, generate=generate, keep_top_logprobs=True)
        with model.without_adapter() as is_base:
            if is_base:
                return fidelity_probes.run_probes(model, probes.of_base(), generate=False), adapter
    finally:
        model.close()
    alone = load_model(folder, dataclasses.replace(over_base, adapter=None))
    return fidelity_probes.probe_and_close(alone, probes.of_base(), generate=False), adapter


def _probe_rounded(inputs: FidelityInputs, dtype: str, probes: ProbeSet) -> ProbeResult:
    return fidelity_probes.probe_and_close(_load_rounded(inputs, dtype, probes), probes, generate=False)


def _load_rounded(inputs: FidelityInputs, dtype: str, probes: ProbeSet) -> LanguageModel:
    """A second merge, by other code, rounded to `dtype`."""
    streamed = dataclasses.replace(_over_base(inputs, probes), layer_by_layer=True)
    return load_reference_merge(read_manifest(inputs.model).folder, streamed, dtype)


def _gain_checks(
    measured: dict[str, Measured], probes: ProbeSet, minimum: float, dtype: str
) -> tuple[list[FidelityCheck], dict[str, VariantFidelity]]:
    """The checks of what each file retains of the adapter's gain, and all measurements with the log-probabilities.

    dtype: of the fused folder.
    """
    gain = _gain(measured, probes)
    rows = {name: variant.result.row_logprobs for name, variant in measured.items() if variant.result is not None}
    excuse = _excuse(measured, dtype)
    checks = [
        gain.retained_check(name, logprobs, minimum, rounded=excuse if name == "fused" else None)
        for name, logprobs in rows.items()
        if name not in ("base", "adapter", "rounded")
    ]
    facts = {name: variant.facts for name, variant in measured.items()}
    for name, logprobs in rows.items():
        facts[name] = msgspec.structs.replace(facts[name], rows=len(logprobs))
        total, share = sum(logprobs), gain.share(logprobs)
        if math.isfinite(total):
            facts[name] = msgspec.structs.replace(facts[name], answer_logprob=round(total, 6))
        if share is not None and name != "base":
            facts[name] = msgspec.structs.replace(facts[name], gain_retained=round(share, 6))
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
