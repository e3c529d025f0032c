"""Runs a training: from a step's params to a job, its files and summary; the loop itself is `trainer.Trainer`.

Several worker processes each run a part of it (`train_worker`); where there is one, its part is the whole. What an
engine adds is a `TrainingEngine`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from snaketune import files
from snaketune.config.sections import RESULT_NEUTRAL_KEYS, TrainConfig
from snaketune.contracts.train import StepInputs, StepParams, TrainingJob, TrainingSummary
from snaketune.errors import ResourceError, TrainingError
from snaketune.files import StrPath
from snaketune.model.manifest import read_manifest
from snaketune.runtime import locks
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import subset_for_fraction
from snaketune.train.checkpoints import fingerprint, validate_safetensors
from snaketune.train.engine import TrainableModel, TrainingEngine
from snaketune.train.metrics_log import TrainingCallback
from snaketune.train.process_group import ProcessGroup
from snaketune.train.tracking import NullTracker, keep_awake, notify_on_exit, open_tracker
from snaketune.train.trainer import Trainer

GB = 10**9
FAILURES = (
    "out of memory",
    "outofmemory",
    "insufficient memory",
    "not enough memory",
    "unable to allocate",
    "can't allocate",
    "bad_alloc",
    "malloc",
)


def pilot_job(params: StepParams, inputs: StepInputs, folder: StrPath) -> TrainingJob:
    """The job of the pilot: some of the rows, for `pilot.max_steps` or one epoch."""
    job, pilot = TrainingJob.of_step(params, inputs, folder), json.loads(params.config)["pilot"]
    return msgspec.structs.replace(job, config=job.config.for_pilot(pilot["max_steps"]), num_rows=pilot["rows"])


def subset_job(params: StepParams, inputs: StepInputs, folder: StrPath) -> TrainingJob:
    """The job of a point of the learning curve: a fraction of the pilot's rows, for as many steps as the pilot."""
    job, tracked = TrainingJob.of_step(params, inputs, folder), json.loads(params.config)
    rows = min(tracked["pilot"]["rows"], len(TokenStore(inputs.train)))
    num_rows, max_steps = subset_for_fraction(
        tracked["fraction"], rows, tracked["pilot"]["max_steps"], job.config.rows_per_step
    )
    return msgspec.structs.replace(job, config=job.config.for_subset(max_steps), num_rows=num_rows)


def train(job: TrainingJob, engine: TrainingEngine, callback: TrainingCallback | None = None) -> TrainingSummary:
    """Run a training, on as many processes as `job.config.workers` says; writes `job.outputs`.

    Raises TrainingError, ConfigError or ResourceError with what to do; a later call resumes from the last checkpoint.
    """
    folder = Path(job.outputs.summary).parent
    callback = callback or TrainingCallback()
    with notify_on_exit(job.config.notify.command, str(folder)), keep_awake():
        if job.config.workers > 1:
            engine.launch(job, callback)
        else:
            train_worker(job, ProcessGroup(), engine, callback)
    return files.read_json(job.outputs.summary, TrainingSummary)


def train_worker(
    job: TrainingJob, group: ProcessGroup, engine: TrainingEngine, callback: TrainingCallback | None = None
) -> None:
    """Run one process's part of a training; the main process writes the files."""
    checkpoints, folder = Path(job.outputs.checkpoints), Path(job.outputs.summary).parent
    training_id = training_fingerprint(job, engine)
    assert_same_inputs(group, training_id)
    base = Path(read_manifest(job.model).folder).expanduser()

    def load_model(max_row_length: int) -> TrainableModel:
        with explain_out_of_memory(job.config, max_row_length, engine):
            return engine.load_model(job, base, group)

    lock = locks.hold_lock(checkpoints / "lock", f"training in {checkpoints}")
    with lock if group.is_main else contextlib.nullcontext():
        tracker = open_tracker(folder, training_id, job) if group.is_main else NullTracker()
        trainer = Trainer(
            job,
            checkpoints / training_id,
            group,
            load_model=load_model,
            tracker=tracker,
            callback=callback or TrainingCallback(),
        )
        with explain_out_of_memory(job.config, trainer.max_row_length, engine):
            summary = trainer.train()
        if group.is_main:
            _write_outputs(job, trainer, summary)


def training_fingerprint(job: TrainingJob, engine: TrainingEngine) -> str:
    """A name for everything that the result of a training depends on; its checkpoints are found by it."""
    settings = msgspec.to_builtins(job.config)
    for key in RESULT_NEUTRAL_KEYS:
        del settings[key]
    return fingerprint(
        settings | {"dtype": job.dtype, "seed": job.seed},
        [job.train_tokens, job.valid_tokens, job.model],
        code=engine.code,
        versions=engine.versions,
        rows=job.num_rows,
    )


def _write_outputs(job: TrainingJob, trainer: Trainer, summary: TrainingSummary) -> None:
    """Write the best adapter, the logs and, last, the summary."""
    outputs, folder = job.outputs, Path(job.outputs.summary).parent
    files.copy(validate_safetensors(trainer.best_adapter_path()), outputs.adapter)
    files.write_json(outputs.adapter_config, trainer.model.adapter_config)
    files.copy(trainer.logger.metrics.path, outputs.metrics)
    files.copy(trainer.logger.timing.path, folder / "timing.jsonl")
    files.write_json(folder / "timing.json", trainer.logger.training_timing())
    files.write_json(outputs.summary, summary)
    trainer.checkpoints.prune_other_trainings()


def assert_same_inputs(group: ProcessGroup, training_id: str) -> None:
    """Raise TrainingError in a worker that would train something else than the main process."""
    if group.broadcast_object(training_id, str) != training_id:
        raise TrainingError(
            f"worker {group.rank} has other rows, another base, other code or other versions than worker 0",
            where="train.hosts",
            why="Their gradients would be of different trainings",
            fix="Keep the project, its .venv and its models in folders that all hosts share",
        )


@contextlib.contextmanager
def explain_out_of_memory(config: TrainConfig, max_row_length: int, engine: TrainingEngine) -> Iterator[None]:
    """Turn a failed allocation into a ResourceError with the numbers and the three settings that would help most.

    max_row_length: of the longest row, in tokens.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(word in str(error).lower() for word in FAILURES):
            raise
        changes = memory_saving_changes(config, max_row_length, engine.four_bit_base())[:3]
        raise ResourceError(
            f"out of memory at a peak of {engine.peak_memory() / GB:.1f} GB, with micro-batches of up to "
            f"{config.batch_size} rows and rows of up to {max_row_length} tokens ({str(error).strip() or 'no memory'})",
            where="train",
            why="The last checkpoint is kept",
            fix=f"Try in this order: {'; '.join(f'{index}. {change}' for index, change in enumerate(changes, 1))}",
        ) from error


def memory_saving_changes(config: TrainConfig, max_row_length: int, four_bit_base: str) -> list[str]:
    """Settings that lower the peak, the cheapest first; four_bit_base: how the engine gets a base in four bits."""
    changes = []
    if config.batch_size > 1:
        half = config.batch_size // 2
        accumulation = -(-config.batch_size * config.gradient_accumulation_steps // half)
        changes.append(
            f"train.batch_size {half} with train.gradient_accumulation_steps {accumulation} "
            "(the same training in smaller pieces)"
        )
    if not config.gradient_checkpointing:
        changes.append("train.gradient_checkpointing true (the same training, a fifth slower)")
    if config.method == "full":
        changes.append("train.method lora")
    changes.append(f"{four_bit_base}, if the base is not quantized yet")
    changes.append(f"data.max_length {max_row_length // 2} (the longest rows are left out)")
    if config.method != "prompt":
        changes.append("train.num_layers 8 (only the last layers)")
    changes.append("a smaller model.base")
    return changes
