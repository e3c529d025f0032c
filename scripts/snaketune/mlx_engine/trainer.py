"""The training loop, from top to bottom.

Everything in it is a function of the settings, the rows and the update's number: which rows an update has, how they
are cut, its learning rate, its dropout. So a checkpoint is weights, optimizer state and a few counters, and a run that
was killed and started again ends in the same bytes as one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from snaketune import files, locks
from snaketune.digest import code_digest
from snaketune.errors import TrainingError
from snaketune.mlx_engine import adapters, arrays, blocks, launching, loading, memory
from snaketune.mlx_engine.arrays import Weights
from snaketune.mlx_engine.losses import Loss
from snaketune.mlx_engine.optimizers import Optimizer, Packing
from snaketune.mlx_engine.workers import Workers
from snaketune.model.base import read_manifest
from snaketune.model.store import TokenStore
from snaketune.train import around, schedule, subset, tracking
from snaketune.train.batches import Batch, Visits, cutting_of, gather
from snaketune.train.checkpoints import WITHOUT_EFFECT, Checkpoints, fingerprint
from snaketune.train.interrupts import Interrupts, interrupted
from snaketune.train.metrics import Line, Log, Nowhere, clock, short
from snaketune.train.progress import Progress
from snaketune.train.stopping import Best
from snaketune.train.tracking import Tracker

CHECKPOINT_SECONDS = 600.0  # a killed run loses at most so much, or what lies between two validations


def train(
    train_store: files.StrPath,
    valid_store: files.StrPath,
    manifest: files.StrPath,
    settings: dict[str, Any],
    *,
    adapter: files.StrPath,
    adapter_config: files.StrPath,
    metrics: files.StrPath,
    summary: files.StrPath,
    work: files.StrPath,
    rows: int | None = None,
) -> dict[str, Any]:
    """Train an adapter; write it, its config, the metrics and a summary, which is also returned.

    train_store, valid_store: token stores; manifest: the base model's; settings: the configuration's `train` section
    with `dtype` and `seed`; work: a folder for checkpoints; rows: how many training rows to use (subset.first), all by
    default. timing.json and timing.jsonl, which depend on the machine and the moment, go beside the summary.
    """
    given: dict[str, Any] = {
        "train_store": train_store,
        "valid_store": valid_store,
        "manifest": manifest,
        "settings": settings,
        "adapter": adapter,
        "adapter_config": adapter_config,
        "metrics": metrics,
        "summary": summary,
        "work": work,
        "rows": rows,
    }
    with around.notifying(settings["notify"]["command"], str(Path(summary).parent)), around.awake():
        if settings["workers"] > 1:
            launching.train(given)
        else:
            train_part(**given, workers=Workers())
    found: dict[str, Any] = files.read_json(summary)
    return found


def train_part(
    *,
    train_store: files.StrPath,
    valid_store: files.StrPath,
    manifest: files.StrPath,
    settings: dict[str, Any],
    adapter: files.StrPath,
    adapter_config: files.StrPath,
    metrics: files.StrPath,
    summary: files.StrPath,
    work: files.StrPath,
    rows: int | None,
    workers: Workers,
) -> None:
    """One worker's part of `train`, which is all of it where there is one; the first of them writes."""
    work, beside = Path(work), Path(summary).parent
    base = read_manifest(manifest)
    identity = fingerprint(
        {key: value for key, value in settings.items() if key not in WITHOUT_EFFECT},
        [train_store, valid_store, manifest],
        code=code_digest(__file__),
        versions=[version("mlx"), version("mlx-lm")],
        rows=rows,
    )
    _check_same(workers, identity)
    with locks.holding(work / "lock", f"training in {work}") if workers.first else contextlib.nullcontext():
        follower = tracking.tracker(settings["track"] if workers.first else None, beside, identity, settings)
        stores = TokenStore(train_store), TokenStore(valid_store)
        run = Run(*stores, base, settings, work / identity, rows, follower, workers)
        with memory.explaining(settings, run.longest):
            report = run.to_the_end()
        if not workers.first:
            return
        adapters.save(arrays.read(run.best_path()), run.config, Path(adapter), Path(adapter_config))
        files.copy(run.log.path, metrics)
        files.copy(run.timing.path, beside / "timing.jsonl")
        files.write_json(beside / "timing.json", run.timing_report())
        files.write_json(summary, report)
        run.checkpoints.remove_others()


def _check_same(workers: Workers, identity: str) -> None:
    """Raises TrainingError in a worker that would train something else than the first."""
    if workers.told(identity) != identity:
        raise TrainingError(
            f"worker {workers.number} has other rows, another base, other code or other versions than worker 0",
            where="train.hosts",
            why="Their gradients would be of different trainings",
            mend="Keep the project, its .venv and its models in folders that all hosts share",
        )


@dataclasses.dataclass
class Going:
    """An update that has been set going; its last three numbers are still being computed."""

    update: int
    rate: float
    trained: int
    padding: float
    loss: mx.array
    norm: mx.array
    sound: mx.array


class Run:
    """One training: made ready by the constructor's stages, then `to_the_end`, the loop."""

    def __init__(
        self,
        train: TokenStore,
        valid: TokenStore,
        base: dict[str, Any],
        settings: dict[str, Any],
        work: Path,
        rows: int | None,
        follower: Tracker,
        workers: Workers,
    ) -> None:
        self.settings, self.train, self.valid, self.tracker = settings, train, valid, follower
        self.workers = workers
        self._check_rows()
        self.chosen = subset.first(train, len(train) if rows is None else rows, settings["seed"])
        self.visits = Visits(
            train.lengths[self.chosen],
            train.weights[self.chosen],
            rows_per_update=settings["batch_size"] * settings["accumulation"],
            seed=settings["seed"],
            epochs=settings["epochs"],
            updates=settings["updates"],
        )
        self.longest = int(max(train.lengths.max(), valid.lengths.max()))
        cpu = mx.default_device() == mx.cpu
        self.cutting = cutting_of(settings, cpu)
        self.schedule = schedule.from_settings(settings, self.visits.updates)
        memory.limit(settings["memory_limit"])
        with memory.explaining(settings, self.longest):
            self._load(Path(base["folder"]).expanduser())
        self.checkpoints = Checkpoints(work, settings["keep_checkpoints"])
        self._resume()
        self._open_logs(work)
        self.line = Line()

    def _open_logs(self, work: Path) -> None:
        self.log: Log = Nowhere()
        self.timing: Log = Nowhere()
        if self.workers.first:
            self.log = Log(work / "metrics.jsonl", self.progress.metrics_size)
            timing = work / "timing.jsonl"  # lines from before a resumption stay: they tell how long an update takes
            self.timing = Log(timing, timing.stat().st_size if timing.exists() else 0)

    def _check_rows(self) -> None:
        if len(self.valid) == 0:
            raise TrainingError(
                "there is no row to validate on",
                where="data.split.valid",
                why="The best adapter is the one with the lowest validation loss",
                mend="Raise data.split.valid or add rows",
            )
        for store in (self.train, self.valid):
            empty = np.flatnonzero(store.targets == 0)
            if len(empty):
                raise TrainingError(
                    f"row {empty[0] + 1} of {len(store)} has no trained token",
                    where=str(store.path),
                    why="It would train nothing",
                    mend="Leave rows without an answer out of the data",
                )

    def _load(self, folder: Path) -> None:
        """The model, what is trained of it, and how the gradient is taken."""
        loaded = loading.load(folder, dtype=self.settings["dtype"])
        self.model = loaded.model
        self.config = adapters.attach(self.model, self.settings, self.settings["seed"])
        self.trainable, self.total = adapters.sizes(self.model)
        self.draws = blocks.Draws(self.settings["seed"], self.workers.number)
        blocks.prepare(self.model, self.draws, recompute=self.settings["gradient_checkpointing"])
        weights = arrays.flat(self.model.trainable_parameters())
        self.packing = Packing(weights, self.settings["optimizer"])
        self.weights = self.packing.pack(weights)
        self.optimizer = Optimizer(self.settings, self.weights)
        self.loss = Loss(self.model)
        self.gradient = mx.value_and_grad(self._share_of_loss)

    def _share_of_loss(self, weights: Weights, batch: Batch, all_targets: int) -> tuple[mx.array, mx.array]:
        """A micro-batch's part in the update's mean loss per target; first what is differentiated, then its value."""
        self.model.update(arrays.nested(self.packing.unpack(weights)))
        surrogate, loss = self.loss(batch)
        return surrogate / all_targets, loss / all_targets

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint, or start."""
        self.progress = Progress(Best(self.settings["patience"], self.settings["minimum_gain"]))
        found = self.checkpoints.newest() if self.workers.first else None
        if found:
            kept = arrays.read(found[1])
            self.weights = {name: kept[f"weights {name}"] for name in self.weights}
            self.optimizer.state = {name: kept[f"optimizer {name}"] for name in self.optimizer.state}
        self.weights = self.workers.given(self.weights)
        self.optimizer.state = self.workers.given(self.optimizer.state)
        state = self.workers.told(found[0] if found else None)
        if state:
            self.progress = Progress.restored(state)
            print(f"snaketune: going on from update {self.progress.update} of {self.visits.updates}", file=sys.stderr)
        self.validated = self.progress.best.loss  # the last validation; after a resumption, the best until the next
        self.resumed_from, self.resumed_tokens = self.progress.update, self.progress.trained_tokens

    def to_the_end(self) -> dict[str, Any]:
        """Train until the updates are done or patience is; returns the summary."""
        self.started = self.saved = time.monotonic()
        progress, stopped, going = self.progress, "all updates done", None
        self._check_loss()
        with Interrupts() as interrupts:
            if progress.base_loss is None:
                self._validate()
                self._save()
            while progress.update < self.visits.updates:
                if progress.best.exhausted:
                    stopped = f"{progress.best.patience} validations in a row without a gain"
                    break
                before, going = going, self._update(progress.update + 1)
                if before:
                    self._note(before)  # while the update after it is being computed
                validates = progress.update % self.settings["validate_every"] == 0 or self._is_last()
                due = time.monotonic() - self.saved > CHECKPOINT_SECONDS
                asked = interrupts.seen or self.workers.asked_to_stop
                asked, late = self.workers.most(asked, int(due))
                if validates or asked or late:
                    self._note(going)
                    going = None
                    if validates:
                        self._validate()
                    self._save()
                if asked and not self._is_last():
                    raise interrupted(asked, progress.update)
        for one in (self.log, self.timing, self.tracker):
            one.close()
        return progress.summary(
            self.visits,
            stopped,
            trainable_parameters=self.trainable,
            total_parameters=self.total,
            validation_rows=len(self.valid),
            validation_tokens=int(self.valid.targets.sum()),
            method=self.settings["method"],
            seed=self.settings["seed"],
        )

    def _check_loss(self) -> None:
        """See on the first update's rows whether the head runs on trained positions alone, and rows can be packed."""
        alone = dataclasses.replace(self.cutting, packed=False)
        self.loss.check(gather(self.train, self.chosen[:1], alone))
        if self.cutting.packed:
            rows = max(self.cutting.cut(self.chosen[self.visits.rows(1)], self.train.lengths), key=len)
            if len(rows) == 1:  # a later update may have shorter ones, which pack
                rows = self.chosen[np.argsort(self.train.lengths[self.chosen], kind="stable")[:2]]
            singly = [gather(self.train, rows[n : n + 1], alone) for n in range(len(rows))]
            if not self.loss.packs(gather(self.train, rows, self.cutting), singly):
                self.cutting = alone

    def _is_last(self) -> bool:
        return self.progress.update == self.visits.updates

    def _update(self, update: int) -> Going:
        """Set one update going: the gradient of the mean over all its targets, whatever its micro-batches."""
        self.draws.start(update)
        rows = self.chosen[self.visits.rows(update)]
        parts, prompts = self.cutting.cut(self.workers.share(rows), self.train.lengths), self.settings["prompts"]
        batches = [gather(self.train, part, self.cutting, prompts=prompts) for part in parts]
        targets, read, positions = self.workers.counts(
            sum(len(batch.targets) for batch in batches),
            sum(batch.tokens for batch in batches),
            sum(batch.positions for batch in batches),
        )
        gradients: Weights = {}
        loss = mx.array(0.0)
        for batch in batches:
            (_, share), found = self.gradient(self.weights, batch, targets)
            gradients = {name: gradients[name] + one if gradients else one for name, one in found.items()}
            loss = loss + share
            mx.async_eval(gradients, loss)
        gradients, loss = self._summed(gradients, loss)
        rate = self.schedule(update)
        self.weights, norm, sound = self.optimizer.step(self.weights, gradients, loss, rate)
        mx.async_eval(self.weights, self.optimizer.state, loss, norm, sound)
        self.progress.update = update
        self.progress.rows_seen += len(rows)
        self.progress.trained_tokens += targets
        self.progress.read_tokens += read
        self.progress.positions += positions
        return Going(update, rate, targets, 1 - read / positions, loss, norm, sound)

    def _summed(self, gradients: Weights, loss: mx.array) -> tuple[Weights, mx.array]:
        """The same over all workers; one that had no row of a short last update adds nothing."""
        mine = gradients or {name: mx.zeros_like(one) for name, one in self.weights.items()}
        return self.workers.summed(mine), self.workers.summed({"loss": loss})["loss"]

    def _note(self, going: Going) -> None:
        """Wait for an update, count it if it was skipped, and say how it went."""
        progress, update = self.progress, going.update
        if going.sound.item():
            progress.skipped_in_a_row = 0
        else:
            progress.skipped += 1
            progress.skipped_in_a_row += 1
            print(f"snaketune: update {update} is skipped: loss or gradient are not finite", file=sys.stderr)
            if progress.skipped_in_a_row >= self.settings["max_skipped"]:
                raise diverged(update, progress.skipped_in_a_row)
        loss, norm, epoch = float(going.loss), float(going.norm), self.visits.epoch(update)
        self.log.write(
            update=update,
            epoch=short(epoch),
            loss=short(loss),
            learning_rate=short(going.rate),
            gradient_norm=short(norm),
            trained_tokens=going.trained,
            padding=short(going.padding, 4),
        )
        seconds, peak = time.monotonic() - self.started, mx.get_peak_memory()
        self.timing.write(
            update=update,
            seconds=round(seconds, 3),
            cpu_seconds=round(time.process_time(), 3),
            peak_memory_bytes=peak,
        )
        speed = (progress.trained_tokens - self.resumed_tokens) / seconds
        numbers = {"loss": loss, "learning_rate": going.rate, "gradient_norm": norm, "epoch": epoch}
        numbers |= {"padding": going.padding, "trained_tokens_per_second": speed, "memory_gb": peak / memory.GB}
        self.tracker.log(update, numbers)
        left = seconds / (progress.update - self.resumed_from) * (self.visits.updates - update)
        self.line.show(
            f"update {update}/{self.visits.updates}  epoch {epoch:.2f}  loss {loss:.4f}  "
            f"validation {self.validated:.4f} best {progress.best.loss:.4f}  lr {going.rate:.1e}  norm {norm:.2f}  "
            f"{speed:.0f} trained tokens/s  padding {going.padding:.0%}  {peak / memory.GB:.2f} GB  {clock(left)} left"
        )

    def _validate(self) -> None:
        """The mean loss over every target of every validation row; the weights are kept if they are the best so far."""
        self.weights = self.workers.given(self.weights)
        progress, named = self.progress, self.packing.unpack(self.weights)
        self.model.update(arrays.nested(named))
        self.model.eval()
        total, targets = 0.0, 0
        for batch in self._validation_batches():
            total += float(self.loss.value(batch))
            targets += len(batch.targets)
        self.model.train()
        loss, update = self._mean(total, targets), progress.update
        self.validated = loss
        if progress.base_loss is None:
            progress.base_loss = loss
        self.log.write(update=update, validation_loss=short(loss))
        self.tracker.log(update, {"validation_loss": loss})
        if progress.best.offer(update, loss) and self.workers.first:
            with files.replacing(self.best_path()) as temporary:
                arrays.write(temporary, named)
        self.line.show(
            f"update {update}/{self.visits.updates}  validation loss {loss:.4f}  "
            f"best {progress.best.loss:.4f} at update {progress.best.update}",
            now=True,
        )

    def _mean(self, total: float, targets: int) -> float:
        """The mean over all workers' targets of their total losses."""
        if self.workers.count == 1:
            return total / targets
        (targets,) = self.workers.counts(targets)
        found: float = self.workers.told(self.workers.summed({"loss": mx.array(total)})["loss"].item() / targets)
        return found

    def _validation_batches(self) -> Iterator[Batch]:
        order, cutting = np.argsort(self.valid.lengths, kind="stable"), dataclasses.replace(self.cutting, packed=False)
        for start in range(0, len(order), 64):
            for part in self.workers.share(cutting.cut(order[start : start + 64], self.valid.lengths)):
                yield gather(self.valid, part, cutting)

    def best_path(self) -> Path:
        return self.checkpoints.folder / f"best-{self.progress.best.update:08d}.safetensors"

    def _save(self) -> None:
        self.saved = time.monotonic()
        if not self.workers.first:
            return
        self.progress.metrics_size = self.log.size()
        kept = {f"weights {name}": array for name, array in self.weights.items()}
        kept |= {f"optimizer {name}": array for name, array in self.optimizer.state.items()}
        state = self.progress.state()
        self.checkpoints.save(state["update"], state, lambda path: arrays.write(path, kept), self.best_path())

    def timing_report(self) -> dict[str, Any]:
        """What depends on the machine and the moment; of the last resumption alone."""
        seconds = time.monotonic() - self.started
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "seconds": round(seconds, 3),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
            "tokens_per_second": round((self.progress.trained_tokens - self.resumed_tokens) / seconds, 1),
            "peak_memory_bytes": mx.get_peak_memory(),
            "peak_resident_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            "resumed_from": self.resumed_from,
        }


def diverged(update: int, times: int) -> TrainingError:
    return TrainingError(
        f"loss or gradient were not finite {times} times in a row, up to update {update}",
        where="train.learning_rate",
        why="Nothing can be learned from that; the last good checkpoint is kept",
        mend="Lower train.learning_rate (to a third of it, at first), set train.clip to 0.5, and use model.dtype "
        "bfloat16 or float32 rather than float16",
    )
