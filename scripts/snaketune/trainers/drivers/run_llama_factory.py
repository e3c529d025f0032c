"""Trains with LLaMA-Factory (docs/engines.md); runs inside its own environment.

`run_exp` is what `llamafactory-cli train` calls; it takes callbacks as well. The settings are written as train.yaml,
with which the command line does the same.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import types
from importlib.machinery import ModuleSpec

import datasets
import yaml
from driver import Request, Stop, begin, versions

PACKAGES = ("llamafactory", "transformers", "peft", "trl", "torch", "accelerate", "datasets")


def main() -> None:
    request, events = begin()
    _stand_in_for_torchaudio()
    from llamafactory.train.tuner import run_exp
    from transformers_callback import EventCallback

    arguments, callback = _arguments(request), EventCallback(events, Stop())
    (request.folder / "train.yaml").write_text(yaml.safe_dump(arguments, sort_keys=False))
    run_exp(dict(arguments), callbacks=[callback])
    callback.finish(request.folder / "checkpoints", versions=versions(*PACKAGES))


def _stand_in_for_torchaudio() -> None:
    """LLaMA-Factory imports torchaudio always and uses it for sound alone; the one on PyPI needs CUDA on Linux."""
    if importlib.util.find_spec("torchaudio") is None:
        module = types.ModuleType("torchaudio")
        module.__spec__ = ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = module


def _arguments(request: Request) -> dict[str, object]:
    """The arguments of a training, once the rows lie where LLaMA-Factory looks for tokenized ones.

    It wants registered names of data sets beside tokenized_path and reads nothing of them: a dummy stands for both.
    """
    from transformers_callback import last_checkpoint, load_rows

    tokenized, dummy = request.folder / "tokenized", request.folder / "data"
    train, valid = (load_rows(path).map(_attended) for path in (request.train_rows, request.valid_rows))
    rows = datasets.DatasetDict({"train": train.select(request.visits), "validation": valid})
    shutil.rmtree(tokenized, ignore_errors=True)
    rows.save_to_disk(str(tokenized))
    dummy.mkdir(exist_ok=True)
    (dummy / "dataset_info.json").write_text('{"dummy": {"file_name": "dummy.json"}}')
    (dummy / "dummy.json").write_text('[{"instruction": "", "input": "", "output": ""}]')
    output = request.folder / "checkpoints"
    return {
        "model_name_or_path": request.base,
        "tokenized_path": str(tokenized),
        "dataset": "dummy",
        "eval_dataset": "dummy",
        "dataset_dir": str(dummy),
        "output_dir": str(output),
        **request.settings,
        **({"resume_from_checkpoint": newest} if (newest := last_checkpoint(output)) else {}),
    }


def _attended(row: dict[str, list[int]]) -> dict[str, list[int]]:
    return {"attention_mask": [1] * len(row["input_ids"])}


if __name__ == "__main__":
    main()
