"""Trains an adapter: from a job to its files and summary; the loop itself is `loop.Trainer`.

Several worker processes each run a part of it (`train_worker`); where there is one, its part is the whole.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import version
from pathlib import Path

import msgspec

from snaketune import files
from snaketune.config.sections import RESULT_NEUTRAL_KEYS
from snaketune.contracts.train import TrainingJob, TrainingSummary
from snaketune.engines.mlx import launcher, loading, lora, memory
from snaketune.engines.mlx.process_group import ProcessGroup
from snaketune.engines.mlx.trainer import Trainer
from snaketune.errors import TrainingError
from snaketune.runtime import locks
from snaketune.runtime.code_digest import code_digest
from snaketune.train.checkpoints import fingerprint
from snaketune.train.metrics_log import TrainingCallback
from snaketune.train.tracking import NullTracker, keep_awake, notify_on_exit, open_tracker


def train(job: TrainingJob, callback: TrainingCallback | None = None) -> TrainingSummary:
    """Run a training, on as many processes as `job.config.workers` says; writes `job.outputs`.

    Raises TrainingError, ConfigError or ResourceError with what to do; a later call resumes from the last checkpoint.
    """
    folder = Path(job.outputs.summary).parent
    callback = callback or TrainingCallback()
    with notify_on_exit(job.config.notify.command, str(folder)), keep_awake():
        if job.config.workers > 1:
            launcher.train(job, callback)
        else:
            train_worker(job, ProcessGroup(), callback)
    return files.read_json(job.outputs.summary, TrainingSummary)


def train_worker(job: TrainingJob, group: ProcessGroup, callback: TrainingCallback | None = None) -> None:
    """Run one process's part of a training; the main process writes the files."""
    checkpoints, folder = Path(job.outputs.checkpoints), Path(job.outputs.summary).parent
    training_id = training_fingerprint(job)
    assert_same_inputs(group, training_id)
    lock = locks.hold_lock(checkpoints / "lock", f"training in {checkpoints}")
    with lock if group.is_main else contextlib.nullcontext():
        tracker = open_tracker(folder, training_id, job) if group.is_main else NullTracker()
        trainer = Trainer(
            job, checkpoints / training_id, group, tracker=tracker, callback=callback or TrainingCallback()
        )
        with memory.explain_out_of_memory(job.config, trainer.max_row_length):
            summary = trainer.train()
        if group.is_main:
            _write_outputs(job, trainer, summary)


def training_fingerprint(job: TrainingJob) -> str:
    """A name for everything that the result of a training depends on; its checkpoints are found by it."""
    settings = msgspec.to_builtins(job.config)
    for key in RESULT_NEUTRAL_KEYS:
        del settings[key]
    return fingerprint(
        settings | {"dtype": job.dtype, "seed": job.seed},
        [job.train_tokens, job.valid_tokens, job.model],
        code=code_digest(__file__),
        versions=[version("mlx"), version("mlx-lm")],
        rows=job.num_rows,
    )


def _write_outputs(job: TrainingJob, trainer: Trainer, summary: TrainingSummary) -> None:
    """Write the best adapter, the logs and, last, the summary."""
    outputs, folder = job.outputs, Path(job.outputs.summary).parent
    best = loading.load_safetensors(trainer.best_adapter_path())
    lora.save_adapter(best, trainer.adapter_config, Path(outputs.adapter), Path(outputs.adapter_config))
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
