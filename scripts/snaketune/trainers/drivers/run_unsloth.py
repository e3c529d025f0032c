"""Trains with Unsloth (docs/engines.md): its MLX trainer, or its models under TRL's SFTTrainer on CUDA and on a CPU.

Runs inside Unsloth's own environment. The request says which of the two.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from driver import Events, Request, Stop, begin, read_rows, versions

PACKAGES = ("unsloth", "unsloth_zoo", "transformers", "peft", "trl", "torch")
MLX_PACKAGES = ("unsloth", "unsloth_zoo", "mlx", "mlx-lm", "transformers")


def main() -> None:
    request, events = begin()
    if request.settings["backend"] == "mlx":
        _train_mlx(request, events)
    else:
        _train_torch(request, events)


def _train_torch(request: Request, events: Events) -> None:
    """Unsloth's own model loading and adapter, trained by TRL's SFTTrainer, which Unsloth patches."""
    from unsloth import FastLanguageModel  # noqa: I001 - it patches what is imported after it
    import torch
    from transformers import EarlyStoppingCallback
    from transformers_callback import EventCallback, last_checkpoint, load_rows, torch_dtype, with_pad_token
    from trl import SFTConfig, SFTTrainer

    settings, callback = request.settings, EventCallback(events, Stop())
    model, tokenizer = FastLanguageModel.from_pretrained(
        request.base, dtype=torch_dtype(request), load_in_4bit=False, **settings["model"]
    )
    model = FastLanguageModel.get_peft_model(model, random_state=request.seed, **settings["lora"])
    callbacks = [callback]
    if settings["early_stopping"]:
        callbacks.append(EarlyStoppingCallback(**settings["early_stopping"]))
    checkpoints, adapter = request.folder / "checkpoints", request.folder / "adapter"
    trainer = SFTTrainer(
        model=model,
        processing_class=with_pad_token(tokenizer),
        train_dataset=load_rows(request.train_rows).select(request.visits),
        eval_dataset=load_rows(request.valid_rows),
        args=SFTConfig(output_dir=str(checkpoints), **settings["training"]),
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    model.save_pretrained(str(adapter))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    callback.finish(adapter, device=device, versions=versions(*PACKAGES))


def _train_mlx(request: Request, events: Events) -> None:
    """Unsloth's trainer on MLX, which needs no Apple silicon where it is imported past Unsloth's own check."""
    from fast_blas import preload

    blas, stop = preload(), Stop()
    os.environ["UNSLOTH_ZOO_DISABLE_GPU_INIT"] = "1"
    import mlx.core as mx
    import unsloth  # noqa: F401 - the zoo refuses to be imported alone
    from mlx.utils import tree_flatten
    from unsloth_zoo.mlx.loader import FastMLXModel
    from unsloth_zoo.mlx.trainer import MLXTrainer, MLXTrainingConfig

    settings = request.settings
    dtype = "float32" if request.dtype == "auto" and mx.default_device() == mx.cpu else request.dtype
    model, tokenizer = FastMLXModel.from_pretrained(
        request.base, dtype=None if dtype == "auto" else dtype, load_in_4bit=False, **settings["model"]
    )
    total = sum(array.size for _, array in tree_flatten(model.parameters()))
    model = FastMLXModel.get_peft_model(model, random_state=request.seed, **settings["lora"])
    trainable = sum(array.size for _, array in tree_flatten(model.trainable_parameters()))
    folder, adapter = request.folder / "checkpoints", request.folder / "adapter"
    train = read_rows(request.train_rows)
    trainer = MLXTrainer(
        model,
        tokenizer,
        [_masked(train[number]) for number in request.visits],
        eval_dataset=[_masked(row) for row in read_rows(request.valid_rows)],
        args=MLXTrainingConfig(output_dir=str(folder), **settings["training"]),
    )
    losses: dict[int, float] = {}
    trainer.add_eval_callback(lambda step, loss, *_: _validated(events, losses, step, loss))
    trainer.add_step_callback(lambda *report: _stepped(events, trainer, stop, report))
    newest = _last_checkpoint(folder)
    resumed_from = int(newest.name.rsplit("-", 1)[1]) if newest else 0
    events.begin(resumed_from, trainable_parameters=trainable, total_parameters=total)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if stop.requested:
        events.write("stopped", step=_last_step(folder), resumable=True)
        return
    trainer.save_model(str(adapter))
    best = min(losses, key=lambda step: losses[step]) if losses else request.steps
    events.write(
        "done",
        step=request.steps,
        best_step=best,
        adapter=str(adapter),
        format="mlx-lm",
        blas=blas,
        device=str(mx.default_device()),
        versions=versions(*MLX_PACKAGES),
    )


def _masked(row: dict[str, list[int]]) -> dict[str, list[int]]:
    return {**row, "attention_mask": [1] * len(row["input_ids"])}


def _validated(events: Events, losses: dict[int, float], step: int, loss: float) -> None:
    losses[step] = float(loss)
    events.write("validation", step=step, loss=float(loss))


def _stepped(events: Events, trainer: Any, stop: Stop, report: Any) -> None:
    """Write an event for a step; report: step, steps, loss, learning rate, tokens/s, GB, seconds, tokens, norm."""
    step, _, loss, learning_rate = report[:4]
    grad_norm = report[8] if len(report) > 8 else None
    events.write("step", step=step, loss=float(loss), learning_rate=float(learning_rate), grad_norm=grad_norm)
    if stop.requested:
        trainer.stop_requested = True


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of the MLX trainer; its state is written last."""
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _last_step(folder: Path) -> int:
    newest = _last_checkpoint(folder)
    return int(newest.name.rsplit("-", 1)[1]) if newest else 0


if __name__ == "__main__":
    main()
