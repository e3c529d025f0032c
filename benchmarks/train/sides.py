"""One side of the comparison in a process of its own: `python sides.py SIDE WORK UPDATES` prints one line of JSON.

real_tokens are the rows' tokens without padding; seconds and cpu_seconds cover the updates after the first, without
loading; peak_bytes is the process's largest resident size.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import workload

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


class Meter:
    """Counts what happens after the first update."""

    def __init__(self) -> None:
        self.updates = self.real = self.trained = self.positions = 0
        self.began = self.began_cpu = 0.0

    def update(self, rows: list[tuple[list[int], int]], positions: int) -> None:
        """An update over these rows, which took so many positions, is done."""
        if self.began:
            self.real += sum(len(ids) for ids, _ in rows)
            self.trained += sum(len(ids) - prompt for ids, prompt in rows)
            self.positions += positions
            self.updates += 1
        else:
            self.began, self.began_cpu = time.monotonic(), time.process_time()

    def report(self, **more: float) -> dict[str, float]:
        return {
            "updates": self.updates,
            "real_tokens": self.real,
            "trained_tokens": self.trained,
            "positions_per_token": self.positions / max(1, self.real - self.updates * workload.BATCH),
            "seconds": time.monotonic() - self.began,
            "cpu_seconds": time.process_time() - self.began_cpu,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            **more,
        }


class Rows:
    """Rows as mlx-lm's data sets hold them: raw ones that are made into token ids when they are first asked for."""

    def __init__(self, rows: list[tuple[list[int], int]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, int]:
        return {"messages": number}

    def process(self, row: dict[str, int]) -> tuple[list[int], int]:
        return self.rows[row["messages"]]


def mlx_lm(work: Path, updates: int) -> dict[str, float]:
    """mlx-lm's own `train()` with its own batches and loss, prompt masked, as `mlx_lm.lora` calls it."""
    import mlx.optimizers
    import numpy as np
    from mlx_lm.tuner.callbacks import TrainingCallback
    from mlx_lm.tuner.datasets import CacheDataset
    from mlx_lm.tuner.trainer import TrainingArgs, iterate_batches, train
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    model, _ = load_model(work / "model")
    model.freeze()
    linear_to_lora_layers(model, -1, workload.LORA)
    rows = workload.rows()
    by_ids = {tuple(ids): (ids, prompt) for ids, prompt in rows}
    meter = Meter()
    last: list[tuple[list[tuple[list[int], int]], int]] = []

    def batches(**arguments):
        np.random.seed(workload.ORDER)
        for batch, lengths in iterate_batches(**arguments):
            if last:
                meter.update(*last.pop())
            ids = [row[: int(end)] for row, (_, end) in zip(batch.tolist(), lengths.tolist(), strict=True)]
            last.append(([by_ids[tuple(one)] for one in ids], batch[:, :-1].size))
            yield batch, lengths

    class Losses(TrainingCallback):
        def on_train_loss_report(self, info):
            self.loss = info["train_loss"]

    losses = Losses()
    options = TrainingArgs(
        batch_size=workload.BATCH,
        iters=updates,
        steps_per_report=updates,
        steps_per_save=10**9,
        max_seq_length=workload.LONGEST,
        adapter_file=str(work / "mlx_lm.safetensors"),
    )
    optimizer = mlx.optimizers.Adam(workload.RATE, bias_correction=True)
    train(model, optimizer, CacheDataset(Rows(rows)), args=options, iterate_batches=batches, training_callback=losses)
    meter.update(*last.pop())
    return meter.report(loss=losses.loss)


def mlx_lm_fast(work: Path, updates: int) -> dict[str, float]:
    """The same with the fast BLAS under it."""
    sys.path.insert(0, str(SCRIPTS))
    from snaketune.engines.mlx import capabilities

    capabilities.preload()
    return mlx_lm(work, updates)


class Outside:
    """CPU seconds of the calling thread within functions that are no part of the model's work."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def timed(*given: Any, **more: Any) -> Any:
            before = time.thread_time()
            result = plain(*given, **more)
            self.seconds += time.thread_time() - before
            return result

        setattr(owner, name, timed)


def ours(work: Path, updates: int, engine: str = "mlx", dtype: str = "float32") -> dict[str, float]:
    """snaketune's trainer with one of its engines, whole: with its log, its timing, and checkpoints at the end."""
    sys.path.insert(0, str(SCRIPTS))
    import tempfile

    from snaketune.runtime.step import ENGINE_VARIABLE, block_torch

    os.environ[ENGINE_VARIABLE] = engine
    block_torch()  # as in a step: mlx-lm's tokenizers would import it, and take memory for nothing
    from snaketune import files
    from snaketune.config.sections import TrainConfig, section
    from snaketune.contracts.train import StepMetrics, TrainingJob, TrainingOutputs
    from snaketune.engines import get_trainer
    from snaketune.runtime import step
    from snaketune.tokens.chat_template import Rendered
    from snaketune.tokens.token_store import TokenStore, write_store
    from snaketune.train import trainer
    from snaketune.train.batches import EpochSampler, MicroBatching
    from snaketune.train.metrics_log import JsonlLog, StatusLine, TrainingCallback

    if engine == "mlx":
        step.block_torch()  # as its steps do: transformers would import torch, and its memory would count
    rows = workload.rows()
    meter = Meter()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        rendered = [Rendered(ids, [i >= prompt for i in range(len(ids))]) for ids, prompt in rows]
        write_store(out / "train.safetensors", ((one, 1.0) for one in rendered))
        write_store(out / "valid.safetensors", ((one, 1.0) for one in rendered[:1]))
        files.write_json(
            out / "model.json",
            {
                "base": "demo",
                "revision": None,
                "commit": None,
                "quantize": None,
                "folder": str(work / "model"),
                "files": {},
            },
        )
        changed = {
            "rank": workload.LORA["rank"],
            "alpha": workload.LORA["scale"] * workload.LORA["rank"],
            "dropout": workload.LORA["dropout"],
            "batch_size": workload.BATCH,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": False,
            "max_steps": updates,
            "learning_rate": workload.RATE,
            "lr_scheduler": "constant",
            "warmup_steps": 0,
            "max_grad_norm": None,
            "optimizer": "adam",
            "eval_steps": 10**9,
        }
        job = TrainingJob(
            train_tokens=str(out / "train.safetensors"),
            valid_tokens=str(out / "valid.safetensors"),
            model=str(out / "model.json"),
            config=section(TrainConfig, **changed),
            dtype=dtype,
            seed=1,
            outputs=TrainingOutputs.in_folder(out),
        )
        loading = importlib.import_module(f"snaketune.engines.{engine}.loading")
        outside, load, train = Outside(), loading.load, get_trainer(engine)
        for owner, name in ((EpochSampler, "rows"), (MicroBatching, "split"), (trainer, "collate")):
            outside.time(owner, name)
        for owner, name in ((StatusLine, "show"), (JsonlLog, "write"), (EpochSampler, "epoch")):
            outside.time(owner, name)
        store = TokenStore(job.train_tokens)
        sampler = EpochSampler(store.lengths, store.weights, rows_per_step=workload.BATCH, seed=1, max_steps=updates)

        class Measure(TrainingCallback):
            """What the training took, without loading the model."""

            loading = ready = 0.0
            report: dict[str, float]

            def on_start(self, _num_steps: int) -> None:
                self.ready = time.process_time() - self.loading

            def on_step_end(self, metrics: StepMetrics) -> None:
                meter.update([rows[index] for index in sampler.rows(metrics.step)], 0)
                if metrics.step == 1:
                    outside.seconds = 0.0
                if metrics.step == updates:
                    figures = meter.report(loss=metrics.loss, start_seconds=self.ready)
                    self.report = figures | {"overhead": outside.seconds / figures["cpu_seconds"]}

        measure = Measure()

        def timed_load(*given: Any, **more: Any) -> Any:
            before = time.process_time()
            loaded = load(*given, **more)
            measure.loading += time.process_time() - before
            return loaded

        loading.load = timed_load
        report = train.train(job, measure)
        peak, measure.loading, before = meter.report()["peak_bytes"], 0.0, time.process_time()
        train.train(job, measure)  # resumes from the last checkpoint, and is done
        resumed = time.process_time() - before - measure.loading
        last = {
            "peak_bytes": peak,
            "positions_per_token": report.positions_per_token,
            "resume_seconds": resumed,
        }
        return measure.report | last


def transformers(work: Path, updates: int) -> dict[str, float]:
    """A plain loop over transformers and PEFT, the same rows in mlx-lm's batches."""
    import numpy as np
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(int(__import__("os").environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32)
    rank = workload.LORA["rank"]
    lora = peft.LoraConfig(r=rank, lora_alpha=workload.LORA["scale"] * rank, target_modules="all-linear")
    model = peft.get_peft_model(model, lora)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=workload.RATE)
    rows = workload.rows()
    np.random.seed(workload.ORDER)
    batches = [rows[at : at + workload.BATCH] for at in range(0, len(rows) - workload.BATCH + 1, workload.BATCH)]
    meter = Meter()
    for number in np.random.permutation(len(batches))[:updates]:
        batch = batches[number]
        width = max(len(ids) for ids, _ in batch)
        inputs = torch.zeros((len(batch), width), dtype=torch.long)
        labels = torch.full((len(batch), width), -100)
        for row, (ids, prompt) in enumerate(batch):
            inputs[row, : len(ids)] = torch.tensor(ids)
            labels[row, prompt : len(ids)] = torch.tensor(ids[prompt:])
        loss = model(input_ids=inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        meter.update(batch, inputs.numel())
    return meter.report(loss=float(loss))


SIDES = {
    "mlx_lm": mlx_lm,
    "mlx_lm_fast": mlx_lm_fast,
    "snaketune": ours,
    "transformers": transformers,
    "torch": lambda work, updates: ours(work, updates, "torch"),
    "torch_bfloat16": lambda work, updates: ours(work, updates, "torch", "bfloat16"),
}

if __name__ == "__main__":
    side, work, updates = sys.argv[1:4]
    found = SIDES[side](Path(work), int(updates))
    print(json.dumps(found))
