"""The test rows as a task of lm-evaluation-harness, and the harness itself where it is built."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import families
import msgspec
import pytest
import yaml
from snaketune import files
from snaketune.contracts.lm_eval import HarnessOutput, HarnessResults, HarnessValue, Judged
from snaketune.errors import EvaluationError
from snaketune.evaluate import lm_eval
from snaketune.tokens.chat_template import Renderer

ROOT = Path(__file__).resolve().parents[3]


def exported(folder: Path, rows: list[object], family: str = "llama-bpe", template: str | None = None) -> Path:
    families.build(folder / "base", family, dtype="float32")
    files.write_jsonl(folder / "test.jsonl", rows)
    task = folder / "results" / "my-run.2" / "lm_eval" / "task"
    task.parent.mkdir(parents=True)
    lm_eval.export_task(folder / "test.jsonl", Renderer(folder / "base", template), task, max_new_tokens=8)
    return task


def test_the_task_holds_the_prompts_of_the_training_and_where_answers_end(tmp_path: Path) -> None:
    rows = families.conversations()
    task = exported(tmp_path, [*rows, {"id": "plain", "text": "no prompt"}])
    renderer = Renderer(tmp_path / "base")
    written = list(files.read_jsonl(task / "test.jsonl"))
    assert [row["prompt"] for row in written] == [renderer.rendered_prompt(row["messages"][:-1]) for row in rows]
    assert [row["reference"] for row in written] == [row["messages"][-1]["content"] for row in rows]
    found = yaml.safe_load((task / "snaketune_my_run_2.yaml").read_text(encoding="utf-8"))
    assert found["task"] == "snaketune_my_run_2"
    assert found["dataset_kwargs"]["data_files"]["test"] == str(task / "test.jsonl")
    assert renderer.tokenizer.convert_tokens_to_ids(found["generation_kwargs"]["until"]) == sorted(renderer.stop_ids)


def test_a_row_that_the_template_refuses_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing = tmp_path / "alternating.jinja"
    refusing.write_text(families.TEMPLATES["alternating"], encoding="utf-8")
    first, *others = families.conversations(3)
    refused = first | {"messages": [{"role": "user", "content": "hello"}, *first["messages"]]}
    task = exported(tmp_path, [refused, *others], "qwen2", str(refusing))
    assert [row["id"] for row in files.read_jsonl(task / "test.jsonl")] == [row["id"] for row in others]
    assert "1 of 3 rows are not asked: the chat template refuses them" in capsys.readouterr().err


def test_an_answer_that_only_calls_a_tool_is_no_text_to_score(tmp_path: Path) -> None:
    row, *others = families.conversations(2)
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    calling = row | {"messages": [row["messages"][0], {"role": "assistant", "content": None, "tool_calls": [call]}]}
    task = exported(tmp_path, [calling, *others])
    assert [row["id"] for row in files.read_jsonl(task / "test.jsonl")] == [row["id"] for row in others]


def test_rows_without_prompts_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no test row has a prompt"):
        exported(tmp_path, [{"id": "a", "text": "plain"}])


JUDGED = Judged(model="digest of the model", rows="digest of the rows")


def test_without_the_harness_the_results_say_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_eval.environment, "FOLDER", tmp_path / "absent")
    found = lm_eval.run(tmp_path, {"base": "b", "fused": "f"}, [], tmp_path / "results.json", JUDGED)
    assert found.version is None
    assert found.judged is None
    assert "make tool NAME=lm-eval" in found.message
    assert files.read_json(tmp_path / "results.json", HarnessResults) == found


def test_the_pins_are_those_of_the_conda_file() -> None:
    path = ROOT / "envs/tools/lm-eval.txt"
    pins = [line for line in path.read_text().splitlines() if line[:1].isalpha()]
    assert yaml.safe_load(path.with_suffix(".yaml").read_text())["dependencies"][-1]["pip"] == pins


PYTHON = lm_eval.environment.FOLDER / "lm-eval" / "bin" / "python"
needs_lm_eval = pytest.mark.skipif(not PYTHON.exists(), reason="lm-eval is not built: make tool NAME=lm-eval")
WHAT_IT_READS = """
import json, sys
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager, get_task_dict
sys.path.insert(0, sys.argv[1])
from run_lm_eval import as_trained
model, folder, name = sys.argv[2:]
reader = HFLM(pretrained=model, device="cpu", **as_trained(model))
task = get_task_dict([name], TaskManager(include_path=folder))[name]
print(json.dumps([
    [reader.tok_batch_encode([task.doc_to_text(row)])[0][0].tolist(), task.doc_to_target(row)]
    for row in task.test_docs()
]))
"""


@pytest.mark.slow
@needs_lm_eval
@pytest.mark.parametrize("family", ["llama-bpe", "llama-sentencepiece", "gemma3", "qwen2"])
def test_the_harness_reads_the_ids_of_the_training_and_the_references_as_they_are(family: str, tmp_path: Path) -> None:
    rows = families.conversations(4)
    answers = ['["a", "b"]', "12", "{{braces}}", " of two\nlines "]
    for row, answer in zip(rows, answers, strict=True):
        row["messages"][-1]["content"] = answer
    task = exported(tmp_path, rows, family)
    environment = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    command = [PYTHON, "-c", WHAT_IT_READS, lm_eval.DRIVER.parent, tmp_path / "base", task, lm_eval.task_name(task)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    renderer = Renderer(tmp_path / "base")
    assert json.loads(done.stdout.splitlines()[-1]) == [
        [renderer.prompt_ids(row["messages"][:-1]), answer] for row, answer in zip(rows, answers, strict=True)
    ]


@pytest.mark.slow
@needs_lm_eval
def test_the_harness_scores_base_and_tuned_model_on_the_exported_rows(tmp_path: Path) -> None:
    task = exported(tmp_path, families.conversations()[:6])
    families.build(tmp_path / "other", "llama-bpe", dtype="float32", seed=3)
    models = {"base": tmp_path / "base", "fused": tmp_path / "other"}
    found = lm_eval.run(task, models, [], tmp_path / "results.json", JUDGED)
    assert found.judged == JUDGED
    metrics = {one.metric: one for one in found.comparisons}
    assert {"exact_match", "chrf"} <= metrics.keys()
    assert metrics["exact_match"].documents == 6
    assert metrics["exact_match"].base == 0
    assert metrics["chrf"].base != metrics["chrf"].fused


def put_named_task(folder: Path, name: str, rows: list[dict[str, str]], described: str) -> None:
    """A task of these rows beside the exported one, in lm-eval's own format; described: all but its name and rows."""
    path = folder / f"{name}.jsonl"
    files.write_jsonl(path, rows)
    source = f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {path}}}}}\ntest_split: test"
    (folder / f"{name}.yaml").write_text(source + described, encoding="utf-8")


NAMED = """
output_type: generate_until
doc_to_text: question
doc_to_target: answer
generation_kwargs: {until: ["."], do_sample: false, max_gen_toks: 4}
filter_list:
  - name: strict
    filter: [{function: regex, regex_pattern: "([0-9]+)"}, {function: take_first}]
  - name: whole
    filter: [{function: take_first}]
metric_list: [{metric: exact_match}]
"""


@pytest.mark.slow
@needs_lm_eval
def test_a_named_task_stands_beside_the_rows_with_each_way_of_reading_its_answers(tmp_path: Path) -> None:
    task = exported(tmp_path, families.conversations()[:3])
    sums = [{"question": f"{n} and one is", "answer": str(n + 1)} for n in range(5)]
    put_named_task(task, "sums", sums, NAMED)
    models = {"base": tmp_path / "base", "fused": tmp_path / "base"}
    found = lm_eval.run(task, models, ["sums"], tmp_path / "results.json", JUDGED)
    assert {(one.task, one.metric, one.documents) for one in found.comparisons} == {
        ("snaketune_my_run_2", "chrf", 0),
        ("snaketune_my_run_2", "exact_match", 3),
        ("sums", "exact_match,strict", 5),
        ("sums", "exact_match,whole", 5),
    }
    assert all(one.difference == 0 for one in found.comparisons)


ROLLING = """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""


@pytest.mark.slow
@needs_lm_eval
def test_the_harness_gives_what_its_perplexity_is_made_of_so_that_forgetting_can_be_tested(tmp_path: Path) -> None:
    task = exported(tmp_path, families.conversations()[:3])
    texts = [{"text": " ".join(f"and {n} of the {m}" for m in range(n + 1))} for n in range(8)]
    put_named_task(task, "texts", texts, ROLLING)
    job = {"model": str(tmp_path / "base"), "own": [], "named": ["texts"], "include": str(task), "device": "cpu"}
    files.write_json(tmp_path / "job.json", job | {"output": str(tmp_path / "output.json")})
    environment = {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    subprocess.run([PYTHON, lm_eval.DRIVER, tmp_path / "job.json"], env=environment, check=True)
    found = files.read_json(tmp_path / "output.json", HarnessOutput).tasks["texts"]
    words, bits = found["word_perplexity"], found["bits_per_byte"]
    assert words.value == pytest.approx(math.exp(-sum(words.each) / sum(words.weights)))
    assert bits.value == pytest.approx(-sum(bits.each) / sum(bits.weights) / math.log(2))
    assert words.weights == [len(one["text"].split()) for one in texts]
    assert (words.higher_is_better, bits.higher_is_better) == (False, False)


GROUP = """
group: {name}
task: [{tasks}]
aggregate_metric_list: [{{metric: exact_match, weight_by_size: {by_size}, filter_list: [strict, whole]}}]
"""


@pytest.mark.slow
@needs_lm_eval
def test_groups_of_tasks_are_tested_by_the_documents_of_all_tasks_below_them(tmp_path: Path) -> None:
    task = exported(tmp_path, families.conversations()[:3])
    for name, count in (("some", 2), ("more", 5), ("most", 6)):
        put_named_task(task, name, [{"question": f"{n} and one is", "answer": str(n + 1)} for n in range(count)], NAMED)
    for name, tasks, by_size in (("inner", "some, more", "true"), ("outer", "inner, most", "false")):
        files.write_text(task / f"{name}.yaml", GROUP.format(name=name, tasks=tasks, by_size=by_size))
    families.build(tmp_path / "other", "llama-bpe", dtype="float32", seed=3)
    models = {"base": tmp_path / "base", "fused": tmp_path / "other"}
    found = lm_eval.run(task, models, ["outer"], tmp_path / "results.json", JUDGED)
    documents = {
        one.task: (one.documents, one.p is not None) for one in found.comparisons if one.metric == "exact_match,whole"
    }
    assert documents == {
        "some": (2, True),
        "more": (5, True),
        "most": (6, True),
        "inner": (7, True),
        "outer": (13, True),
    }


WHAT_IS_WRITTEN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from run_lm_eval import values
nan, samples = float("nan"), [{"doc_id": n, "acc": one} for n, one in enumerate([1.0, float("inf"), True])]
metrics = {"alias": "a", "acc,none": 0.5, "acc_stderr,none": nan, "ppl,none": nan, "bits,none": float("inf")}
print(json.dumps(values(metrics, samples, {"acc": True}), allow_nan=False))
"""


@pytest.mark.slow
@needs_lm_eval
def test_what_is_not_finite_is_written_as_null_and_takes_no_other_metric_with_it() -> None:
    command = [PYTHON, "-c", WHAT_IS_WRITTEN, lm_eval.DRIVER.parent]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, HarnessValue])
    assert {name: one.value for name, one in found.items()} == {"acc": 0.5, "ppl": None, "bits": None}
    assert (found["acc"].stderr, found["acc"].each) == (None, [])
