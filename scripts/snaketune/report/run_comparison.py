"""All runs side by side: their data, the settings that differ, their scores on the same rows, and which is better."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from snaketune import files
from snaketune.config import schema
from snaketune.contracts.data import SPLITS, content_id
from snaketune.contracts.evaluate import PairComparison, Prediction
from snaketune.contracts.report import JsonObject, RunReport
from snaketune.contracts.run_comparison import (
    CommonScores,
    DataChange,
    RunPair,
    RunsReport,
    RunSummary,
    SettingDifference,
)
from snaketune.evaluate import compare
from snaketune.evaluate.metrics import METRICS
from snaketune.evaluate.score import score_predictions
from snaketune.files import StrPath, replacing
from snaketune.report import conclusion, page, scores_in_words, view_models
from snaketune.report.run_files import RunFiles

NOT_SETTINGS = ("run", "compare_with")
STYLES = ("style.css", "human_eval.css")
Predictions = Mapping[str, Mapping[str, Prediction]]  # run -> prediction id -> prediction


def run(*, folders: Iterable[StrPath], page_file: StrPath, record: StrPath, table: StrPath, seed: int) -> RunsReport:
    """Write runs.html, runs.json and runs.csv for the runs in some folders, each with its report."""
    found = collect(folders, seed)
    files.write_json(record, found)
    write_table(table, found)
    files.write_text(page_file, page.templated("runs.html", None, STYLES, found=found, **_values(found)))
    return found


def collect(folders: Iterable[StrPath], seed: int) -> RunsReport:
    """The runs in natural order of their names (v2 before v10), and how they compare.

    A run is compared with the one before it and with the one that its compare_with names, on the rows that stand in
    the test splits of both.
    """
    given = sorted(map(Path, folders), key=lambda folder: natural_key(folder.name))
    read = [(folder, RunFiles(folder).record("report/report.json", RunReport)) for folder in given]
    summaries = [_summary(folder, report) for folder, report in read if report]
    predictions = {summary.run: _predictions(summary) for summary in summaries}
    comparisons, num_tests = _comparisons(summaries, predictions, seed)
    return RunsReport(
        runs=summaries,
        unreadable=[folder.name for folder, report in read if not report],
        settings=differing_settings({summary.run: summary.config for summary in summaries}),
        comparisons=comparisons,
        num_tests=num_tests,
        common=_common_scores(predictions, seed),
    )


def natural_key(name: str) -> list[tuple[int, str]]:
    """A key that sorts v2 before v10."""
    return [(int(part), "") if at % 2 else (-1, part) for at, part in enumerate(re.split(r"(\d+)", name))]


def _summary(folder: Path, report: RunReport) -> RunSummary:
    concluded, scores = report.conclusion, report.evaluation.scores_of(report.evaluation.tuned)
    forgotten = conclusion.forgetting_of(report)
    return RunSummary(
        run=folder.name,
        folder=folder.as_posix(),
        status=concluded.status,
        conclusion=concluded.sentence,
        quality=concluded.quality,
        file=concluded.file,
        bytes=concluded.bytes,
        tuned=report.evaluation.tuned,
        rows=scores.rows if scores else None,
        metrics=scores.metrics if scores else {},
        forgetting=forgotten.ratio if forgotten else None,
        config=report.config,
        base=(report.config.get("model") or {}).get("base"),
        split=report.data.split.rows if report.data.split else None,
        sources=(report.provenance or {}).get("sources", []),
    )


def _predictions(summary: RunSummary) -> dict[str, Prediction]:
    """The predictions of the variant to deploy, by the id of their content: a later version may pin their split."""
    if not summary.tuned:
        return {}
    lines = RunFiles(summary.folder).optional_records(f"evaluation/{summary.tuned}/predictions.jsonl", Prediction)
    return {content_id(one.id): one for one in lines}


def differing_settings(configs: Mapping[str, JsonObject]) -> list[SettingDifference]:
    """Settings that are not the same in all runs."""
    flat = {name: dict(_flatten(config)) for name, config in configs.items()}
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    return [
        SettingDifference(key=key, values={name: settings.get(key) for name, settings in flat.items()})
        for key in keys
        if len({schema.canonical(settings.get(key)) for settings in flat.values()}) > 1
    ]


def _flatten(value: JsonObject, above: str = "") -> Iterable[tuple[str, object]]:
    for key, below in value.items():
        if not above and key in NOT_SETTINGS:
            continue
        if isinstance(below, dict) and below:
            yield from _flatten(below, f"{above}{key}.")
        else:
            yield f"{above}{key}", below


def _comparisons(summaries: Sequence[RunSummary], predictions: Predictions, seed: int) -> tuple[list[RunPair], int]:
    """The comparisons, and how many tests their outcomes are corrected for."""
    by_name = {summary.run: summary for summary in summaries}
    names = [(newer.run, older.run) for older, newer in itertools.pairwise(summaries)]
    named = [(summary.run, summary.config.get("compare_with")) for summary in summaries]
    names += [(newer, older) for newer, older in named if older in by_name and (newer, older) not in names]
    paired = [pair for pair in (_pair(*each, predictions) for each in names) if pair is not None]
    tested = {(pair.variant, pair.baseline): pair for pair in compare.compare_pairs(paired, METRICS, seed)}
    splits = {name: _splits_of_rows(Path(by_name[name].folder)) for name in dict.fromkeys(itertools.chain(*names))}
    comparisons = [
        _run_pair(by_name[newer], by_name[older], tested.get((newer, older)), _change(splits[newer], splits[older]))
        for newer, older in names
    ]
    return comparisons, sum(len(pair.metrics) for pair in tested.values())


def _run_pair(newer: RunSummary, older: RunSummary, pair: PairComparison | None, data: DataChange) -> RunPair:
    if pair is None:
        sentence = f"{newer.run} and {older.run} have no test row in common, so their scores cannot be compared."
        return RunPair(
            run=newer.run,
            baseline=older.run,
            status="unknown",
            sentence=sentence,
            rows=0,
            clusters=0,
            metrics={},
            data=data,
        )
    status, sentence = scores_in_words.compare_in_words(newer.run, older.run, pair, METRICS)
    more = scores_in_words.forgetting_in_words(newer.forgetting, older.forgetting)
    return RunPair(
        run=newer.run,
        baseline=older.run,
        status=status,
        sentence=f"{sentence} {more}" if more else sentence,
        rows=pair.rows,
        clusters=pair.clusters,
        metrics=pair.metrics,
        data=data,
    )


def _pair(newer: str, older: str, predictions: Predictions) -> compare.PairedPredictions | None:
    """The rows that both answered, with the same reference."""
    of_newer, of_older = predictions[newer], predictions[older]
    common = [row for row in of_older if row in of_newer and of_newer[row].reference == of_older[row].reference]
    if not common:
        return None
    return compare.PairedPredictions(newer, older, [of_newer[row] for row in common], [of_older[row] for row in common])


class _Id(msgspec.Struct):
    id: str


def _splits_of_rows(folder: Path) -> dict[str, str]:
    """The split in which each row of a run stands; ids are made of the rows' content."""
    decode = msgspec.json.Decoder(_Id).decode
    found: dict[str, str] = {}
    for split in SPLITS:
        path = folder / "data" / f"{split}.jsonl"
        if path.is_file():
            with open(path, "rb") as rows:
                found |= {content_id(decode(row).id): split for row in rows}
    return found


def _change(newer: Mapping[str, str], older: Mapping[str, str]) -> DataChange:
    return DataChange(
        added=len(newer.keys() - older.keys()),
        removed=len(older.keys() - newer.keys()),
        kept=len(newer.keys() & older.keys()),
        moved=sum(older[row] != split for row, split in newer.items() if row in older),
    )


def _common_scores(predictions: Predictions, seed: int) -> CommonScores | None:
    """Scores with intervals on the rows that all runs answered; None where there are none, or fewer than two runs."""
    answered = {name: found for name, found in predictions.items() if found}
    if len(answered) < 2:
        return None
    first = next(iter(answered.values()))
    shared = [row for row in first if all(row in found for found in answered.values())]
    shared = [row for row in shared if len({found[row].reference for found in answered.values()}) == 1]
    if not shared:
        return None
    scores = {
        name: score_predictions([found[row] for row in shared], METRICS, seed) for name, found in answered.items()
    }
    some = next(iter(scores.values()))
    return CommonScores(
        rows=some.rows, clusters=some.clusters, runs={name: found.metrics for name, found in scores.items()}
    )


def write_table(path: StrPath, found: RunsReport) -> None:
    """Write the runs as CSV: a line each with its conclusion, its scores, and the settings that differ."""
    import pandas

    rows = [
        {"run": summary.run, "base": summary.base, "status": summary.status, "file": summary.file}
        | {"bytes": summary.bytes, "rows": summary.rows, "forgetting": summary.forgetting}
        | {f"rows.{split}": count for split, count in (summary.split or {}).items()}
        | {name: score.value for name, score in summary.metrics.items()}
        | {each.key: _cell(each.values[summary.run]) for each in found.settings}
        for summary in found.runs
    ]
    columns = list(dict.fromkeys(["run", *(name for row in rows for name in row)]))
    with replacing(path) as temporary:
        pandas.DataFrame(rows, columns=columns).to_csv(temporary, index=False, lineterminator="\n")


def _cell(value: object) -> object:
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list) else value


def _values(found: RunsReport) -> view_models.Values:
    """What runs.html needs beside the findings."""
    newest = found.runs[-1].run if found.runs else None
    rows = [
        view_models.Row(title=name, tuned=name == newest, scores=metrics, differences={})
        for name, metrics in (found.common.runs if found.common else {}).items()
    ]
    return {
        "newest": found.comparisons[len(found.runs) - 2] if found.comparisons else None,
        "panels": view_models.panels(rows, METRICS),
        "details": {
            (pair.run, pair.baseline): view_models.metric_changes(pair.metrics, METRICS, found.num_tests, pair.baseline)
            for pair in found.comparisons
        },
    }
