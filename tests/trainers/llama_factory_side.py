"""Runs inside of LLaMA-Factory's own environment: its rendering of a data set, and its training.

Called as: python llama_factory_side.py render|train|words CONFIG OUT
"""

import importlib.util
import json
import sys
import types

if importlib.util.find_spec("torchaudio") is None:  # which it imports always, and uses for sound alone
    stand_in = types.ModuleType("torchaudio")
    stand_in.__spec__ = importlib.util.spec_from_loader("torchaudio", None)
    sys.modules["torchaudio"] = stand_in


def render(config: dict, out: str) -> None:
    """Write [input_ids, labels] of each row."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    model_args, data_args, training_args, _, _ = get_train_args(config)
    loaded = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], data_args)
    rows = get_dataset(template, model_args, data_args, training_args, stage="sft", **loaded)["train_dataset"]
    with open(out, "w") as file:
        json.dump([[row["input_ids"], row["labels"]] for row in rows], file)


def train(config: dict, out: str) -> None:
    """Train, and write the model with its adapter merged into it."""
    import torch
    from llamafactory.train.tuner import run_exp
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    run_exp(dict(config))
    base = AutoModelForCausalLM.from_pretrained(config["model_name_or_path"], dtype=torch.float32)
    PeftModel.from_pretrained(base, config["output_dir"]).merge_and_unload().save_pretrained(out)


def words(_config: dict, out: str) -> None:
    """Write how a prompt of Qwen's lists tools, with @ in the place of the list."""
    from llamafactory.data.tool_utils import QWEN_TOOL_PROMPT

    with open(out, "w") as file:
        json.dump(QWEN_TOOL_PROMPT.format(tool_text="@"), file)


if __name__ == "__main__":
    task, path, out = sys.argv[1:]
    with open(path) as file:
        {"render": render, "train": train, "words": words}[task](json.load(file), out)
