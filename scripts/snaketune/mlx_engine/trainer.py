"""The training loop, from top to bottom.

Everything in it is a function of the settings, the rows and the update's number: which rows an update has, how it is
cut, its learning rate, its dropout. So a checkpoint is weights, optimizer state and a few counters, and a run that was
killed and started again ends in the same bytes as one that was not.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from snaketune import files
from snaketune.digest import code_digest
from snaketune.errors import TrainingError
from snaketune.mlx_engine import adapters, arrays, loading
from snaketune.mlx_engine.arrays import Weights
from snaketune.mlx_engine.losses import Loss
from snaketune.mlx_engine.optimizers import Optimizer, Packing
from snaketune.model.base import read_manifest
from snaketune.model.store import TokenStore
from snaketune.train import schedule, subset
from snaketune.train.batches import Cutting, Visits, gather
from snaketune.train.checkpoints import Checkpoints, fingerprint
from snaketune.train.metrics import Line, Log, clock, short
from snaketune.train.stopping import Best


@dataclass
class Progress:
    """Where a training is; with weights and optimizer state, all that a checkpoint holds."""

    update: int = 0
    rows_seen: int = 0
    trained_tokens: int = 0
    read_tokens: int = 0
    positions: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    base_loss: float | None = None
    best: dict[str, Any] = field(default_factory=dict)
    metrics_size: int = 0


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
    """Train an adapter and write it, its config, the metrics and a summary (also returned).

    train_store, valid_store: token stores; manifest: the base model's; settings: the configuration's `train` section
    with `dtype` and `seed`; work: a folder for checkpoints; rows: how many training
    rows to use (subset.first), all by default.
    """
    base = read_manifest(manifest)
    identity = fingerprint(
        settings,
        [train_store, valid_store, manifest],
        code=code_digest(__file__),
        versions=[version("mlx"), version("mlx-lm")],
        rows=rows,
    )
    with files.holding(Path(work) / "lock", f"training in {work}"):
        run = Run(TokenStore(train_store), TokenStore(valid_store), base, settings, Path(work) / identity, rows)
        report = run.to_the_end()
        run.log.close()
        run.timing.close()
        files.write_json(summary, report)
        with files.replacing(metrics) as temporary:
            temporary.write_bytes(run.log.path.read_bytes())
        with files.replacing(Path(metrics).with_name("timing.jsonl")) as temporary:
            temporary.write_bytes(run.timing.path.read_bytes())
        files.write_json(Path(summary).with_name("timing.json"), run.timing_report())
        best = arrays.read(run.best_path())
        adapters.save(best, run.config, Path(adapter), Path(adapter_config))
        run.checkpoints.remove_others()
    return report


class Run:
    """One training: `to_the_end` is the loop, the other methods are its stages in order."""

    def __init__(
        self,
        train: TokenStore,
        valid: TokenStore,
        base: dict[str, Any],
        settings: dict[str, Any],
        work: Path,
        rows: int | None,
    ) -> None:
        self.settings, self.base, self.train_rows, self.valid_rows = settings, base, train, valid
        self.chosen = subset.first(train, len(train) if rows is None else rows, settings["seed"])
        self._refuse_rows_without_targets()
        self.visits = Visits(
            train.lengths[self.chosen],
            train.weights[self.chosen],
            rows_per_update=settings["batch_size"] * settings["accumulation"],
            seed=settings["seed"],
            epochs=settings["epochs"],
            updates=settings["updates"],
        )
        self.schedule = schedule.from_settings(settings, self.visits.updates)
        cpu = mx.default_device() == mx.cpu
        longest = int(max(train.lengths.max(), valid.lengths.max()))
        self.cutting = Cutting(
            settings["batch_size"],
            settings["batch_size"] * longest,
            multiple=1 if cpu else 32,
            overhead=64 if cpu else 512,
        )
        self.checkpoints = Checkpoints(work, settings["keep_checkpoints"])
        self._load()
        self._resume()
        self.log = Log(work / "metrics.jsonl", self.progress.metrics_size)
        self.timing = Log(work / "timing.jsonl")
        self.line = Line(self.visits.updates)

    def _refuse_rows_without_targets(self) -> None:
        if len(self.valid_rows) == 0:
            raise TrainingError(
                "there is no row to validate on",
                where="data.split.valid",
                why="The best adapter is the one with the lowest validation loss",
                mend="Raise data.split.valid or add rows",
            )
        for store in (self.train_rows, self.valid_rows):
            empty = np.flatnonzero(store.targets == 0)
            if len(empty):
                raise TrainingError(
                    f"row {empty[0] + 1} of {len(store)} has no trained token",
                    where=str(store.path),
                    why="It would train nothing and make a mean over nothing",
                    mend="Leave rows without an answer out of the data",
                )

    def _load(self) -> None:
        """The model, what is trained of it, and how its gradient is taken."""
        started = time.monotonic()
        loaded = loading.load(Path(self.base["folder"]).expanduser(), dtype=self.settings["dtype"])
        self.model = loaded.model
        self.config = adapters.attach(self.model, self.settings, self.settings["seed"])
        if self.settings["gradient_checkpointing"]:
            adapters.checkpoint_layers(self.model)
        text = loaded.config.get("text_config", loaded.config)
        self.loss = Loss(self.model, int(text.get("vocab_size") or loaded.config.get("vocab_size") or 32_000))
        weights = arrays.flat(self.model.trainable_parameters())
        self.packing = Packing(weights, self.settings["optimizer"])
        self.weights = self.packing.pack(weights)
        self.optimizer = Optimizer(self.settings, self.weights)
        self.trainable, self.total = adapters.sizes(self.model)
        self.load_seconds = time.monotonic() - started

        def scaled_loss(weights: Weights, inputs: mx.array, places: mx.array, targets: mx.array, share: float) -> Any:
            self.model.update(arrays.nested(self.packing.unpack(weights)))
            surrogate, loss = self.loss(self.model, inputs, places, targets)
            return surrogate * share, loss * share

        self.gradient = mx.value_and_grad(scaled_loss)

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint, or start."""
        self.progress, self.resumed = Progress(), 0
        self.best = Best(self.settings["patience"], self.settings["minimum_gain"])
        found = self.checkpoints.newest()
        if found is None:
            return
        state, tensors = found
        self.progress = Progress(**state)
        self.best = Best(**self.progress.best)
        self.resumed = self.progress.update
        kept = arrays.read(tensors)
        self.weights = {name: kept[f"weights {name}"] for name in self.weights}
        self.optimizer.state = {name: kept[f"optimizer {name}"] for name in self.optimizer.state}
        print(f"snaketune: going on from update {self.resumed} of {self.visits.updates}", file=sys.stderr)

    def to_the_end(self) -> dict[str, Any]:
        """Train until the updates are done or patience is; returns the summary."""
        self.started = time.monotonic()
        self.tokens_at_start = self.progress.trained_tokens
        with Interrupts() as interrupts:
            self.loss.check(self.model, gather(self.train_rows, self.chosen[:1], self.cutting))
            if self.progress.base_loss is None:
                self._validate()
                self._checkpoint()
            stopped = "all updates done"
            pending: tuple[Any, ...] | None = None
            while self.progress.update < self.visits.updates:
                if self.best.exhausted:
                    stopped = f"{self.best.patience} validations without a gain"
                    break
                dispatched = self._update(self.progress.update + 1)
                if pending:
                    self._note(*pending)  # while the next one is being computed
                pending = dispatched
                due = self.progress.update % self.settings["validate_every"] == 0
                last = self.progress.update == self.visits.updates
                if due or last or interrupts.seen:
                    self._note(*pending)
                    pending = None
                    if due or last:
                        self._validate()
                    self._checkpoint()
                if interrupts.seen and not last:
                    raise interrupts.error(self.progress.update)
        return self._summary(stopped)

    def _update(self, update: int) -> tuple[Any, ...]:
        """Set one update going; what comes back is still being computed."""
        mx.random.seed(self.settings["seed"] * 1_000_003 + update)
        rows = self.chosen[self.visits.rows(update)]
        share = 1 / int(self.train_rows.targets[rows].sum())
        gradients: Weights = {}
        total = mx.array(0.0)
        positions = read = 0
        for part in self.cutting.cut(rows, self.train_rows.lengths):
            batch = gather(self.train_rows, part, self.cutting)
            (_, loss), found = self.gradient(
                self.weights, mx.array(batch.inputs), mx.array(batch.places), mx.array(batch.targets), share
            )
            gradients = {name: gradients[name] + one if gradients else one for name, one in found.items()}
            total = total + loss
            positions, read = positions + batch.positions, read + batch.tokens
            mx.async_eval(gradients, total)
        rate = self.schedule(update)
        self.weights, norm, sound = self.optimizer.step(self.weights, gradients, total, rate)
        mx.async_eval(self.weights, self.optimizer.state, total, norm, sound)
        progress = self.progress
        progress.update = update
        progress.rows_seen += len(rows)
        progress.trained_tokens += round(1 / share)
        progress.read_tokens += read
        progress.positions += positions
        return update, rate, round(1 / share), positions, read, total, norm, sound

    def _note(
        self, update: int, rate: float, trained: int, positions: int, read: int, loss: Any, norm: Any, sound: Any
    ) -> None:
        """Wait for an update, log it, and count it if it was skipped."""
        progress = self.progress
        if sound.item():
            progress.skipped_in_a_row = 0
        else:
            progress.skipped += 1
            progress.skipped_in_a_row += 1
            print(f"snaketune: update {update} skipped: its loss or gradient is not finite", file=sys.stderr)
            if progress.skipped_in_a_row >= self.settings["max_skipped"]:
                raise self._diverged(update)
        epoch = self.visits.epoch(update)
        fields = {
            "update": update,
            "epoch": short(epoch),
            "loss": short(loss.item()),
            "learning_rate": short(rate),
            "gradient_norm": short(norm.item()),
            "trained_tokens": trained,
            "padding": short(1 - read / positions, 4),
        }
        self.log.write(**fields)
        seconds = time.monotonic() - self.started
        speed = (progress.trained_tokens - self.tokens_at_start) / max(seconds, 1e-9)
        left = seconds / max(1, update - self.resumed) * (self.visits.updates - update)
        memory = mx.get_peak_memory()
        self.timing.write(update=update, seconds=round(seconds, 3), peak_memory_bytes=memory)
        best = f"{self.best.loss:.4f} at {self.best.update}"
        self.line.show(
            f"update {update}/{self.visits.updates} epoch {epoch:.2f} loss {fields['loss']} best {best} "
            f"lr {rate:.2e} norm {fields['gradient_norm']} {speed:.0f} trained tokens/s "
            f"padding {fields['padding']:.1%} memory {memory / 1e9:.2f} GB left {clock(left)}"
        )

    def _validate(self) -> None:
        """The mean loss over every target of every validation row; keep the weights if they are the best so far."""
        self.model.update(arrays.nested(self.packing.unpack(self.weights)))
        self.model.eval()
        total = 0.0
        lengths = self.valid_rows.lengths
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), 64):
            for part in self.cutting.cut(order[start : start + 64], lengths):
                batch = gather(self.valid_rows, part, self.cutting)
                total += self.loss.value(self.model, batch).item()  # type: ignore[assignment, operator]
        self.model.train()
        loss = total / int(self.valid_rows.targets.sum())
        update = self.progress.update
        if self.progress.base_loss is None:
            self.progress.base_loss = loss
        self.log.write(update=update, validation_loss=short(loss))
        if self.best.offer(update, loss):
            weights = self.packing.unpack(self.weights)
            with files.replacing(self.best_path()) as temporary:
                arrays.write(temporary, weights)
        self.line.show(
            f"update {update}/{self.visits.updates} validation loss {loss:.4f}, "
            f"best {self.best.loss:.4f} at update {self.best.update}",
            now=True,
        )

    def best_path(self) -> Path:
        return self.checkpoints.folder / f"best-{self.best.update:08d}.safetensors"

    def _checkpoint(self) -> None:
        self.progress.metrics_size = self.log.size()
        self.progress.best = asdict(self.best)
        kept = {f"weights {name}": array for name, array in self.weights.items()}
        kept |= {f"optimizer {name}": array for name, array in self.optimizer.state.items()}
        self.checkpoints.save(self.progress.update, asdict(self.progress), lambda path: arrays.write(path, kept))
        for old in self.checkpoints.folder.glob("best-*.safetensors"):
            if old != self.best_path():
                old.unlink()

    def _diverged(self, update: int) -> TrainingError:
        return TrainingError(
            f"loss or gradient were not finite {self.progress.skipped_in_a_row} times in a row, up to update {update}",
            where="train.learning_rate",
            why="Nothing more can be learned; the last good checkpoint is kept",
            mend="Lower train.learning_rate (to a third of it, at first), set train.clip to 0.5, and use model.dtype "
            "bfloat16 or float32 rather than float16",
        )

    def _summary(self, stopped: str) -> dict[str, Any]:
        progress, times = self.progress, self.visits.times(self.progress.update)
        return {
            "updates": progress.update,
            "planned_updates": self.visits.updates,
            "epochs": short(self.visits.epoch(progress.update)),
            "rows": len(self.chosen),
            "rows_seen": progress.rows_seen,
            "times_each_row_was_seen": {
                "least": int(times.min()),
                "most": int(times.max()),
                "mean": short(float(times.mean())),
            },
            "trained_tokens": progress.trained_tokens,
            "positions_per_token": short(progress.positions / max(1, progress.read_tokens), 5),
            "base_validation_loss": short(progress.base_loss or 0.0),
            "best_validation_loss": short(self.best.loss),
            "best_update": self.best.update,
            "skipped_updates": progress.skipped,
            "stopped": stopped,
            "trainable_parameters": self.trainable,
            "total_parameters": self.total,
            "validation_rows": len(self.valid_rows),
            "validation_tokens": int(self.valid_rows.targets.sum()),
            "method": self.settings["method"],
            "seed": self.settings["seed"],
        }

    def timing_report(self) -> dict[str, Any]:
        """What depends on the machine and the moment, kept apart from the summary."""
        seconds = time.monotonic() - self.started
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "seconds": round(seconds, 3),
            "load_seconds": round(self.load_seconds, 3),
            "resumed_from": self.resumed,
            "tokens_per_second": round((self.progress.trained_tokens - self.tokens_at_start) / max(seconds, 1e-9), 1),
            "peak_memory_bytes": mx.get_peak_memory(),
            "peak_resident_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        }


class Interrupts:
    """SIGINT and SIGTERM end the training after the update at hand, with a checkpoint, instead of in the middle."""

    def __init__(self) -> None:
        self.seen = 0

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: object) -> None:
        if self.seen:  # a second one means now
            raise KeyboardInterrupt
        self.seen = number

    def error(self, update: int) -> TrainingError:
        return TrainingError(
            f"stopped by {signal.Signals(self.seen).name} after update {update}; a checkpoint is saved",
            mend="Run snakemake again: training goes on from there",
        )
