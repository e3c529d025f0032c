"""The plan of a run, made in seconds and before anything is trained: does it fit, what will it see, will it convert.

Reads the bases' config.json and tokenizers and the rows' token counts; no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from snaketune.config.sections import ModelConfig
from snaketune.engines import get_capabilities
from snaketune.errors import ModelError, ResourceError
from snaketune.files import StrPath, read_json, write_json
from snaketune.model.manifest import plain_key, tokens_key
from snaketune.package.gguf_conversion import check_convertible
from snaketune.plan import architecture, disk, memory
from snaketune.plan.advice import advice
from snaketune.plan.architecture import Architecture
from snaketune.plan.memory import Batch
from snaketune.runtime.machine import Machine, free_disk
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import Visits, cutting_of

CUT_SHARE = 0.05  # a larger share of cut rows is worth a warning
FEW_ROWS = 50
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def run(
    *,
    models: Sequence[StrPath],
    stores: Sequence[StrPath],
    tokens: Sequence[StrPath],
    config: dict[str, Any],
    machine: Machine,
    seed: int,
    plan: StrPath,
) -> dict[str, Any]:
    """Write plan.json for every experiment, and return it.

    models: `<plain key>.config.json` manifests; stores: train token stores, each in a folder named by its tokens key,
    with its tokens.json among `tokens`; config: {"experiments", "data", "package"}. Raises ResourceError when memory or
    disk will not do, ModelError for a base that cannot be converted to GGUF.
    """
    folders = {_key(path, ".config.json"): Path(read_json(path)["folder"]).expanduser() for path in models}
    by_tokens = {Path(path).parent.name: Path(path) for path in stores}
    verdicts = {Path(path).parent.name: read_json(path) for path in tokens}
    for folder in folders.values():
        check_convertible(folder)
        get_capabilities().check_fusable(read_json(folder / "config.json"), folder)

    experiments, parts, refused = {}, [], []
    for name, settings in config["experiments"].items():
        section = msgspec.convert(settings["model"], ModelConfig)
        folder = folders[plain_key(section)]
        model = described(folder, settings["model"])
        number = number_bytes(folder, settings["model"], machine)
        store = TokenStore(by_tokens[tokens_key(section)])
        record = experiment(model, settings, store, machine, number, seed)
        counted = verdicts[tokens_key(section)]["splits"]
        record["warnings"] = warnings(record, counted, config["data"]["max_length"])
        experiments[name] = record
        parts.append((model, settings["train"], not any(folder.glob("*.safetensors"))))
        if record["memory"]["total"] > record["usable_memory"]:
            refused.append((name, model, settings, store, record))
        if config["package"]["adapter"] and settings["train"]["method"] == "lora":
            _check_exportable(model, settings["train"]["target_modules"], folder)
    if refused:
        raise _too_large(refused, machine)
    stages = disk.forecast(parts, config["package"]["gguf"], max((one for one, _, _ in parts), key=_parameters))
    disk.check(stages, free_disk(plan), str(Path(plan).parent))
    rows = next(iter(verdicts.values()))["splits"]
    result = {"machine": machine.record(), "rows": rows, "experiments": experiments, "disk": stages}
    write_json(plan, result)
    return result


def _check_exportable(model: Architecture, targets: str | list[str], folder: Path) -> None:
    """Raise ModelError where an adapter would have parts that neither PEFT's LoRA nor llama.cpp's can hold."""
    if any(one.copies > 1 for one in model.targeted(targets)):
        raise ModelError(
            "the adapter of a mixture of experts cannot be handed over alone",
            where=str(folder),
            why="The LoRA files of PEFT and llama.cpp hold no stacks of experts; the fused model and its GGUFs do",
            fix="Set package.adapter: false, or set train.target_modules without the experts, as in [q_proj, v_proj]",
        )


def described(folder: Path, model: dict[str, Any]) -> Architecture:
    """The architecture of a base as it will be trained, quantized if the `model` section says so."""
    found = architecture.read(read_json(folder / "config.json"), str(folder / "config.json"))
    quantize = model.get("quantize")
    return found.with_bits(architecture.quantized_bits(quantize)) if quantize else found


def number_bytes(folder: Path, model: dict[str, Any], machine: Machine) -> int:
    """Bytes of a number that is not quantized, as loading chooses it: float32 on a CPU, else the model's own."""
    if model["dtype"] != "auto":
        return BYTES[model["dtype"]]
    if machine.device == "cpu":
        return 4
    config = read_json(folder / "config.json")
    return BYTES.get(config.get("torch_dtype") or config.get("dtype") or "bfloat16", 2)


def experiment(
    model: Architecture, settings: dict[str, Any], store: TokenStore, machine: Machine, number: int, seed: int
) -> dict[str, Any]:
    """What one experiment will do and hold. number: bytes of an unquantized number."""
    train = settings["train"]
    per_update = train["batch_size"] * train["gradient_accumulation_steps"]
    visits = Visits(
        store.lengths,
        store.weights,
        rows_per_update=per_update,
        seed=seed,
        epochs=train["epochs"],
        updates=train["max_steps"],
    )
    batch = max(
        largest_batches(store, train, machine.device == "cpu"),
        key=lambda found: memory.forecast(model, train, found, number)["total"],
    )
    limit, times = train["memory_limit"], visits.times(visits.updates)
    trained = memory.trainable(model, train)
    return {
        "updates": visits.updates,
        "rows_per_update": per_update,
        "rows_seen": visits.total,
        "times_each_row_is_seen": round(visits.total / len(store), 3),
        "trained_tokens": int((times * store.targets).sum()),
        "read_tokens": int((times * (store.lengths - 1)).sum()),
        "validations": 1 + -(-visits.updates // train["eval_steps"]),
        "parameters": model.parameters,
        "trainable_parameters": trained,
        "largest_batch": {"rows": batch.rows, "length": batch.length, "targets": batch.targets},
        "number_bytes": number,
        "memory": memory.forecast(model, train, batch, number),
        "usable_memory": int(limit * 1e9) if limit else machine.usable,
    }


def largest_batches(store: TokenStore, train: dict[str, Any], cpu: bool, cut: int | None = None) -> list[Batch]:
    """The micro-batches of an update that has the longest rows together, which sorting by length makes likely.

    cut: tokens that are left of a longer row.
    """
    lengths = np.minimum(store.lengths, cut or store.lengths.max())
    wanted = np.minimum(store.targets, lengths - 1)
    longest = np.argsort(-store.lengths, kind="stable")[: train["batch_size"] * train["gradient_accumulation_steps"]]
    cutting = cutting_of(train, cpu)
    found = []
    for rows in cutting.cut(longest, lengths):
        targets = (lengths[rows] - 1 if train["train_on_prompts"] else wanted[rows]).sum()
        found.append(Batch(*cutting.shape(lengths[rows] - 1), max(1, int(targets))))
    return found


def warnings(record: dict[str, Any], splits: dict[str, Any], max_length: int) -> list[str]:
    """What a person should know before the training starts, in words."""
    said = []
    times = record["times_each_row_is_seen"]
    if times < 1:
        said.append(f"each row is seen {times:.1f} times: raise train.epochs (or max_steps), or some teach nothing")
    if times > 10:
        said.append(f"each row is seen {times:.0f} times: expect it to be learnt by heart; lower train.epochs")
    train = splits.get("train", {})
    rows, cut = train.get("rows", 0), train.get("cut", 0)
    if rows and cut / rows > CUT_SHARE:
        said.append(
            f"{cut} of {rows} training rows are longer than data.max_length {max_length} and are cut: raise it, or "
            "shorten the rows"
        )
    if 0 < rows < FEW_ROWS:
        said.append(f"{rows} training rows teach a style at best; 100 to 500 teach a task")
    if record["updates"] < 20:
        said.append(
            f"{record['updates']} updates are few: lower train.gradient_accumulation_steps, or raise train.epochs"
        )
    return said


def _too_large(refused: list[tuple[Any, ...]], machine: Machine) -> ResourceError:
    name, model, settings, store, record = max(refused, key=lambda one: one[4]["memory"]["total"])
    parts, usable = record["memory"], record["usable_memory"]
    because = machine.because if usable == machine.usable else "train.memory_limit"
    cpu = machine.device == "cpu"
    steps = advice(
        model,
        settings["train"],
        lambda train, cut: largest_batches(store, train, cpu, cut),
        record["number_bytes"],
        usable,
    )
    table = "".join(f"\n  {part:<12}{size / 1e9:8.2f} GB" for part, size in parts.items() if size)
    changes = "".join(f"\n  {words}: {total / 1e9:.2f} GB" for words, total in steps)
    fits = bool(steps) and steps[-1][1] <= usable
    ending = "\nThe last of them fits" if fits else "\nNone of them is enough: choose a smaller base"
    return ResourceError(
        f"training needs {parts['total'] / 1e9:.2f} GB, and {usable / 1e9:.2f} GB may be used ({because})",
        where="train" if len(refused) == 1 and name == "main" else f"experiment {name}",
        why=f"It would end with the memory full, perhaps after hours. Its parts:{table}\n",
        fix=f"Smallest changes, each on top of the ones before:{changes}{ending}",
    )


def _key(path: StrPath, ending: str) -> str:
    return Path(path).name.removesuffix(ending)


def _parameters(model: Architecture) -> int:
    return model.parameters
