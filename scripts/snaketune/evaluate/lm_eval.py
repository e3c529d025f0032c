"""The test rows as a task of lm-evaluation-harness, and what the harness says of base and fused model.

It runs in an environment of its own, on model folders and never on a GGUF: its back ends for those give wrong numbers
(docs/evaluation.md). Prompts are rendered here, so that the harness reads the ids that the training read.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from snaketune import files
from snaketune.contracts.lm_eval import HarnessOutput, HarnessResults, Judged
from snaketune.errors import EvaluationError
from snaketune.evaluate import lm_eval_comparison
from snaketune.evaluate.requests import answerable
from snaketune.files import StrPath
from snaketune.tokens.chat_template import Renderer
from snaketune.trainers import environment

NAME = "lm-eval"
RESOURCES = ("drivers/run_lm_eval.py",)
DRIVER = Path(__file__).with_name("drivers") / "run_lm_eval.py"
MISSING = f"lm-eval is not installed here: `make tool NAME={NAME}` builds .trainers/{NAME}"
TASK = """# The test rows of a run of snaketune; use: lm_eval --include_path . --tasks {name}
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: generate_until
doc_to_text: prompt
doc_to_target: reference
target_delimiter: ""
generation_kwargs:
  until: {until}
  do_sample: false
  max_gen_toks: {max_new_tokens}
filter_list:
  - name: none
    filter:
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
  - metric: chrf
    higher_is_better: true
metadata:
  version: 1
"""


def export_task(rows: StrPath, renderer: Renderer, folder: StrPath, *, max_new_tokens: int) -> int:
    """Write the task and its rows into `folder`; returns how many rows have a prompt and a reference.

    Rows that the chat template refuses are left out, and a warning counts them.
    """
    if renderer.virtual_ids:
        raise prompt_tuning_error()
    target = Path(folder)
    exported = []
    for row in answerable(list(files.read_jsonl(rows)), renderer):
        turns = row.get("messages", [])
        reference = turns[-1].get("content") if turns and turns[-1]["role"] == "assistant" else None
        if reference:  # a call of a tool alone is no text to score
            prompt = renderer.rendered_prompt(turns[:-1], row.get("tools"))
            exported.append({"id": row["id"], "prompt": prompt, "reference": reference})
    if not exported:
        raise EvaluationError(
            "no test row has a prompt and an answer", where=str(rows), fix="lm-eval scores answers; leave it out"
        )
    with files.atomic_folder(target) as staged:
        files.write_jsonl(staged / "test.jsonl", exported)
        ends = sorted(renderer.tokenizer.convert_ids_to_tokens(list(renderer.stop_ids)))
        text = TASK.format(
            name=task_name(target),
            rows=files.dumps(str((target / "test.jsonl").absolute())).strip(),
            until=files.dumps(ends).strip().replace("\n", " "),
            max_new_tokens=max_new_tokens,
        )
        files.write_text(staged / f"{task_name(target)}.yaml", text)
    return len(exported)


def prompt_tuning_error() -> EvaluationError:
    """The message for base and fused model after prompt tuning, which do not read the same text."""
    return EvaluationError(
        "lm-eval cannot compare base and fused model after prompt tuning",
        where="train.method",
        why="It asks both the same texts, and the base knows no virtual tokens",
        fix="Run `snakemake evaluate`, without evaluate.lm_eval_tasks: evaluation/comparison.json of the run compares "
        "them, each with its own text",
    )


def task_name(folder: StrPath) -> str:
    """The name of the task that `folder`, results/<run>/lm_eval/task, holds."""
    return f"snaketune_{Path(folder).parent.parent.name.replace('-', '_').replace('.', '_')}"


def run(
    task: StrPath, models: dict[str, StrPath], others: Sequence[str], results: StrPath, judged: Judged
) -> HarnessResults:
    """Run our task and named ones on base and fused model, and write the paired comparison; models: their folders."""
    python = environment.FOLDER / NAME / "bin" / "python"
    if not python.exists():
        found = HarnessResults(version=None, message=MISSING, comparisons=[])
    else:
        environment.check_packages(NAME, f"make tool NAME={NAME}")
        outputs = {name: _evaluated(python, folder, task, others) for name, folder in models.items()}
        comparisons = lm_eval_comparison.compared(outputs["base"], outputs["fused"], task_name(task))
        strange = sum(one.difference is None for one in comparisons)
        found = HarnessResults(
            version=outputs["base"].version,
            message=f"lm-eval {outputs['base'].version} on {', '.join([task_name(task), *others])}"
            + (f"; {strange} of {len(comparisons)} metrics are not numbers" if strange else ""),
            comparisons=comparisons,
            judged=judged,
        )
    files.write_json(results, found)
    return found


def _evaluated(python: Path, model: StrPath, task: StrPath, others: Sequence[str]) -> HarnessOutput:
    with tempfile.TemporaryDirectory() as scratch:
        job, output = Path(scratch, "job.json"), Path(scratch, "output.json")
        settings = {
            "model": str(Path(model).absolute()),
            "own": [task_name(task)],
            "named": list(others),
            "include": str(Path(task).absolute()),
        }
        files.write_json(job, settings | {"device": "cpu", "output": str(output)})
        quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_CACHE": str(Path(scratch, "cache"))}
        offline = {} if others else {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [str(python), str(DRIVER), str(job)],
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | quiet | offline,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout, file=sys.stderr)
        if done.returncode or not output.is_file():
            last = (done.stdout.strip().splitlines() or ["it printed nothing"])[-1]
            raise EvaluationError(f"lm-eval failed: {last}", where=str(model), fix="See the log of this step")
        return files.read_json(output, HarnessOutput)
