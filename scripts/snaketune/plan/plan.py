"""The plan of a run, made in seconds and before anything is trained: does it fit, what will it see, will it convert.

Reads the bases' config.json and tokenizers and the rows' token counts; no weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from snaketune.config.experiments import Experiment
from snaketune.config.products import types_made_twice
from snaketune.config.sections import TrainConfig
from snaketune.contracts.plan import BatchShape, Plan, PlannedExperiment
from snaketune.contracts.train import StepParams
from snaketune.engines import get_capabilities
from snaketune.errors import DataError, ModelError, ResourceError
from snaketune.files import Record, StrPath, read_json, write_json
from snaketune.model.manifest import plain_key, tokens_key
from snaketune.plan import architecture, fsdp, known_architectures, prompt_tuning, resources
from snaketune.plan.architecture import Architecture
from snaketune.plan.duration import not_forecast
from snaketune.runtime.engine import EngineChoice
from snaketune.runtime.machine import SHARE_OF_RAM, Machine, free_disk, ram_bytes
from snaketune.runtime.progress import format_bytes
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import EpochSampler, micro_batching_from

CUT_SHARE = 0.05  # a larger share of truncated rows is worth a warning
FEW_ROWS = 50


class PlanSettings(Record, frozen=True, kw_only=True):
    """The settings that a plan depends on. gguf, imatrix, mlx and adapter: of the `package` section."""

    experiments: list[Experiment]
    max_length: int
    max_lost: float
    seed: int
    gguf: list[str]
    adapter: bool
    engine: EngineChoice | None = None
    mlx: list[str] = msgspec.field(default_factory=list)
    imatrix: bool | str = "auto"

    @classmethod
    def of_step(cls, params: StepParams) -> PlanSettings:
        """The settings in a step's params, of which the untracked ones complete each `train` section."""
        tracked, others = json.loads(params.config), json.loads(params.untracked)
        train = others.pop("train")
        for experiment in tracked["experiments"]:
            experiment["train"] |= train[experiment["name"]]
        return msgspec.convert(tracked | others, cls)

    @property
    def trainers(self) -> list[str]:
        """The trainer of each experiment."""
        return [experiment.train.trainer for experiment in self.experiments]


class SplitCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan reads of a split's counts in tokens.json."""

    rows: int = 0
    cut: int = 0
    dropped: int = 0

    @property
    def kept(self) -> int:
        return self.rows - self.dropped


@dataclass(frozen=True)
class Case:
    """One experiment with everything that its forecast is made of."""

    experiment: Experiment
    folder: Path
    model: Architecture
    store: TokenStore
    splits: dict[str, SplitCounts]


def summary_sentence(plan: Plan) -> str:
    """Summarize a plan that fits in half a sentence."""
    largest = max(plan.experiments.values(), key=lambda planned: planned.memory.total)
    steps = sum(planned.steps for planned in plan.experiments.values())
    of = f" in {len(plan.experiments)} experiments" if len(plan.experiments) > 1 else ""
    return (
        f"fits: {format_bytes(largest.memory.total)} of {format_bytes(largest.usable_memory)} of memory and "
        f"{format_bytes(plan.disk.total)} of disk; {steps:,} training steps{of}"
    )


def run(
    settings: PlanSettings,
    *,
    models: Sequence[StrPath],
    stores: Sequence[StrPath],
    tokens: Sequence[StrPath],
    machine: Machine,
    plan: StrPath,
) -> Plan:
    """Write plan.json for every experiment, and return it.

    models: `<plain key>.config.json` manifests; stores: train token stores, each in a folder named by its tokens key,
    with its tokens.json among `tokens`. Raises ResourceError when memory or disk will not do, ModelError for a base
    that cannot be converted to GGUF.
    """
    cases = _cases(settings.experiments, models, stores, tokens)
    for report in tokens:
        check_rows_left(read_splits(report), settings, str(report))
    experiments: dict[str, PlannedExperiment] = {}
    for case in cases:
        planned = plan_experiment(case, machine, settings.seed)
        notes = warnings(planned, case.splits, settings.max_length)
        notes += prompt_tuning.notes(case.model, case.experiment.train, settings.gguf)
        experiments[case.experiment.name] = msgspec.structs.replace(planned, warnings=notes)
        if settings.adapter and case.experiment.train.method == "lora":
            _check_exportable(case.model, case.experiment.train.target_modules, case.folder)
    _check_memory(cases, experiments, machine)
    _check_host_memory(cases, experiments, machine)
    bases = [(case.model, case.experiment.train, not any(case.folder.glob("*.safetensors"))) for case in cases]
    deployed = (prompt_tuning.deployed(case.model, case.experiment.train.virtual_tokens) for case in cases)
    largest = max(deployed, key=_parameters)
    stages = resources.forecast_disk(
        bases, settings.gguf, largest, settings.mlx, types_made_twice(settings.gguf, settings.imatrix)
    )
    resources.check_disk(stages, free_disk(plan), str(Path(plan).parent))
    if settings.engine:
        print(f"snaketune: the engine is {settings.engine.name}: {settings.engine.reason}", file=sys.stderr)
    rows = {split: counts.kept for split, counts in cases[0].splits.items()}
    result = Plan(
        machine=machine,
        engine=settings.engine,
        rows=rows,
        experiments=experiments,
        disk=stages,
        warnings=not_forecast(settings.mlx),
    )
    write_json(plan, result)
    return result


def _cases(
    experiments: Sequence[Experiment],
    models: Sequence[StrPath],
    stores: Sequence[StrPath],
    tokens: Sequence[StrPath],
) -> list[Case]:
    folders = {_key(path, ".config.json"): Path(read_json(path)["folder"]).expanduser() for path in models}
    by_tokens = {Path(path).parent.name: Path(path) for path in stores}
    splits = {Path(path).parent.name: read_splits(path) for path in tokens}
    for folder in folders.values():
        known_architectures.check_base(folder)
    cases = []
    for experiment in experiments:
        folder = folders[plain_key(experiment.model)]
        key = tokens_key(experiment.model, experiment.train.virtual_tokens)
        model = architecture.read_base(folder, experiment.model.quantize)
        if experiment.train.method == "prompt":
            prompt_tuning.check(model, folder)
        if experiment.train.fsdp:
            get_capabilities().check_shardable(model.quantized)
        cases.append(Case(experiment, folder, model, TokenStore(by_tokens[key]), splits[key]))
    return cases


def read_splits(tokens: StrPath) -> dict[str, SplitCounts]:
    """Return the counts of each split in a tokens.json."""
    return msgspec.convert(read_json(tokens)["splits"], dict[str, SplitCounts])


def check_rows_left(splits: dict[str, SplitCounts], settings: PlanSettings, where: str) -> None:
    """Raise DataError for a split of which nothing is left, or less than `data.max_lost` allows."""
    for name, counts in splits.items():
        lost = counts.dropped / counts.rows if counts.rows else 1.0
        if counts.kept and lost <= settings.max_lost:
            continue
        longer = "raise data.max_length, or set data.on_too_long: truncate, which keeps their beginnings"
        if counts.kept:
            found = f"{counts.dropped} of {counts.rows} {name} rows ({lost:.0%}) are dropped when they are tokenized"
            why = f"data.max_lost allows {settings.max_lost:.0%}, and what is left may be unlike your data"
            fix = f"For rows longer than {settings.max_length} tokens, {longer}; or raise data.max_lost"
        else:
            found = f"no {name} row is left of {counts.rows} after tokenizing"
            why = "Training is measured on valid rows and every file on test rows: neither can be empty"
            fix = f"Add rows to the {name} split; where they are longer than {settings.max_length} tokens, {longer}"
        raise DataError(found, where=where, why=why, fix=f"{fix}. tokens.json names every such row")


def _check_exportable(model: Architecture, targets: str | list[str], folder: Path) -> None:
    """Raise ModelError where an adapter would have parts that neither PEFT's LoRA nor llama.cpp's can hold."""
    if any(linear.num_experts > 1 for linear in model.targeted(targets)):
        raise ModelError(
            "the adapter of a mixture of experts cannot be handed over alone",
            where=str(folder),
            why="The LoRA files of PEFT and llama.cpp hold no stacks of experts; the fused model and its GGUFs do",
            fix="Set package.adapter: false, or set train.target_modules without the experts, as in [q_proj, v_proj]",
        )


def held(model: Architecture, device: str) -> Architecture:
    """Return the architecture as the engine holds it there: dequantized, if it has no kernels for the bits."""
    kept = model.quantization is None or get_capabilities().keeps_quantized(model.quantization, device)
    return model if kept else model.dequantized()


def plan_experiment(case: Case, machine: Machine, seed: int) -> PlannedExperiment:
    """Return what one experiment will do and hold; its warnings are not there yet."""
    train, store, model = case.experiment.train, case.store, held(case.model, machine.device)
    sampler = EpochSampler(
        store.lengths,
        store.weights,
        rows_per_step=train.rows_per_step,
        seed=seed,
        epochs=train.epochs,
        max_steps=train.max_steps,
    )
    each = architecture.dtype_bytes(case.folder, case.experiment.model, machine.device)
    batch = max(
        largest_batches(store, train, machine.device == "cpu"),
        key=lambda shape: resources.forecast_memory(model, train, shape, each).total,
    )
    times = sampler.visit_counts(sampler.num_steps)
    return PlannedExperiment(
        steps=sampler.num_steps,
        rows_per_step=train.rows_per_step,
        rows_seen=sampler.num_visits,
        times_each_row_is_seen=round(sampler.num_visits / len(store), 3),
        num_target_tokens=int((times * store.num_target_tokens).sum()),
        input_tokens=int((times * (store.lengths - 1)).sum()),
        validations=1 + -(-sampler.num_steps // train.eval_interval(sampler.num_steps)),
        parameters=model.parameters,
        trainable_parameters=resources.trainable(model, train),
        largest_batch=batch,
        dtype_bytes=each,
        memory=resources.forecast_memory(model, train, batch, each),
        usable_memory=int(train.memory_limit * 1e9) if train.memory_limit else machine.usable_memory,
        warnings=[],
    )


def largest_batches(store: TokenStore, train: TrainConfig, cpu: bool, cut: int | None = None) -> list[BatchShape]:
    """Return the micro-batches of a step that has the longest rows together, which sorting by length makes likely.

    cut: tokens that are left of a longer row.
    """
    lengths = np.minimum(store.lengths, cut or store.lengths.max())
    targets = np.minimum(store.num_target_tokens, lengths - 1)
    longest = np.argsort(-store.lengths, kind="stable")[: train.rows_per_step]
    batching = micro_batching_from(train, on_cpu=cpu)
    shapes = []
    for rows in batching.split(longest, lengths):
        count = (lengths[rows] - 1 if train.train_on_prompts else targets[rows]).sum()
        shapes.append(BatchShape(*batching.shape(lengths[rows] - 1), max(1, int(count))))
    return shapes


def warnings(planned: PlannedExperiment, splits: dict[str, SplitCounts], max_length: int) -> list[str]:
    """Return what a person should know before the training starts, as sentences."""
    notes = []
    times = planned.times_each_row_is_seen
    if times < 1:
        notes.append(f"each row is seen {times:.1f} times: raise train.epochs (or max_steps), or some teach nothing")
    if times > 10:
        notes.append(f"each row is seen {times:.0f} times: expect it to be memorized; lower train.epochs")
    train = splits.get("train", SplitCounts())
    if train.rows and train.cut / train.rows > CUT_SHARE:
        notes.append(
            f"{train.cut} of {train.rows} training rows are longer than data.max_length {max_length} and are "
            "truncated: raise it, or shorten the rows"
        )
    for name, counts in splits.items():
        if counts.dropped:
            notes.append(
                f"{counts.dropped} of {counts.rows} {name} rows are dropped when they are tokenized, most for being "
                f"longer than data.max_length {max_length}: raise it, or set data.on_too_long: truncate"
            )
    if 0 < train.kept < FEW_ROWS:
        notes.append(f"{train.kept} training rows teach a style at best; 100 to 500 teach a task")
    if planned.steps < 20:
        notes.append(f"{planned.steps} steps are few: lower train.gradient_accumulation_steps, or raise train.epochs")
    return notes


def _check_memory(cases: Sequence[Case], experiments: dict[str, PlannedExperiment], machine: Machine) -> None:
    """Raise ResourceError with advice for the largest experiment, if one does not fit into memory."""
    too_large = []
    for case in cases:
        planned = experiments[case.experiment.name]
        if planned.memory.total > planned.usable_memory:
            too_large.append((case, planned))
    if not too_large:
        return
    case, planned = max(too_large, key=lambda pair: pair[1].memory.total)
    name, usable = case.experiment.name, planned.usable_memory
    source = machine.memory_source if usable == machine.usable_memory else "train.memory_limit"
    cpu = machine.device == "cpu"
    steps = resources.advice(
        held(case.model, machine.device),
        case.experiment.train,
        lambda train, cut: largest_batches(case.store, train, cpu, cut),
        planned.dtype_bytes,
        usable,
        machine.device,
    )
    parts = {part: size for part, size in msgspec.structs.asdict(planned.memory).items() if size}
    table = "".join(f"\n  {part:<12}{size / 1e9:8.2f} GB" for part, size in parts.items())
    changes = "".join(f"\n  {words}: {total / 1e9:.2f} GB" for words, total in steps)
    fits = bool(steps) and steps[-1][1] <= usable
    ending = "\nThe last of them fits" if fits else "\nNone of them is enough: choose a smaller base"
    raise ResourceError(
        f"training needs {planned.memory.total / 1e9:.2f} GB, and {usable / 1e9:.2f} GB may be used ({source})",
        where="train" if len(too_large) == 1 and name == "main" else f"experiment {name}",
        why=f"It would end with the memory full, perhaps after hours. Its parts:{table}\n",
        fix=f"Smallest changes, each on top of the ones before:{changes}{ending}",
    )


def _check_host_memory(cases: Sequence[Case], experiments: dict[str, PlannedExperiment], machine: Machine) -> None:
    """Check the memory that workers need to load a base that they spread, unless another machine is to train."""
    for case in cases:
        train, dtype = case.experiment.train, case.experiment.model.dtype
        if not train.fsdp or train.memory_limit is not None:
            continue
        if fsdp.is_converted(read_json(case.folder / "config.json"), dtype, machine.device):
            base_bytes = resources.weight_bytes(case.model, experiments[case.experiment.name].dtype_bytes)
            fsdp.check_host_memory(train, base_bytes, int(ram_bytes() * SHARE_OF_RAM))


def _key(path: StrPath, ending: str) -> str:
    return Path(path).name.removesuffix(ending)


def _parameters(model: Architecture) -> int:
    return model.parameters
