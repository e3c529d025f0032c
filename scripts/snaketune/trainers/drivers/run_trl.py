"""Trains with TRL's SFTTrainer and PEFT (docs/engines.md); runs inside TRL's own environment."""

from __future__ import annotations

from driver import Stop, begin, versions
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, EarlyStoppingCallback
from transformers_callback import EventCallback, last_checkpoint, load_rows, torch_dtype, with_pad_token
from trl import SFTConfig, SFTTrainer


def main() -> None:
    request, events = begin()
    settings, callback = request.settings, EventCallback(events, Stop())
    callbacks = [callback]
    if settings["early_stopping"]:
        callbacks.append(EarlyStoppingCallback(**settings["early_stopping"]))
    checkpoints, adapter = request.folder / "checkpoints", request.folder / "adapter"
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(request.base, dtype=torch_dtype(request)),
        processing_class=with_pad_token(AutoTokenizer.from_pretrained(request.base)),
        peft_config=LoraConfig(**settings["lora"]),
        train_dataset=load_rows(request.train_rows).select(request.visits),
        eval_dataset=load_rows(request.valid_rows),
        args=SFTConfig(output_dir=str(checkpoints), **settings["training"]),
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    trainer.save_model(str(adapter))
    callback.finish(adapter, versions=versions("trl", "transformers", "peft", "torch", "accelerate", "datasets"))


if __name__ == "__main__":
    main()
