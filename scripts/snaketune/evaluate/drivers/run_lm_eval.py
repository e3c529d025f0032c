"""Runs tasks of lm-evaluation-harness on one model folder. It runs inside lm-eval's own environment.

`python run_lm_eval.py JOB.json`, with the keys model, tasks, include (the folder of our task), device, output. Writes
of each task its metrics with standard errors, and each metric's value for each document.
"""

import json
import sys
from importlib.metadata import version

import lm_eval
from lm_eval.tasks import TaskManager


def main(path: str) -> None:
    """Run the tasks of a job and write what came out."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": job["model"], "dtype": "float32", "add_bos_token": False},
        tasks=job["tasks"],
        task_manager=TaskManager(include_path=job["include"]),
        batch_size=1,
        device=job["device"],
        log_samples=True,
        bootstrap_iters=1000,
    )
    tasks = {}
    for name, metrics in found["results"].items():
        samples = sorted(found["samples"].get(name, []), key=lambda one: one["doc_id"])
        values = {}
        for metric, value in metrics.items():
            key, _, filtered = metric.partition(",")
            if not filtered or key.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            error = metrics.get(f"{key}_stderr,{filtered}")
            each = [one[key] for one in samples if one.get("filter", filtered) == filtered and key in one]
            values[key] = {
                "value": value,
                "stderr": error if isinstance(error, (int, float)) else None,
                "each": each if all(isinstance(one, (int, float)) for one in each) else [],
            }
        tasks[name] = values
    with open(job["output"], "w", encoding="utf-8") as file:
        json.dump({"version": version("lm_eval"), "tasks": tasks}, file)


if __name__ == "__main__":
    main(sys.argv[1])
