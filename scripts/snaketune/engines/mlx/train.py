"""Training, from token stores to an adapter and its summary; the loop itself is in loop.py.

Several workers each do a part of it; where there is one, its part is all.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from snaketune import files
from snaketune.engines.mlx import launcher, lora, memory, tensors
from snaketune.engines.mlx.process_group import Workers
from snaketune.engines.mlx.trainer import Run
from snaketune.errors import TrainingError
from snaketune.model.manifest import read_manifest
from snaketune.runtime import locks
from snaketune.runtime.code_digest import code_digest
from snaketune.tokens.token_store import TokenStore
from snaketune.train import notifications, tracking
from snaketune.train.checkpoints import WITHOUT_EFFECT, fingerprint


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
    with notifications.notifying(settings["notify"]["command"], str(Path(summary).parent)), notifications.awake():
        if settings["workers"] > 1:
            launcher.train(given)
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
    with locks.hold_lock(work / "lock", f"training in {work}") if workers.first else contextlib.nullcontext():
        follower = tracking.tracker(settings["report_to"] if workers.first else None, beside, identity, settings)
        stores = TokenStore(train_store), TokenStore(valid_store)
        run = Run(*stores, base, settings, work / identity, rows, follower, workers)
        with memory.explaining(settings, run.longest):
            report = run.to_the_end()
        if not workers.first:
            return
        lora.save(tensors.read(run.best_path()), run.config, Path(adapter), Path(adapter_config))
        files.copy(run.told.metrics.path, metrics)
        files.copy(run.told.timing.path, beside / "timing.jsonl")
        files.write_json(beside / "timing.json", run.told.timing_report())
        files.write_json(summary, report)
        run.checkpoints.remove_others()


def _check_same(workers: Workers, identity: str) -> None:
    """Raises TrainingError in a worker that would train something else than the first."""
    if workers.told(identity) != identity:
        raise TrainingError(
            f"worker {workers.number} has other rows, another base, other code or other versions than worker 0",
            where="train.hosts",
            why="Their gradients would be of different trainings",
            fix="Keep the project, its .venv and its models in folders that all hosts share",
        )
