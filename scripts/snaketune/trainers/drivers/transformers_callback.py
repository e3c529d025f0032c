"""What transformers' Trainer reports, as events; TRL, Unsloth on CPU and CUDA, and Axolotl are such Trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import torch
from driver import Events, Request, Stop, iterate_rows
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerState
from transformers.trainer_utils import get_last_checkpoint


class EventCallback(TrainerCallback):
    """Writes an event for each step and validation, and ends the training in order when it is asked to."""

    def __init__(self, events: Events, stop: Stop) -> None:
        self.events, self.stop, self.state = events, stop, TrainerState()

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        counts = {"trainable_parameters": 0, "total_parameters": 0}
        for parameter in model.parameters():
            counts["total_parameters"] += parameter.numel()
            counts["trainable_parameters"] += parameter.numel() if parameter.requires_grad else 0
        self.events.begin(state.global_step, **counts)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.events.write(
                "step",
                step=state.global_step,
                loss=float(logs["loss"]),
                learning_rate=float(logs["learning_rate"]),
                grad_norm=float(logs["grad_norm"]) if logs.get("grad_norm") is not None else None,
            )

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        self.events.write("validation", step=state.global_step, loss=float(metrics["eval_loss"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        elif self.stop.requested:
            control.should_save = control.should_training_stop = True
        return control

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.state = state

    def finish(self, adapter: Path | str, **more: Any) -> None:
        """Write the last event: `done`, or `stopped` where the training was asked to end."""
        step, best = self.state.global_step, self.state.best_model_checkpoint
        if self.stop.requested and step < self.state.max_steps:
            self.events.write("stopped", step=step, resumable=True)
            return
        self.events.write(
            "done",
            step=step,
            best_step=int(best.rsplit("-", 1)[1]) if best else step,
            adapter=str(adapter),
            format="peft",
            **more,
        )


def load_rows(path: str) -> datasets.Dataset:
    """The rows of a file, on disk behind a memory map; no pattern of paths, so that a name may hold brackets."""
    return datasets.Dataset.from_generator(iterate_rows, gen_kwargs={"path": path})


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint in a folder, None where there is none."""
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


def with_pad_token(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with some token to pad with; padding has neither attention nor loss, so any will do."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def torch_dtype(request: Request) -> torch.dtype:
    """The number format to load the base in; `auto` is float32 on a CPU and bfloat16 on an accelerator."""
    if request.dtype != "auto":
        return getattr(torch, request.dtype)
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    return torch.bfloat16 if accelerated else torch.float32
