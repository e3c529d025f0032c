"""The proof that the files handed over are the model that was trained.

Adapter, fused model and every GGUF read the same conversations: tokens, distributions over the vocabulary, greedy
answers and the log-probability of the reference answers are compared along the chain, all in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snaketune import files
from snaketune.engines import get_capabilities, load_gguf
from snaketune.engines.interface import LoadOptions
from snaketune.errors import PackageError
from snaketune.files import StrPath
from snaketune.model.manifest import read_as, read_manifest
from snaketune.package import (
    fidelity_backends,
    fidelity_checks,
    fidelity_probes,
    gguf_file,
    modelfile,
    tokenizer_parity,
)
from snaketune.tokens.chat_template import Renderer

SIXTEEN_BIT = ("f32", "f16", "bf16")
FITS = 0.8  # of the usable memory: what a float32 copy of the model may take


def run(
    *,
    model: StrPath,
    adapter: StrPath,
    manifest: StrPath,
    ggufs: Sequence[StrPath],
    rows: StrPath,
    config: dict[str, Any],
    fidelity: StrPath,
    threads: int = 1,
) -> None:
    """Measure the chain base, adapter, fused, each GGUF on test rows and write the record with its verdicts.

    model, manifest: of the base and of the fused model; config: {"model": {"chat_template"}, "package":
    {"min_gain_retained", "fidelity": {"rows", "num_prompts", "max_new_tokens"}}}. A failed check does not raise, so
    that the report can show it: `require` does, on the written record.
    """
    base, fused = read_manifest(model), read_manifest(manifest)
    settings = config["package"]["fidelity"]
    renderer = Renderer(base["folder"], read_as(base, config["model"])["chat_template"])
    fits = _fits(fused["parameters"])
    asked = fidelity_probes.sample(
        renderer,
        list(files.read_jsonl(rows)),
        count=settings["rows"],
        prompts=settings["num_prompts"],
        vocabulary=len(renderer.tokenizer),
        fits=fits,
    )
    form = fidelity_backends.Asking(asked, renderer.stop_ids, settings["max_new_tokens"], fits)
    found, checks = _in_mlx(base, fused, Path(adapter).parent, form)
    measured: dict[str, dict[str, Any]] = {name: {} for name in found}
    measured["fused"] = {"against": "adapter"} | fidelity_probes.compare(found["adapter"], found["fused"])
    measured["fused"]["parting"] = fidelity_probes.parting(found["adapter"], found["fused"], form.stop_ids)
    for path in ggufs:
        name = f"gguf-{gguf_type(path)}"
        reading, measured[name], more = _gguf(path, name, form, renderer, threads)
        checks += more
        if reading is not None:
            found[name] = reading
            measured[name] |= {"against": "fused"} | fidelity_probes.compare(found["fused"], reading)
            measured[name]["greedy_as_adapter"] = fidelity_probes.same_answers(found["adapter"], reading)
            measured[name]["parting"] = fidelity_probes.parting(found["adapter"], reading, form.stop_ids)
            if gguf_type(path) in SIXTEEN_BIT:
                checks.append(fidelity_checks.numbers(name, "fused", measured[name]))
    sums = {name: reading.answer_logprob for name, reading in found.items()}
    for name, total in sums.items():
        measured[name]["answer_logprob"] = round(total, 6) if math.isfinite(total) else None
        if name not in ("base", "adapter", "rounded"):
            least = config["package"]["min_gain_retained"]
            tokens = asked.answer_tokens()
            checks.append(fidelity_checks.gain_kept(name, sums["base"], sums["adapter"], total, tokens, least))
    record = {
        "passed": all(check["passed"] for check in checks),
        "rows": len(asked.rows),
        "prompts": len(asked.prompts),
        "answer_tokens": asked.answer_tokens(),
        "layer_by_layer": not fits,
        "artefacts": measured,
        "checks": checks,
    }
    files.write_json(fidelity, record)


def gguf_type(path: StrPath) -> str:
    """The type in a file's name, `<run>-<type>.gguf`."""
    return Path(path).stem.rpartition("-")[2]


def _fits(parameters: int) -> bool:
    from snaketune.runtime.machine import this_machine

    return 4 * parameters <= FITS * this_machine(get_capabilities().describe_device()).usable_memory


def _in_mlx(
    base: dict[str, Any], fused: dict[str, Any], adapter: Path, form: fidelity_backends.Asking
) -> tuple[dict[str, fidelity_probes.Reading], list[dict[str, Any]]]:
    """Base, adapter and fused model, and the verdict on the last.

    What bfloat16 rounds away is more than a mistake would be, so there the reference is a second merge, rounded in the
    same way. A float16 fuse is compared with the adapter itself, and with such a merge if that is too far off: a
    float32 base is rounded too, and that alone can be.
    """
    folder = base["folder"]
    found = {
        "base": fidelity_backends.probe_folder(folder, form, generate=False),
        "adapter": fidelity_backends.probe_folder(folder, form, adapter=adapter, reference=True),
        "fused": fidelity_backends.probe_folder(fused["folder"], form),
    }
    direct = fidelity_checks.numbers("fused", "adapter", fidelity_probes.distance(found["adapter"], found["fused"]))
    if direct["passed"] and fused["dtype"] == "float16":
        return found, [direct]
    found["rounded"] = fidelity_backends.probe_folder(
        folder, form, adapter=adapter, merged_as=fused["dtype"], generate=False
    )
    return found, [
        fidelity_checks.numbers("fused", "rounded", fidelity_probes.distance(found["rounded"], found["fused"]))
    ]


def _gguf(
    path: StrPath, name: str, form: fidelity_backends.Asking, renderer: Renderer, threads: int
) -> tuple[fidelity_probes.Reading | None, dict[str, Any], list[dict[str, Any]]]:
    """What a GGUF says, what it is, and the verdicts on what it reads and writes; no reading if it does not load."""
    asked = form.sample
    facts: dict[str, Any] = {"bytes": Path(path).stat().st_size}
    try:
        head = gguf_file.read(path)
        room = asked.longest() + form.limit
        model = load_gguf(path, LoadOptions(context_length=(room + 255) // 256 * 256, threads=threads, exact=True))
    except PackageError as error:
        return None, facts, [fidelity_checks.loads(name, str(error))]
    try:
        facts["tensor_types"] = head.tensor_types()
        facts["tokens"] = tokenizer_parity.token_differences(
            model, renderer, [*asked.texts, *tokenizer_parity.probes(renderer)]
        )
        begin = tokenizer_parity.begin_token(model, renderer)
        facts["template"] = tokenizer_parity.template_differences(head.template(), renderer, asked.conversations)
        ollama = modelfile.format_of(renderer, head) if renderer.template and not asked.tools else None
        facts["modelfile"] = tokenizer_parity.format_differences(ollama, renderer, asked.conversations)
        checks = [
            fidelity_checks.loads(name, None),
            fidelity_checks.tokens(name, facts["tokens"], begin),
            fidelity_checks.template(name, facts["template"], len(asked.conversations)),
            fidelity_checks.modelfile(name, facts["modelfile"], len(asked.conversations)),
            fidelity_checks.stops(name, tokenizer_parity.endless(model, renderer)),
        ]
        return fidelity_backends.probe(model, form), facts, checks
    finally:
        model.close()


def require(fidelity: StrPath) -> str:
    """The gate: a short text for a record that passed; raises PackageError with the failed checks otherwise."""
    record = files.read_json(fidelity)
    failed = [check for check in record["checks"] if not check["passed"]]
    if failed:
        lines = [f"  {check['artefact']}: {check['says']} (allowed: {check['limit']})" for check in failed]
        raise PackageError(
            f"{len(failed)} of {len(record['checks'])} fidelity checks failed; the first file that is not the trained "
            f"model is {failed[0]['artefact']}",
            where=str(fidelity),
            why="\n".join(["", *lines, ""]),
            fix="docs/packaging.md says what each check means and what to do",
        )
    return f"{len(record['checks'])} fidelity checks passed\n"
