"""All runs side by side: their data, the settings that differ, their scores on the same rows, and which is better."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from snaketune import files
from snaketune.config.schema import canonical
from snaketune.evaluate import paired_tests
from snaketune.evaluate.metrics import METRICS, Line, find
from snaketune.evaluate.score import scored
from snaketune.files import StrPath
from snaketune.report import conclusion, page, view_models
from snaketune.report.formatting import shown
from snaketune.report.run_files import RunFiles

NOT_SETTINGS = ("run", "compare_with")
STYLES = ("style.css", "human_eval.css")
SPLITS = ("train", "valid", "test")


def run(*, folders: Iterable[StrPath], page_file: StrPath, record: StrPath, seed: int) -> dict[str, Any]:
    """Write runs.html and runs.json for the runs in some folders, each with its report; returns the facts."""
    found = collect(folders, seed)
    files.write_json(record, found)
    files.write_text(page_file, page.templated("runs.html", None, STYLES, found=found, **_values(found)))
    return found


def collect(folders: Iterable[StrPath], seed: int) -> dict[str, Any]:
    """{"runs", "settings", "comparisons", "common"}: the runs in natural order of their names (v2 before v10).

    A run is compared with the one before it and with the one that its compare_with names, on the rows that stand in
    the test splits of both; `common` holds the scores on the rows that stand in all.
    """
    given = sorted(map(Path, folders), key=lambda folder: natural(folder.name))
    read = [(folder, RunFiles(folder).json("report/report.json")) for folder in given]
    known = [_run(folder, found) for folder, found in read if found]
    lines = {it["run"]: _lines(it) for it in known}
    return {
        "runs": known,
        "unreadable": [folder.name for folder, found in read if not found],
        "settings": differing({it["run"]: it["config"] for it in known}),
        "comparisons": _comparisons(known, lines, seed),
        "common": _common(lines, seed),
    }


def natural(name: str) -> list[Any]:
    """A key that sorts v2 before v10."""
    return [(int(part), "") if at % 2 else (-1, part) for at, part in enumerate(re.split(r"(\d+)", name))]


def _run(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    tuned = found["evaluation"]["tuned"]
    artefact: dict[str, Any] = next((it for it in found["evaluation"]["artefacts"] if it["name"] == tuned), {})
    return {
        "run": folder.name,
        "folder": folder.as_posix(),
        "status": found["verdict"]["status"],
        "verdict": found["verdict"]["sentence"],
        "file": found["verdict"]["file"],
        "bytes": found["verdict"]["bytes"],
        "tuned": tuned,
        "rows": artefact.get("rows"),
        "metrics": artefact.get("metrics", {}),
        "config": found["config"],
        "base": (found["config"].get("model") or {}).get("base"),
        "split": (found["data"]["split"] or {}).get("rows"),
        "sources": (found["provenance"] or {}).get("sources", []),
    }


def _lines(found: dict[str, Any]) -> dict[str, Line]:
    """The deployed artefact's predictions by id."""
    if not found["tuned"]:
        return {}
    lines = RunFiles(found["folder"]).optional_lines(f"evaluation/{found['tuned']}/predictions.jsonl")
    return {str(line["id"]): line for line in lines}


def differing(configs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Settings that are not the same in all runs: {"key", "values": {run: value}}."""
    flat = {name: dict(_flat(config)) for name, config in configs.items()}
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    return [
        {"key": key, "values": {name: settings.get(key) for name, settings in flat.items()}}
        for key in keys
        if len({canonical(settings.get(key)) for settings in flat.values()}) > 1
    ]


def _flat(value: dict[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for key, below in value.items():
        if not above and key in NOT_SETTINGS:
            continue
        if isinstance(below, dict) and below:
            yield from _flat(below, f"{above}{key}.")
        else:
            yield f"{above}{key}", below


def _comparisons(known: Sequence[dict[str, Any]], lines: dict[str, dict[str, Line]], seed: int) -> list[dict[str, Any]]:
    by_name = {it["run"]: it for it in known}
    pairs = [(newer["run"], older["run"]) for older, newer in itertools.pairwise(known)]
    named = [(it["run"], it["config"].get("compare_with")) for it in known]
    pairs += [(newer, older) for newer, older in named if older in by_name and (newer, older) not in pairs]
    paired = {pair: _paired(*pair, lines) for pair in pairs}
    tests = [it for it in paired.values() if it is not None]
    tested = dict(
        zip(((it.artefact, it.against) for it in tests), paired_tests.compared(tests, METRICS, seed), strict=True)
    )
    ids = {
        name: _rows(Path(by_name[name]["folder"])) for name in dict.fromkeys(name for pair in pairs for name in pair)
    }
    found = []
    for newer, older in pairs:
        pair = tested.get((newer, older))
        status, sentence = (
            conclusion.judged(newer, older, pair, METRICS) if pair else ("unknown", _incomparable(newer, older))
        )
        found.append(
            {"run": newer, "against": older, "status": status, "sentence": sentence}
            | {"rows": pair["rows"] if pair else 0, "metrics": pair["metrics"] if pair else {}}
            | {"data": _difference(ids[newer], ids[older])}
        )
    return found


def _incomparable(newer: str, older: str) -> str:
    return f"{newer} and {older} have no test row in common, so their scores cannot be compared."


def _paired(newer: str, older: str, lines: dict[str, dict[str, Line]]) -> paired_tests.Paired | None:
    """The rows that both answered, with the same reference."""
    ours, theirs = lines[newer], lines[older]
    common = [row for row in theirs if row in ours and ours[row].get("reference") == theirs[row].get("reference")]
    if not common:
        return None
    return paired_tests.Paired(newer, older, [ours[row] for row in common], [theirs[row] for row in common])


class _Id(msgspec.Struct):
    id: str


def _rows(folder: Path) -> dict[str, str]:
    """The split in which each row of a run stands; ids are made of the rows' content."""
    decode = msgspec.json.Decoder(_Id).decode
    found: dict[str, str] = {}
    for split in SPLITS:
        path = folder / "data" / f"{split}.jsonl"
        if path.is_file():
            with open(path, "rb") as rows:
                found |= {decode(row).id: split for row in rows}
    return found


def _difference(ours: dict[str, str], theirs: dict[str, str]) -> dict[str, int]:
    return {
        "added": len(ours.keys() - theirs.keys()),
        "removed": len(theirs.keys() - ours.keys()),
        "kept": len(ours.keys() & theirs.keys()),
        "moved": sum(theirs[row] != split for row, split in ours.items() if row in theirs),
    }


def _common(lines: dict[str, dict[str, Line]], seed: int) -> dict[str, Any] | None:
    """Scores with intervals on the rows that all runs answered; None where there are none, or fewer than two runs."""
    answered = {name: found for name, found in lines.items() if found}
    if len(answered) < 2:
        return None
    first = next(iter(answered.values()))
    shared = [row for row in first if all(row in found for found in answered.values())]
    shared = [row for row in shared if len({found[row].get("reference") for found in answered.values()}) == 1]
    if not shared:
        return None
    return {
        "rows": len(shared),
        "runs": {name: scored([it[row] for row in shared], METRICS, seed)["metrics"] for name, it in answered.items()},
    }


def _values(found: dict[str, Any]) -> dict[str, Any]:
    """What runs.html needs beside the facts."""
    common = (found["common"] or {}).get("runs", {})
    newest = found["runs"][-1]["run"] if found["runs"] else None
    evaluation = {
        "artefacts": [{"name": name, "title": name, "metrics": metrics} for name, metrics in common.items()],
        "base": None,
        "tuned": newest,
        "comparison": None,
    }
    return {
        "newest": found["comparisons"][len(found["runs"]) - 2] if found["comparisons"] else None,
        "panels": view_models.panels(evaluation, METRICS),
        "details": {
            f"{it['run']} {it['against']}": [
                {
                    "title": metric.label,
                    "value": shown(metric, entry["value"]),
                    "against": shown(metric, entry["against"]),
                    "said": view_models.difference(metric, entry, it["against"]),
                }
                for metric, entry in ((find(name, METRICS), entry) for name, entry in it["metrics"].items())
            ]
            for it in found["comparisons"]
        },
    }
