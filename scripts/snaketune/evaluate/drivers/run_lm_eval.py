"""Runs tasks of lm-evaluation-harness on one model folder. It runs inside lm-eval's own environment.

`python run_lm_eval.py JOB.json`, with the keys model, own (the names of our tasks), named (those of others), include
(the folder of ours), device, output. Writes of each task its metrics with standard errors, and each metric's value for
each document; of each group its tasks. A metric that is NaN or infinite is null.
"""

import json
import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.tasks import TaskManager
from transformers import PreTrainedTokenizerFast


def main(path: str) -> None:
    """Run the tasks of a job and write what came out."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    found: dict[str, Any] = {"version": version("lm_eval"), "tasks": {}, "groups": {}}
    for names, settings in ((job["own"], as_trained(job["model"])), (job["named"], {})):
        if names:
            tasks, groups = evaluated(job, names, {"pretrained": job["model"], "dtype": "float32", **settings})
            found["tasks"] |= tasks
            found["groups"] |= groups
    with open(job["output"], "w", encoding="utf-8") as file:
        json.dump(found, file, allow_nan=False)


def as_trained(model: str) -> dict[str, object]:
    """The arguments with which rendered prompts become the ids of the training.

    They hold all that is to be read, and the tokenizer is that of tokenizer.json: lm-eval takes the one of the model's
    own class, which transformers 5 builds anew and in places otherwise (a space after a special token, with Llama's).
    """
    if not Path(model, "tokenizer.json").is_file():
        return {"add_bos_token": False}
    return {"add_bos_token": False, "tokenizer": PreTrainedTokenizerFast.from_pretrained(model)}


def evaluated(job: Any, names: list[str], model: dict[str, object]) -> tuple[dict[str, object], dict[str, list[str]]]:
    """The metrics of these tasks by task, and the tasks by group; model: the arguments of lm-eval's back end `hf`."""
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args=model,
        tasks=names,
        task_manager=TaskManager(include_path=job["include"], metadata=model),  # some make texts for its tokenizer
        batch_size=1,
        device=job["device"],
        log_samples=True,
        bootstrap_iters=1000,
    )
    tasks: dict[str, object] = {
        name: values(metrics, found["samples"].get(name, []), found["higher_is_better"].get(name, {}))
        for name, metrics in found["results"].items()
    }
    return tasks, {name: tasks_of(name, found["group_subtasks"]) for name in found["group_subtasks"]}


def tasks_of(name: str, below: dict[str, list[str]]) -> list[str]:
    """The tasks of a group, and of the groups in it, each once; below: what stands directly in each group."""
    if name not in below:
        return [name]
    return list(dict.fromkeys(task for one in below[name] for task in tasks_of(one, below)))


WEIGHTED = ("word_perplexity", "byte_perplexity", "bits_per_byte")
"""Metrics whose value of a document is its log-likelihood and what that is divided by."""


def values(metrics: Any, samples: Any, higher_is_better: Any) -> dict[str, object]:
    """The metrics of a task; where answers are read in several ways (filters), the name says which."""
    samples = sorted(samples, key=lambda one: one["doc_id"])
    found: dict[str, object] = {}
    for metric, value in metrics.items():
        key, _, filtered = metric.partition(",")
        if not filtered or key.endswith("_stderr") or not isinstance(value, (int, float)):
            continue
        error = metrics.get(f"{key}_stderr,{filtered}")
        each = [one[key] for one in samples if one.get("filter", filtered) == filtered and key in one]
        weights = []
        if key in WEIGHTED:
            each, weights = [one[0] for one in each], [one[1] for one in each]
        found[key if filtered == "none" else metric] = {
            "value": finite(value),
            "stderr": finite(error),
            "higher_is_better": higher_is_better.get(key),
            "each": list(map(float, each)) if None not in map(finite, each) else [],
            "weights": weights,
        }
    return found


def finite(value: object) -> float | None:
    """A value as a number; None where it is none, or not finite."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


if __name__ == "__main__":
    main(sys.argv[1])
