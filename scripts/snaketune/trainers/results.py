"""What a trainer of the field leaves: its adapter in our format, its losses by our count, and the record of how."""

from __future__ import annotations

from pathlib import Path

import msgspec

from snaketune import files
from snaketune.contracts.train import TrainerRecord, TrainingJob, TrainingSummary
from snaketune.contracts.trainers import TrainerEvent, TrainerRequest
from snaketune.engines import load_model
from snaketune.engines.interface import LoadOptions, LoglikelihoodRequest
from snaketune.errors import TrainingError
from snaketune.files import Record
from snaketune.tokens.token_store import TokenStore
from snaketune.train import peft_format
from snaketune.train.checkpoints import ParameterCounts, summarize
from snaketune.train.metrics_log import round_significant
from snaketune.trainers import describe
from snaketune.trainers.description import TrainingPlan
from snaketune.trainers.process import Outcome
from snaketune.trainers.progress import Progress


class MlxLmConfig(Record, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What matters here of an adapter_config.json that mlx-lm or Unsloth wrote."""

    lora_parameters: dict[str, object]


def write(
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
