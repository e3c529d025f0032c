"""All that a run's files say, as one record: what the page shows and report.json holds.

Every file but the configuration may be absent, or of a gate that failed; the record then says so under `missing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snaketune.files import StrPath
from snaketune.report import answers, conclusion, experiment_overview, forecast_accuracy, human_eval, human_ratings
from snaketune.report.run_files import RunFiles

ORDER = ("base", "prompted", "previous", "pilot", "adapter", "fused", "gguf-f32", "gguf-bf16", "gguf-f16")
TOKENS = "data/tokens/*/tokens.json"
EXAMPLES = 50  # rows left out that are shown one by one
NAMES = {
    "base": "base model",
    "prompted": "base with a prompt",
    "pilot": "the pilot's adapter",
    "previous": "the run before",
    "adapter": "tuned adapter",
    "fused": "tuned fused model",
}


def collect(folder: StrPath, declared: Iterable[StrPath] | None = None) -> dict[str, Any]:
    """The record of the run in `folder`; declared: the only files to read, None for all that lie there."""
    run = RunFiles(folder, declared)
    settings = run.json("config.json") or {}
    found: dict[str, Any] = {
        "run": settings.get("run", run.name),
        "folder": Path(folder).as_posix(),
        "config": settings,
        "data": _data(run),
        "plan": run.json("plan.json"),
        "pilot": run.json("pilot/decision.json"),
        "training": _training(run),
        "model": _model(run),
        "fidelity": run.json("model/fidelity.json"),
        "evaluation": _evaluation(run, settings),
        "provenance": run.json("run.json"),
    }
    found["outcomes"] = forecast_accuracy.outcomes(run, found)
    ballots = run.glob("votes/*.json")
    found["votes"] = human_ratings.tally(ballots, human_eval.form(found), settings.get("seed", 1)) if ballots else None
    found["verdict"] = conclusion.verdict(found)
    found["missing"], found["damaged"] = run.missing, run.damaged
    return found


def headline(folder: StrPath) -> str:
    """Three or four lines for the terminal: the verdict, the file, how to run it, and where the report is."""
    written = RunFiles(folder).json("report/report.json")
    return conclusion.lines(written or collect(folder))


def _data(run: RunFiles) -> dict[str, Any]:
    rejected = run.lines("data/rejected.jsonl")
    tokens = {path.parent.name: run.json(path.relative_to(run.folder).as_posix()) for path in run.glob(TOKENS)}
    return {
        "report": run.json("data/report.json"),
        "split": run.json("data/split.json"),
        "leaks": run.json("data/leaks.json"),
        "tokens": {base: _tokens(found) for base, found in tokens.items() if found},
        "rejected": [
            {key: row.get(key) for key in ("source", "line", "reason", "detail")}
            | {"row": answers.shortened(str(row.get("row", "")), 300)}
            for row in rejected[:EXAMPLES]
        ],
    }


def _tokens(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "verdicts": found.get("verdicts", [])[:EXAMPLES], "listed": len(found.get("verdicts", []))}


def _training(run: RunFiles) -> dict[str, Any]:
    experiments = []
    selection = run.json("train/selection.json")
    names = [path.parent.name for path in run.glob("train/*/summary.json")]
    for name in experiment_overview.shown(names, selection or {}):
        experiments.append(
            {
                "name": name,
                "summary": run.json(f"train/{name}/summary.json"),
                "timing": run.optional_json(f"train/{name}/timing.json"),
                "metrics": _curve(run.lines(f"train/{name}/metrics.jsonl")),
            }
        )
    return {
        "experiments": experiments,
        "left_out": len(names) - len(experiments),
        "what_matters": experiment_overview.what_matters(selection or {}),
        "selection": selection,
        "pilot": {
            "summary": run.optional_json("pilot/summary.json"),
            "metrics": _curve(run.optional_lines("pilot/metrics.jsonl")),
        },
    }


def _curve(lines: list[dict[str, Any]], most: int = 400) -> dict[str, list[list[float]]]:
    """The points of each curve as [update, value]; a long curve is thinned to at most `most` points, ends kept."""
    curves: dict[str, list[list[float]]] = {}
    for line in lines:
        for name in ("loss", "validation_loss", "learning_rate", "gradient_norm"):
            if isinstance(line.get(name), int | float):
                curves.setdefault(name, []).append([line["update"], line[name]])
    return {name: _thinned(points, most) for name, points in curves.items()}


def _thinned(points: list[list[float]], most: int) -> list[list[float]]:
    if len(points) <= most:
        return points
    step = (len(points) - 1) / (most - 1)
    return [points[round(i * step)] for i in range(most)]


def _model(run: RunFiles) -> dict[str, Any]:
    files = []
    for path in run.glob("model/*.gguf"):
        kind = path.stem.removeprefix(f"{run.name}-")
        files.append({"file": path.as_posix(), "type": kind, "bytes": path.stat().st_size})
    modelfile, card = run.path("model/Modelfile"), run.path("model/README.md")
    return {
        "files": files,
        "fused": run.json("model/fused.json"),
        "modelfile": modelfile.as_posix() if modelfile else None,
        "ollama": _ollama(modelfile) if modelfile else None,
        "card": card.as_posix() if card else None,
        "served": run.optional_json("model/served.json"),
        "serving_times": run.optional_json("model/timing.json"),
    }


def _ollama(modelfile: Path) -> str | None:
    """The command that a Modelfile names in its first line."""
    with open(modelfile, encoding="utf-8", errors="replace") as lines:
        first = lines.readline().removeprefix("#").strip()
    return first if first.startswith("ollama create ") else None


def _evaluation(run: RunFiles, settings: dict[str, Any]) -> dict[str, Any]:
    names = [path.parent.name for path in run.glob("evaluation/*/scores.json")]
    scores = {name: run.json(f"evaluation/{name}/scores.json") for name in names}
    scores = {name: found for name, found in sorted(scores.items(), key=lambda it: artefact_order(it[0])) if found}
    predictions = {name: run.lines(f"evaluation/{name}/predictions.jsonl") for name in scores}
    tuned = conclusion.deployed(list(scores), settings)
    base = "base" if "base" in scores else None
    return {
        "artefacts": [{"name": name, "title": title(name), **(found or {})} for name, found in scores.items()],
        "base": base,
        "tuned": tuned,
        "comparison": run.json("evaluation/comparison.json"),
        "answers": answers.side_by_side(predictions, base=base, tuned=tuned, seed=settings.get("seed", 1)),
        "prompts": answers.unscored({name: run.optional_lines(f"evaluation/{name}/prompts.jsonl") for name in scores}),
    }


def title(artefact: str) -> str:
    """What an artefact is called on the page."""
    if artefact.startswith("gguf-"):
        return f"tuned {artefact.removeprefix('gguf-').upper()} GGUF"
    return NAMES.get(artefact, artefact)


def artefact_order(name: str) -> tuple[int, int, str]:
    """From the base along the chain to the smallest file."""
    if name in ORDER:
        return ORDER.index(name), 0, name
    bits = re.search(r"gguf-\D*(\d+)", name)
    return len(ORDER), -int(bits.group(1)) if bits else 0, name
