"""Trains with Axolotl's command line (docs/engines.md); runs inside its own environment.

It works in the request's folder. Axolotl takes a plugin by its name in the configuration; ours, `EventsPlugin`, only
adds the callback that writes the events.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import yaml
from axolotl.cli.main import main as command_line
from axolotl.integrations.base import BasePlugin
from driver import Request, Stop, begin, read_rows, versions, write_rows
from transformers import AutoTokenizer
from transformers_callback import EventCallback, last_checkpoint, with_pad_token

PACKAGES = ("axolotl", "transformers", "peft", "trl", "torch", "accelerate", "datasets")


class EventsPlugin(BasePlugin):
    """Hands our callback to the trainer that Axolotl builds."""

    callback: EventCallback

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        return [EventsPlugin.callback]


def main() -> None:
    import run_axolotl  # the module that Axolotl imports by name, not the script that runs

    request, events = begin()
    callback = run_axolotl.EventsPlugin.callback = EventCallback(events, Stop())
    configuration = request.folder / "train.yaml"
    configuration.write_text(yaml.safe_dump(_configuration(request), sort_keys=False))
    sys.argv[1:] = ["train", str(configuration), "--launcher", "python"]
    with contextlib.suppress(SystemExit):
        command_line()
    callback.finish(request.folder / "checkpoints", versions=versions(*PACKAGES))


def _configuration(request: Request) -> dict[str, object]:
    """Axolotl's own configuration, once the rows lie where it looks for tokenized ones."""
    train = read_rows(request.train_rows)
    write_rows(request.folder / "axolotl-train.jsonl", (_masked(train[number]) for number in request.visits))
    write_rows(request.folder / "axolotl-valid.jsonl", map(_masked, read_rows(request.valid_rows)))
    output = request.folder / "checkpoints"
    tokenizer = AutoTokenizer.from_pretrained(request.base)
    padding = {} if tokenizer.pad_token else {"special_tokens": {"pad_token": with_pad_token(tokenizer).pad_token}}
    source = {"ds_type": "json", "type": None}
    return {
        "base_model": request.base,
        "datasets": [{"path": "axolotl-train.jsonl", **source}],
        "test_datasets": [{"path": "axolotl-valid.jsonl", "split": "train", **source}],
        "dataset_prepared_path": str(request.folder / "prepared"),
        "output_dir": str(output),
        "plugins": ["run_axolotl.EventsPlugin"],
        **padding,
        **request.settings,
        **({"resume_from_checkpoint": newest} if (newest := last_checkpoint(output)) else {}),
    }


def _masked(row: dict[str, list[int]]) -> dict[str, list[int]]:
    return {**row, "attention_mask": [1] * len(row["input_ids"])}


if __name__ == "__main__":
    main()
