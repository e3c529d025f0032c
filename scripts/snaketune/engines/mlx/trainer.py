"""The training loop, from top to bottom.

Everything in it is a function of the settings, the rows and the update's number: which rows an update has, how they
are cut, its learning rate, its dropout. So a checkpoint is weights, optimizer state and a few counters, and a run that
was killed and started again ends in the same bytes as one that was not.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from snaketune import files
from snaketune.engines.mlx import checkpointed_blocks, loading, lora, memory, tensors
from snaketune.engines.mlx.loss import Loss
from snaketune.engines.mlx.optimizer import Optimizer, Packing
from snaketune.engines.mlx.process_group import Workers
from snaketune.engines.mlx.tensors import Weights
from snaketune.engines.mlx.training_logger import Going, Telling
from snaketune.errors import TrainingError
from snaketune.tokens.token_store import TokenStore
from snaketune.train import schedule, subset
from snaketune.train.batches import Batch, Visits, cutting_of, gather
from snaketune.train.checkpoints import Checkpoints
from snaketune.train.early_stopping import Best
from snaketune.train.signals import Interrupts, interrupted
from snaketune.train.state import Progress
from snaketune.train.tracking import Tracker

CHECKPOINT_SECONDS = 600.0  # a killed run loses at most so much, or what lies between two validations


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
        tracker: Tracker,
        workers: Workers,
    ) -> None:
        self.settings, self.train, self.valid, self.workers = settings, train, valid, workers
        self._check_rows()
        self.chosen = subset.first(train, len(train) if rows is None else rows, settings["seed"])
        self.visits = Visits(
            train.lengths[self.chosen],
            train.weights[self.chosen],
            rows_per_update=settings["batch_size"] * settings["gradient_accumulation_steps"],
            seed=settings["seed"],
            epochs=settings["epochs"],
            updates=settings["max_steps"],
        )
        self.longest = int(max(train.lengths.max(), valid.lengths.max()))
        cpu = mx.default_device() == mx.cpu
        self.cutting = cutting_of(settings, cpu)
        self.schedule = schedule.from_settings(settings, self.visits.updates)
        memory.limit(settings["memory_limit"])
        with memory.explaining(settings, self.longest):
            self._load(Path(base["folder"]).expanduser())
        self.checkpoints = Checkpoints(work, settings["save_total_limit"])
        self._resume()
        self.told = Telling(work, self.progress, self.visits, tracker, writes=workers.first)

    def _check_rows(self) -> None:
        if len(self.valid) == 0:
            raise TrainingError(
                "there is no row to validate on",
                where="data.split.valid",
                why="The best adapter is the one with the lowest validation loss",
                fix="Raise data.split.valid or add rows",
            )
        for store in (self.train, self.valid):
            empty = np.flatnonzero(store.targets == 0)
            if len(empty):
                raise TrainingError(
                    f"row {empty[0] + 1} of {len(store)} has no trained token",
                    where=str(store.path),
                    why="It would train nothing",
                    fix="Leave rows without an answer out of the data",
                )

    def _load(self, folder: Path) -> None:
        """The model, what is trained of it, and how the gradient is taken."""
        loaded = loading.load(folder, dtype=self.settings["dtype"])
        self.model = loaded.model
        self.config = lora.attach(self.model, self.settings, self.settings["seed"])
        self.trainable, self.total = lora.sizes(self.model)
        self.draws = checkpointed_blocks.Draws(self.settings["seed"], self.workers.number)
        checkpointed_blocks.prepare(self.model, self.draws, recompute=self.settings["gradient_checkpointing"])
        weights = tensors.flat(self.model.trainable_parameters())
        self.packing = Packing(weights, self.settings["optimizer"])
        self.weights = self.packing.pack(weights)
        self.optimizer = Optimizer(self.settings, self.weights)
        self.loss = Loss(self.model)
        self.gradient = mx.value_and_grad(self._share_of_loss)

    def _share_of_loss(self, weights: Weights, batch: Batch, all_targets: int) -> tuple[mx.array, mx.array]:
        """A micro-batch's part in the update's mean loss per target; first what is differentiated, then its value."""
        self.model.update(tensors.nested(self.packing.unpack(weights)))
        surrogate, loss = self.loss(batch)
        return surrogate / all_targets, loss / all_targets

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint, or start."""
        self.progress = Progress(
            Best(self.settings["early_stopping_patience"], self.settings["early_stopping_min_delta"])
        )
        found = self.checkpoints.newest() if self.workers.first else None
        if found:
            kept = tensors.read(found[1])
            self.weights = {name: kept[f"weights {name}"] for name in self.weights}
            self.optimizer.state = {name: kept[f"optimizer {name}"] for name in self.optimizer.state}
        self.weights = self.workers.given(self.weights)
        self.optimizer.state = self.workers.given(self.optimizer.state)
        state = self.workers.told(found[0] if found else None)
        if state:
            self.progress = Progress.restored(state)
            print(f"snaketune: going on from update {self.progress.update} of {self.visits.updates}", file=sys.stderr)

    def to_the_end(self) -> dict[str, Any]:
        """Train until the updates are done or patience is; returns the summary."""
        self.saved = time.monotonic()
        self.told.start()
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
                validates = progress.update % self.settings["eval_steps"] == 0 or self._is_last()
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
        self.told.close()
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
        parts, prompts = (
            self.cutting.cut(self.workers.share(rows), self.train.lengths),
            self.settings["train_on_prompts"],
        )
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
            if progress.skipped_in_a_row >= self.settings["max_nonfinite_steps"]:
                raise diverged(update, progress.skipped_in_a_row)
        self.told.update(going)

    def _validate(self) -> None:
        """The mean loss over every target of every validation row; the weights are kept if they are the best so far."""
        self.weights = self.workers.given(self.weights)
        progress, named = self.progress, self.packing.unpack(self.weights)
        self.model.update(tensors.nested(named))
        self.model.eval()
        total, targets = 0.0, 0
        for batch in self._validation_batches():
            total += float(self.loss.value(batch))
            targets += len(batch.targets)
        self.model.train()
        loss = self._mean(total, targets)
        if progress.base_loss is None:
            progress.base_loss = loss
        self.told.validation(loss)
        if progress.best.offer(progress.update, loss) and self.workers.first:
            with files.replacing(self.best_path()) as temporary:
                tensors.write(temporary, named)
        self.told.best()

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
        self.progress.metrics_size = self.told.metrics.size()
        kept = {f"weights {name}": array for name, array in self.weights.items()}
        kept |= {f"optimizer {name}": array for name, array in self.optimizer.state.items()}
        state = self.progress.state()
        self.checkpoints.save(state["update"], state, lambda path: tensors.write(path, kept), self.best_path())


def diverged(update: int, times: int) -> TrainingError:
    return TrainingError(
        f"loss or gradient were not finite {times} times in a row, up to update {update}",
        where="train.learning_rate",
        why="Nothing can be learned from that; the last good checkpoint is kept",
        fix="Lower train.learning_rate (to a third of it, at first), set train.max_grad_norm to 0.5, and use "
        "model.dtype bfloat16 or float32 rather than float16",
    )
