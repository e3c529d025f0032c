"""Trains with a trainer of the field: token ids out to its process, an adapter and its losses back.

The rows, their order and the number of steps are worked out here as for the built-in trainer; base and adapter are
scored here by token, so that the losses of all trainers can be compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from snaketune import files
from snaketune.config.sections import RESULT_NEUTRAL_KEYS
from snaketune.contracts.train import TrainerRecord, TrainingJob, TrainingSummary
from snaketune.engines import load_model
from snaketune.engines.interface import LoadOptions, LoglikelihoodRequest
from snaketune.errors import ModelError, TrainingError
from snaketune.files import Record
from snaketune.model.manifest import read_manifest
from snaketune.runtime import locks
from snaketune.tokens.token_store import TokenStore
from snaketune.train import peft_format
from snaketune.train.batches import EpochSampler, nested_subset, schedule_from
from snaketune.train.checkpoints import ParameterCounts, fingerprint, summarize
from snaketune.train.metrics_log import TrainingCallback, round_significant
from snaketune.train.tracking import keep_awake, notify_on_exit, open_tracker
from snaketune.trainers import capabilities, describe, environment, process
from snaketune.trainers.description import TrainerDescription, TrainingPlan
from snaketune.trainers.process import Outcome, TrainerEvent, TrainerRequest
from snaketune.trainers.progress import Progress

IGNORED = -100
"""The label of a token without loss."""


def write_rows(path: Path, store: TokenStore, rows: np.ndarray, *, train_on_prompts: bool = False) -> None:
    """Write these rows of a store, in this order."""
    with files.writing_jsonl(path) as out:
        for row in rows:
            ids, trained = store.row(int(row))
            labels = ids if train_on_prompts else np.where(trained, ids, IGNORED)
            out.write(files.dumps({"input_ids": ids.tolist(), "labels": labels.tolist()}).encode() + b"\n")


def count_several_answers(store: TokenStore, rows: np.ndarray) -> int:
    """How many of these rows have more than one stretch of trained tokens."""
    return sum(_stretches(store.row(int(row))[1]) > 1 for row in rows)


def _stretches(trained: np.ndarray) -> int:
    return int(np.count_nonzero(np.diff(trained.astype(np.int8), prepend=0) == 1))


class Prepared(NamedTuple):
    """What a trainer is handed, worked out: the sampler of the steps, the rows in their order, and the plan."""

    sampler: EpochSampler
    visits: np.ndarray
    subset: np.ndarray
    plan: TrainingPlan
    base: Path


def train(job: TrainingJob, callback: TrainingCallback | None = None) -> TrainingSummary:
    """Train as the job says, with the trainer that it names; writes `job.outputs`.

    A later start resumes where the trainer can. Raises TrainingError, ResourceError or ConfigError with what to do.
    """
    description, folder = describe(job.config.trainer), Path(job.outputs.summary).parent
    environment.python_of(description.name)
    training_id = training_fingerprint(job)
    place = Path(job.outputs.checkpoints).resolve() / training_id
    place.mkdir(parents=True, exist_ok=True)
    lock = locks.hold_lock(place.parent / "lock", f"training in {place.parent}")
    with notify_on_exit(job.config.notify.command, str(folder)), keep_awake(), lock:
        prepared = prepare(job, description)
        request = _request(job, description, prepared, place)
        tracker = open_tracker(folder, training_id, job)
        progress = Progress(
            job, place, prepared.sampler, prepared.visits, tracker=tracker, callback=callback or TrainingCallback()
        )
        outcome = process.run(description, place, progress.take)
        progress.logger.close()
        return write_outputs(job, request, prepared.plan, progress, outcome)


def prepare(job: TrainingJob, description: TrainerDescription) -> Prepared:
    """Work out the steps, the order of the rows and the plan; raises ConfigError for what the trainer cannot do."""
    manifest = read_manifest(job.model)
    base = Path(manifest.folder).expanduser().resolve()
    architecture = files.read_json(base / "config.json")
    if "quantization" in architecture and not description.quantized_bases:
        raise ModelError(
            f"{description.title} cannot train this base, which MLX has quantized",
            where="model.base",
            why="Its weights are in a format that only MLX reads",
            fix="Use a 16-bit base, or train.trainer: builtin or mlx-lm",
        )
    store, valid = TokenStore(job.train_tokens), TokenStore(job.valid_tokens)
    config = job.config
    subset = nested_subset(store, len(store) if job.num_rows is None else job.num_rows, job.seed)
    sampler = EpochSampler(
        store.lengths[subset],
        store.weights[subset],
        rows_per_step=config.rows_per_step,
        seed=job.seed,
        epochs=config.epochs,
        max_steps=config.max_steps,
    )
    visits = np.concatenate([sampler.rows(step) for step in range(1, sampler.num_steps + 1)])
    plan = TrainingPlan(
        config=config,
        steps=sampler.num_steps,
        warmup_steps=schedule_from(config, sampler.num_steps).warmup_steps,
        rows=len(subset),
        longest=int(max(store.lengths.max(), valid.lengths.max())),
        num_layers=_num_layers(architecture),
        dtype=job.dtype,
        seed=job.seed,
        several_answers=count_several_answers(store, subset),
    )
    capabilities.check_rows(description, plan, len(valid))
    return Prepared(sampler, visits, subset, plan, base)


def training_fingerprint(job: TrainingJob) -> str:
    """A name for everything that the result depends on; a later start finds the trainer's checkpoints by it."""
    settings = msgspec.to_builtins(job.config)
    for key in RESULT_NEUTRAL_KEYS:
        del settings[key]
    name = job.config.trainer
    return fingerprint(
        settings | {"dtype": job.dtype, "seed": job.seed},
        [job.train_tokens, job.valid_tokens, job.model],
        code=environment.code_of(name),
        rows=job.num_rows,
    )


def _num_layers(architecture: dict[str, object]) -> int:
    """The number of blocks that a config.json names; of a model of several kinds of input, those of its text part."""
    text = architecture.get("text_config")
    number = (text if isinstance(text, dict) else architecture).get("num_hidden_layers", 0)
    return int(str(number))


def _request(job: TrainingJob, description: TrainerDescription, prepared: Prepared, place: Path) -> TrainerRequest:
    """Write the rows and the request into the trainer's folder."""
    store, valid = TokenStore(job.train_tokens), TokenStore(job.valid_tokens)
    train_rows, valid_rows = place / "train.jsonl", place / "valid.jsonl"
    write_rows(train_rows, store, prepared.subset, train_on_prompts=job.config.train_on_prompts)
    write_rows(valid_rows, valid, np.arange(len(valid)))
    request = TrainerRequest(
        base=str(prepared.base),
        folder=str(place),
        train_rows=str(train_rows),
        valid_rows=str(valid_rows),
        visits=prepared.visits.tolist(),
        steps=prepared.plan.steps,
        dtype=job.dtype,
        seed=job.seed,
        settings=description.translate(prepared.plan),
    )
    files.write_json(place / process.REQUEST, request)
    return request


class MlxLmConfig(Record, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What matters here of an adapter_config.json that mlx-lm or Unsloth wrote."""

    lora_parameters: dict[str, object]


def write_outputs(
    job: TrainingJob, request: TrainerRequest, plan: TrainingPlan, progress: Progress, outcome: Outcome
) -> TrainingSummary:
    """Write the adapter, the logs and, last, the summary, whose losses are measured here."""
    outputs, folder, done = job.outputs, Path(job.outputs.summary).parent, outcome.done
    peft_format.save(read_adapter(done), outputs.adapter, outputs.adapter_config)
    base_loss = validation_loss(job, request.base, None)
    loss = validation_loss(job, request.base, Path(outputs.adapter).parent)
    files.copy(progress.logger.metrics.path, outputs.metrics)
    files.copy(progress.logger.timing.path, folder / "timing.jsonl")
    _write_timing(folder, progress, outcome)
    description = describe(job.config.trainer)
    record = TrainerRecord(
        name=description.name,
        title=description.title,
        versions=done.versions,
        settings=request.settings,
        differences=description.differences(plan),
        own_validation_loss=progress.own_losses.get(done.best_step),
    )
    summary = msgspec.structs.replace(
        _summary(job, progress, done), base_validation_loss=base_loss, best_validation_loss=loss, trainer=record
    )
    files.write_json(outputs.summary, summary)
    return summary


def read_adapter(done: TrainerEvent) -> peft_format.Adapter:
    """The adapter that the last event names, in mlx-lm's format."""
    folder = Path(done.adapter or "")
    if done.format == "peft":
        return peft_format.read_peft(folder)
    given = files.read_json(folder / "adapter_config.json", MlxLmConfig).lora_parameters
    tensors = peft_format.read_tensors(folder / "adapters.safetensors")
    scale, dropout = float(str(given["scale"])), float(str(given.get("dropout", 0.0)))
    return peft_format.Adapter(tensors, peft_format.describe(tensors, scale, dropout))


def validation_loss(job: TrainingJob, base: str, adapter: Path | None) -> float | None:
    """The mean loss over all target tokens of the validation rows, nats, of the base or with an adapter over it."""
    valid = TokenStore(job.valid_tokens)
    model = load_model(base, LoadOptions(dtype=job.dtype, adapter=adapter))
    requests = []
    for number in range(len(valid)):
        ids, mask = valid.row(number)
        requests.append(LoglikelihoodRequest(ids.tolist(), mask.tolist()))
    total = sum(model.loglikelihood(requests))
    model.close()
    return round_significant(-total / max(1, int(valid.num_target_tokens.sum())))


def _write_timing(folder: Path, progress: Progress, outcome: Outcome) -> None:
    """timing.json: seconds are those of the training itself, CPU time and memory those of the whole process."""
    seconds = max(outcome.done.seconds, 1e-3)
    timing = msgspec.structs.replace(
        progress.logger.training_timing(),
        seconds=seconds,
        cpu_seconds=round(outcome.usage.cpu_seconds, 3),
        tokens_per_second=round(progress.new_target_tokens() / seconds, 1),
        peak_memory_bytes=progress.peak_memory,
        peak_resident_bytes=outcome.usage.peak_resident_bytes,
    )
    files.write_json(folder / "timing.json", timing)


def _summary(job: TrainingJob, progress: Progress, done: TrainerEvent) -> TrainingSummary:
    counts = ParameterCounts(done.trainable_parameters or progress.trainable, done.total_parameters or progress.total)
    if done.step < 1:
        raise TrainingError(
            f"{job.config.trainer} ended without a step", where=done.adapter or "", fix="Look at its trainer.log"
        )
    progress.state.step = done.step
    early = done.step < progress.sampler.num_steps
    reason = f"{job.config.early_stopping_patience} validations in a row without a gain" if early else "all steps done"
    progress.state.early_stopping.best_step = done.best_step
    valid = TokenStore(job.valid_tokens)
    return summarize(progress.state, job, progress.sampler, valid, counts, reason)
