"""Writes docs/moving-in.md: what each tool's keys become, from the very tables that the importers work by."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from snaketune.files import write_text
from snaketune.importers import axolotl, axolotl_data, llama_factory, llama_factory_data, mlx_lm, trl_peft
from snaketune.importers.key_rules import KeyRule
from snaketune.importers.page import cell, table_row

Defaults = Mapping[str, tuple[str, str, object]]
FATES = {"taken": "as here", "unused": "no effect", "refused": "refused"}

HEAD = """# Moving in

Whoever has a configuration of Axolotl, LLaMA-Factory, TRL or mlx-lm can try the same training here without rewriting
it:

    make import FROM=axolotl.yaml NAME=mine
    make import FROM=train_lora/qwen_lora_sft.yaml NAME=mine
    make import FROM="mlx_lm.lora --model some/model --train --data rows" NAME=mine
    make import FROM=outputs/adapter NAME=mine

It writes `mine.yaml`, complete and commented, and `mine.import.md`, a page with four lists: what was taken over; what
the other tool does without being told and ours would do otherwise, which is written out; what has no effect here, and
why that is safe; and what is refused, with what it changes in the result and what to do. Every key stands in one of
them. A key that is in none of the tables below is refused, since nobody can say what it changes; a slip gets a "did
you mean".

Where something is refused, `mine.yaml` is not written. To go without it after all, name it: `make import
FROM=axolotl.yaml NAME=mine WITHOUT="neftune_noise_alpha"`. Keys of another objective (DPO, rewards) cannot be left
out.

What comes out is then tried as any other configuration: `snakemake preview --configfile mine.yaml` shows five rows as
the model will read them, `snakemake plan --configfile mine.yaml` says whether it fits and how long it takes.

Three differences hold for every tool. A part of the rows is held out for the scores. The best adapter of all
validations is kept, not the last one. Exact copies of a row are removed. Two more hold for the tools that train with
transformers, which are all but mlx-lm: each learning rate comes one step later there, so that the first step of a
warm-up trains nothing; and the last step of each epoch has the rows that are left, where ours go on into the next
epoch.
"""
AXOLOTL = """## Axolotl

A YAML file is recognized by `base_model`. Rows of `type: alpaca` are rendered there by Alpaca's own prompt, whatever
chat template the base has; so they are here, and the finished model carries that template. `sample_packing` makes a
step of `micro_batch_size` full sequences there and of `batch_size` rows here; the page says what to multiply.
"""
LLAMA_FACTORY = """## LLaMA-Factory

A YAML file is recognized by `stage`, `template` and their like; `dataset` is looked up in `dataset_info.json`, in
`dataset_dir` or beside the configuration. LLaMA-Factory trains with renderings of its own, not with the model's chat
template. Where the base is on this machine, the two are compared on twelve conversations and the page shows each
difference. Most often it is one token: LLaMA-Factory also trains the line end after the end-of-turn token.

Measured against LLaMA-Factory 0.9.5 itself (`tests/trainers/test_moving_in.py`, tiny random models on a CPU): the
token ids of rows of alpaca, sharegpt and tools are equal, and so are the masks but for that line end. Its learning
rates are ours one step later, after a warm-up whose share of the steps is rounded up.

Validation loss by our scorer, three seeds a side, as imported: alpaca 4.53 to 4.61 here and 4.51 to 4.57 there,
sharegpt 4.64 to 4.66 and 4.63 to 4.67. In the 24 steps of the rows with tools the named differences can be seen:
5.433 to 5.436 here and 5.440 to 5.446 there (the base: 6.131). With the line ends trained here too it is 5.437 to
5.439; with those and the learning rates of there, step by step, 5.440 to 5.442, and the two means are 0.003 apart,
within the 0.006 of the seeds there. At a constant rate without warm-up and with the same tokens trained, which is
what the test compares, the two means are less far apart than the seeds: alpaca 4.301 to 4.330 here and 4.265 to 4.319
there, sharegpt 4.443 to 4.503 and 4.414 to 4.517, tools 5.240 to 5.251 and 5.233 to 5.279.

The demo sets that LLaMA-Factory publishes (identity, alpaca and glaive in English and Chinese) are read without a
rewrite, every row of them, and its rows with tool calls have the ids that transformers gives them in the templates of
Qwen 2.5, Llama 3.1 and Mistral. Of the examples that it and Axolotl publish (337 configurations), each is imported or
refused with reasons; 35 were read by hand beforehand and come out as expected.
"""
TRL = """## TRL

The YAML of `trl sft`, recognized by `dataset_name`, `use_peft` and their like. Python scripts are not read.
"""
PEFT = """## A PEFT adapter

A folder with `adapter_config.json`, which knows the base and the adapter's shape, and nothing of rows, rates and
steps. `training_args.bin` beside it is a pickle, a program and not data, and is not read.
"""
MLX_LM = """## mlx-lm

The YAML of `mlx_lm.lora`, an adapter's folder, or a command line, in quotation marks or in a file ending in `.sh`.
mlx-lm counts micro-batches where we count steps, trains on prompts unless told otherwise, and does not clip
gradients; all of that is written out.
"""


def page() -> str:
    """Return the whole page as Markdown."""
    lines = [HEAD]
    lines += [AXOLOTL, *_keys(axolotl.TABLE), *_defaults(axolotl.DEFAULTS)]
    lines += ["### An entry of datasets", "", *_keys(axolotl_data.DATASET_TABLE)]
    lines += [LLAMA_FACTORY, *_keys(llama_factory.TABLE), *_defaults(llama_factory.DEFAULTS)]
    lines += ["### An entry of dataset_info.json", "", *_keys(llama_factory_data.REGISTRY_TABLE)]
    lines += [TRL, *_keys(trl_peft.TABLE), *_defaults(trl_peft.DEFAULTS | trl_peft.LORA_DEFAULTS)]
    lines += [PEFT, *_keys(trl_peft.ADAPTER_TABLE)]
    lines += [MLX_LM, *_keys(mlx_lm.TABLE), *_defaults(mlx_lm.DEFAULTS)]
    return "\n".join(lines).rstrip() + "\n"


def _keys(table: Mapping[str, KeyRule]) -> list[str]:
    """Return the rows of a tool's key table, keys of one fate and remark on one line."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for key, rule in table.items():
        groups.setdefault((rule.fate, rule.ours, rule.note, rule.fix), []).append(f"`{key}`")
    lines = ["| theirs | ours | remark |", "|---|---|---|"]
    order = list(FATES)
    for (fate, ours, note, fix), keys in sorted(groups.items(), key=lambda item: order.index(item[0][0])):
        remark = ". ".join(filter(None, (note, fix)))
        here = f"`{ours}`" if ours else FATES[fate]
        lines.append(table_row([", ".join(sorted(keys)), here, cell(remark, is_code=False)]))
    return [*lines, ""]


def _defaults(defaults: Defaults) -> Iterable[str]:
    """Return what the tool does where a key is not given, as a table."""
    rows = [table_row([f"`{key}`", words, f"`{ours}`"]) for key, (words, ours, _) in sorted(defaults.items())]
    return ["Where nothing is said, theirs is:", "", "| theirs | default there | ours |", "|---|---|---|", *rows, ""]


if __name__ == "__main__":
    write_text(sys.argv[1], page())
