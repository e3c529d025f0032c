"""Copies of the finished run with answers of one's own: for the tests of the report.

The files are those that the chain wrote. Rows, answers and likelihoods are invented, so that a test knows what the
comparison must find; scores and comparison of them come from the library's own code.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from project_copy import Project
from snaketune.config import sections
from snaketune.config.schema import canonical
from snaketune.contracts.report import RunReport
from snaketune.evaluate import compare, score, step_config
from snaketune.files import StrPath, read_json, read_jsonl, write_json, write_jsonl, write_text
from snaketune.report import page

HOSTILE = (
    "<script>document.title='owned'</script> </style></script><img src=x onerror=\"document.title='owned'\"> "
    "{{ 7*7 }} {% raw %} ]]> <!-- \u202eevil\u202c \u200f\u2067שלום\u2069 &amp; ' \" $x^2$ \x00\x07"
)
WORDS = "river stone morning letter window garden winter bridge paper lantern harbor copper".split()
HEAVY = shutil.ignore_patterns("checkpoints", "*.safetensors", "logs", ".*")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Invented answers. gain: share of rows that the tuned model answers rightly; first_row: rows are named from it.

    asked_by: how many rows have the same question; text: rows of plain text, which are not answered.
    """

    rows: int = 40
    seed: int = 1
    gain: float = 0.8
    first_row: int = 0
    asked_by: int = 1
    text: bool = False
    variants: tuple[str, ...] = ("base", "prompted", "adapter", "gguf-q8_0")


@dataclass(frozen=True)
class RunCopies:
    """Makes runs out of the finished one."""

    finished: Project
    config: dict[str, Any] = field(default_factory=dict)

    def make(
        self, folder: Path, *, hostile: bool = False, compared: bool = True, more: Any = None, **given: Any
    ) -> Path:
        """A run in `folder`, named like it; more: sections of the configuration that differ; given: see `Answers`."""
        answers = Answers(**given)
        shutil.copytree(self.finished.folder / "results/tiny", folder, ignore=HEAVY)
        config = _configure(folder, more or {}, answers.seed)
        _rename_products(folder)
        _decide_go(folder)
        said = HOSTILE if hostile else ""
        records = [_record(number, said, answers) for number in _numbers(answers)]
        write_jsonl(folder / "data/test.jsonl", records)
        shutil.rmtree(folder / "evaluation")
        draw = random.Random(answers.seed)
        for name in answers.variants:
            predictions = [_prediction(record, name, answers.gain, draw) for record in records]
            write_jsonl(folder / f"evaluation/{name}/predictions.jsonl", predictions)
            write_jsonl(folder / f"evaluation/{name}/general.jsonl", [_general(i, name, draw) for i in range(12)])
        _score(folder, answers.variants, config, compared)
        if hostile:
            _make_hostile(folder)
        return folder


def write_report(run: Path, name: str = "report", declared: Iterable[StrPath] | None = None) -> RunReport:
    """Write the page of a run and what lies beside it into its folder `name`, as the step write_report does."""
    report = run / name
    return page.run(
        folder=run,
        page=report / "index.html",
        record=report / "report.json",
        form=report / "human_eval.html",
        table=report / "experiments.csv",
        declared=declared,
    )


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change the content of a JSON file in place."""
    content = read_json(path)
    change(content)
    write_json(path, content)


def repeat_experiment(folder: Path, names: Sequence[str]) -> None:
    """Put copies of the one training under these names, in the order of their ranking, each with a rank of its own."""
    selection = read_json(folder / "train/selection.json")
    entry, (name,) = selection["experiments"][0], [each["experiment"] for each in selection["experiments"]]
    copied = []
    for number, copy in enumerate(names):
        shutil.copytree(folder / "train" / name, folder / "train" / copy)
        loss = {"validation_loss": entry["validation_loss"] + 0.01 * number}
        copied.append(entry | loss | {"experiment": copy, "settings": {"rank": 4 + number, "note": "a, b"}})
    shutil.rmtree(folder / "train" / name)
    write_json(folder / "train/selection.json", selection | {"experiment": names[0], "experiments": copied})


def rescore(folder: Path) -> None:
    """Score and compare anew, after the predictions of a run were changed."""
    variants = tuple(sorted(path.parent.name for path in folder.glob("evaluation/*/predictions.jsonl")))
    variants = tuple(sorted(variants, key=lambda name: name != "base"))
    _score(folder, variants, read_json(folder / "config.json"), compared=True)


def _configure(folder: Path, more: dict[str, Any], seed: int) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    for key, value in ({"run": folder.name, "seed": seed} | more).items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    write_json(folder / "config.json", config)
    return config


def _rename_products(folder: Path) -> None:
    for path in folder.glob("model/tiny-*.gguf"):
        path.rename(path.with_name(path.name.replace("tiny", folder.name, 1)))
    modelfile = folder / "model/Modelfile"
    write_text(modelfile, modelfile.read_text(encoding="utf-8").replace("tiny", folder.name))


def _decide_go(folder: Path) -> None:
    """The random model of the finished run gets a no-go, which is overridden; most tests are not about that."""
    edit(folder / "pilot/decision.json", lambda made: made.update(decision="go", reasons=[], overridden=False))


def _numbers(answers: Answers) -> range:
    return range(answers.first_row, answers.first_row + answers.rows)


def _record(number: int, said: str, answers: Answers) -> dict[str, Any]:
    words = " ".join(random.Random(number // answers.asked_by).sample(WORDS, 4))
    record: dict[str, Any] = {"id": f"row-{number:03d}", "source": "rows.jsonl", "line": number + 1}
    if answers.text:
        return record | {"text": f"{words}. {said}"}
    turns = [
        {"role": "user", "content": f"Write these in capitals: {words} {said}"},
        {"role": "assistant", "content": words.upper()},
    ]
    record |= {"messages": turns, "category": ["short", "long"][number % 2]}
    shared = f"row-{number - number % answers.asked_by:03d}"
    return record | ({"cluster": shared} if answers.asked_by > 1 else {})


def _prediction(record: dict[str, Any], variant: str, gain: float, draw: random.Random) -> dict[str, Any]:
    right_share = {"base": 0.05, "prompted": 0.15}.get(variant, gain)
    per_token = {"base": -1.9, "prompted": -1.6}.get(variant, -1.9 + 1.6 * gain) + draw.gauss(0, 0.15)
    if "text" in record:
        return {"id": record["id"], "prompt": "", **_likelihood(record["text"], per_token, 12)}
    question, reference = (turn["content"] for turn in record["messages"])
    right = draw.random() < right_share
    answer = reference if right else " ".join(reference.split()[: draw.randint(0, 3)]) + " something else"
    return {
        "id": record["id"],
        "prompt": question,
        **({"cluster": record["cluster"]} if "cluster" in record else {}),
        "category": record["category"],
        "answer": answer + (HOSTILE if "script" in question else ""),
        "new_tokens": len(answer.split()),
        "stopped": right or draw.random() < 0.5,
        **_likelihood(reference, per_token, 12),
    }


def _general(number: int, variant: str, draw: random.Random) -> dict[str, Any]:
    """A plain text of the general set, of which the tuned model has forgotten a little."""
    text = " ".join(random.Random(1000 + number).sample(WORDS, 8))
    per_token = -2.0 + (0 if variant in ("base", "prompted") else -0.1) + draw.gauss(0, 0.01)
    return {"id": f"general-{number}", "prompt": "", **_likelihood(text, per_token, 16)}


def _likelihood(reference: str, per_token: float, tokens: int) -> dict[str, Any]:
    size = len(reference.encode())
    return {"reference": reference, "logprob": per_token * tokens, "num_target_tokens": tokens, "bytes": size}


def _score(folder: Path, variants: tuple[str, ...], config: dict[str, Any], compared: bool) -> None:
    """The library's own scores and comparison; equal answers are scored once for all tests."""
    evaluation = folder / "evaluation"
    texts = tuple(
        (evaluation / name / file).read_text(encoding="utf-8")
        for name in variants
        for file in ("predictions.jsonl", "general.jsonl")
    )
    made = _evaluated(variants, texts, canonical(config))
    for name in variants:
        write_text(evaluation / name / "scores.json", made[name])
    if compared:
        write_text(evaluation / "comparison.json", made["comparison"])


@functools.lru_cache(maxsize=64)
def _evaluated(variants: tuple[str, ...], texts: tuple[str, ...], config: str) -> dict[str, str]:
    given = json.loads(config)
    with tempfile.TemporaryDirectory() as folder:
        predictions = [Path(folder, name, "predictions.jsonl") for name in variants]
        scores = [Path(folder, name, "scores.json") for name in variants]
        general = [Path(folder, name, "general.jsonl") for name in variants]
        for path, scored, other, text, more in zip(predictions, scores, general, texts[::2], texts[1::2], strict=True):
            write_text(path, text)
            write_text(other, more)
            score.run(predictions=path, scores=scored, config=step_config.scoring_config(sections.load(given)))
        comparison = Path(folder, "comparison.json")
        compare.run(
            predictions=predictions,
            scores=scores,
            general=general,
            comparison=comparison,
            table=Path(folder, "comparison.csv"),
            config=step_config.comparison_config(sections.load(given)),
        )
        found = {name: path.read_text(encoding="utf-8") for name, path in zip(variants, scores, strict=True)}
        return found | {"comparison": comparison.read_text(encoding="utf-8")}


def _make_hostile(folder: Path) -> None:
    """Put text that must be escaped into every file that can hold text of data, models or the configuration."""

    def of_data(report: dict[str, Any]) -> None:
        report["categories"] = {"short": 10, f"long {HOSTILE}": 10}
        report["sources"] += [report["sources"][0] | {"source": f"odd {HOSTILE}.jsonl"}]
        report["shortest"] = [f"odd {HOSTILE}.jsonl:3"]

    def of_pilot(decision: dict[str, Any]) -> None:
        decision["sample"] = [{"prompt": HOSTILE, "reference": HOSTILE, "base": HOSTILE, "pilot": HOSTILE}]
        decision["likely_cause"] = HOSTILE

    def of_selection(selection: dict[str, Any]) -> None:
        for entry in selection["experiments"]:
            entry["settings"] = {"note": HOSTILE}

    edit(folder / "data/report.json", of_data)
    edit(folder / "pilot/decision.json", of_pilot)
    edit(folder / "train/selection.json", of_selection)
    edit(folder / "config.json", lambda config: config["model"].update(base=HOSTILE))
    rejected = {"source": HOSTILE, "line": 1, "reason": "empty", "detail": HOSTILE, "row": HOSTILE}
    write_jsonl(folder / "data/rejected.jsonl", [*read_jsonl(folder / "data/rejected.jsonl"), rejected])
