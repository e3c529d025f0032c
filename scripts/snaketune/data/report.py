"""Counts of what became of the rows, and what they suggest: report.json, the messages that stop a run, the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import msgspec
import numpy as np

from snaketune.contracts.data import (
    SPLITS,
    ClusterCounts,
    DataReport,
    LeakReport,
    LengthReport,
    SamePrompt,
    SourceReport,
    SplitReport,
)
from snaketune.data import guess
from snaketune.data.deduplication import DedupResult, RowIndex
from snaketune.data.readers.raw_row import REJECTION_REASONS, Rejection, recode
from snaketune.errors import DataError
from snaketune.files import StrPath

MAX_COLUMNS = 12  # names in a message
MAX_IN_MESSAGE = 5  # reasons in a message
MAX_EXAMPLES = 3  # of each reason in the report


class SourceCounts:
    """What became of the rows of one source. name: its path as configured; fields: the names it maps."""

    def __init__(self, name: str, fields: dict[str, str] | None = None) -> None:
        self.name = name
        self.fields = fields or {}
        self.read = self.duplicates = self.near_duplicates = 0
        self.available: int | None = None  # rows in the source, where it has a limit
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.unknown: list[dict[str, object]] = []  # the first rows that were rejected for their fields

    @property
    def kept(self) -> int:
        return self.read - self.reasons.total() - self.duplicates - self.near_duplicates

    def report(self) -> SourceReport:
        return SourceReport(
            source=self.name,
            read=self.read,
            kept=self.kept,
            rejected=self.reasons.total(),
            duplicates=self.duplicates,
            near_duplicates=self.near_duplicates,
            available=self.available,
        )

    def reject(self, reason: Rejection, where: str, row: object = None) -> None:
        self.reasons[reason.code] += 1
        is_sample = len(self.unknown) < guess.MAX_SAMPLE and isinstance(row, dict)
        if is_sample and reason.code in ("unknown-format", "missing-field", "wrong-type"):
            self.unknown.append(row)  # type: ignore[arg-type]
        examples = self.examples.setdefault(reason.code, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(f"{where}: {reason.detail}")

    def raise_if_unusable(self) -> None:
        """Stop at a source without a usable row."""
        if not self.read:
            raise DataError("there are no rows in it", where=self.name, fix="Name the file that holds the data")
        if self.reasons.total() == self.read:
            raise DataError(
                f"none of its {self.read} rows can be used, in any format known here:{_most_common([self])}\n",
                where=self.name,
                fix=self._mapping_advice(),
            )

    def _mapping_advice(self) -> str:
        """How to name this source's own columns in the configuration: a guess, with a row as the model would see it."""
        found = guess.guess(self.unknown, self.fields)
        if not found.settings():
            return "If only the names of the fields differ, name yours in this source's `fields`"
        wrong = [yours for yours in self.fields.values() if yours not in found.columns]
        shown = ", ".join(found.columns[:MAX_COLUMNS]) + (", ..." if len(found.columns) > MAX_COLUMNS else "")
        example = guess.example(self.unknown[0], found).replace("\n", "\n    ")
        return (
            f"Its columns are {shown}"
            + (f"; `fields` names {', '.join(wrong)}, which it does not have" if wrong else "")
            + f". If it is only their names, write:\n  {guess.line(self.name, found)}\n"
            f"(a guess by {found.why}). A row would then be:\n    {example}\n"
        )


def raise_if_too_many_rejected(counts: list[SourceCounts], allowed: float, rejected: Path) -> None:
    """Stop when a larger share of all rows than `allowed` is rejected; rejected: where they can be looked at."""
    read, bad = sum(count.read for count in counts), sum(count.reasons.total() for count in counts)
    if bad > allowed * read:
        raise DataError(
            f"{bad} of {read} rows ({bad / read:.1%}) cannot be used, and data.max_rejected allows {allowed:.1%}:"
            f"{_most_common(counts)}\n",
            where="data",
            fix=_recoding_advice(counts)
            + f"Fix the rows listed in {rejected}, or raise data.max_rejected to accept losing them",
        )


def _recoding_advice(counts: list[SourceCounts]) -> str:
    """For sources of which more than a tenth is not UTF-8: the command that makes it so."""
    bad = [count.name for count in counts if count.reasons["bad-encoding"] > 0.1 * count.read]
    return "".join(
        f"{name} is not UTF-8: if it comes from Windows, name a copy made with `{recode(name, 'WINDOWS-1252')}`. "
        for name in bad
    )


def _most_common(counts: list[SourceCounts]) -> str:
    reasons, examples = _merge(counts)
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:MAX_IN_MESSAGE]
    return "".join(
        f"\n  {count:>7} {code}: {REJECTION_REASONS[code]}. For example {examples[code][0]}" for code, count in ranked
    )


def _merge(counts: list[SourceCounts]) -> tuple[Counter[str], dict[str, list[str]]]:
    reasons: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for count in counts:
        reasons += count.reasons
        for code, found in count.examples.items():
            examples[code] = (examples.get(code, []) + found)[:MAX_EXAMPLES]
    return reasons, examples


def build(
    counts: list[SourceCounts],
    duplicate_examples: list[list[str]],
    rows: RowIndex,
    dedup: DedupResult,
    dropped: Collection[int],
) -> DataReport:
    """Build report.json. dropped: the rows that are not kept."""
    reasons, examples = _merge(counts)
    kept = np.ones(len(rows), bool)
    kept[list(dropped)] = False
    positions = np.flatnonzero(kept)
    lengths = np.array(rows.lengths, np.int64).reshape(-1, 2)[kept]
    total = lengths.sum(axis=1)
    by_length = positions[np.argsort(total, kind="stable")]
    categories = Counter(np.array(rows.category)[kept].tolist())
    report = DataReport(
        read=sum(count.read for count in counts),
        kept=sum(count.kept for count in counts),
        rejected=reasons.total(),
        duplicates=sum(count.duplicates for count in counts),
        near_duplicates=sum(count.near_duplicates for count in counts),
        reasons={code: reasons[code] for code in REJECTION_REASONS if reasons[code]},
        examples={code: examples[code] for code in REJECTION_REASONS if reasons[code]},
        sources=[count.report() for count in counts],
        duplicate_examples=duplicate_examples,
        near_duplicate_examples=[
            [rows.where(row), rows.where(of)] for row, of in sorted(dedup.removed.items())[:MAX_EXAMPLES]
        ],
        same_prompt=_same_prompt(rows, kept),
        clusters=ClusterCounts(
            count=sum(n > 1 for n in dedup.sizes),
            rows=sum(n for n in dedup.sizes if n > 1),
            largest=max(dedup.sizes, default=0),
        ),
        groups=len(rows.groups),
        categories={name: categories[index] for name, index in sorted(rows.categories.items())},
        lengths=LengthReport(
            unit="characters",
            histogram=histogram(total),
            row=quantiles(total),
            prompt=quantiles(lengths[:, 0]),
            response=quantiles(lengths[:, 1]),
        ),
        shortest=[rows.where(row) for row in by_length[:MAX_EXAMPLES].tolist()],
        longest=[rows.where(row) for row in by_length[::-1][:MAX_EXAMPLES].tolist()],
        advice=[],
    )
    return msgspec.structs.replace(report, advice=advice(report))


def _same_prompt(rows: RowIndex, kept: np.ndarray) -> SamePrompt:
    prompts, positions = np.array(rows.prompt_hash, np.uint64)[kept], np.flatnonzero(kept)
    _, first, which, counts = np.unique(prompts, return_index=True, return_inverse=True, return_counts=True)
    shared = np.flatnonzero((counts[which] > 1) & (prompts != 0))
    in_order = positions[shared[np.lexsort((shared, first[which[shared]]))]]
    return SamePrompt(
        prompts=len(set(which[shared].tolist())),
        rows=len(shared),
        examples=[rows.where(row) for row in in_order[: 2 * MAX_EXAMPLES].tolist()],
    )


def histogram(lengths: np.ndarray) -> list[dict[str, int]]:
    """How many lengths lie in each of classes that double: {"from", "to" (not included), "rows"}."""
    if not len(lengths):
        return []
    bounds = [0, 16]
    while bounds[-1] <= lengths.max():
        bounds.append(2 * bounds[-1])
    counts, _ = np.histogram(lengths, bounds)
    return [
        {"from": low, "to": high, "rows": count}
        for low, high, count in zip(bounds[:-1], bounds[1:], counts.tolist(), strict=True)
    ]


def quantiles(lengths: np.ndarray) -> dict[str, int]:
    """The smallest, middle, 95th of a hundred, and largest length."""
    places = {"smallest": 0.0, "median": 0.5, "p95": 0.95, "largest": 1.0}
    ordered = np.sort(lengths)
    return (
        {name: int(ordered[int(share * (len(ordered) - 1))]) for name, share in places.items()} if len(ordered) else {}
    )


def advice(report: DataReport) -> list[str]:
    """What the counts suggest, in sentences; the row counts are the field's own rules of thumb."""
    kept, sentences = report.kept, []
    if kept < 1000:
        goal = (
            "enough for a style at best (10 to 50 rows, 100 to 200 are better)"
            if kept < 50
            else "enough for a style or a small task; domain knowledge wants 1,000 or more"
            if kept < 500
            else "enough for a task; domain knowledge wants 1,000 or more, broad skill 5,000"
        )
        sentences.append(f"{kept} usable rows are {goal}.")
    if report.near_duplicates > 0.2 * report.read:
        sentences.append(
            f"{report.near_duplicates} rows were removed as near duplicates; look at the examples, and raise "
            "data.near_duplicates or set it to false if they should count as different."
        )
    if report.duplicates > 0.2 * report.read:
        sentences.append(
            "More than a fifth of the rows are exact duplicates; to show rows more often, use a source's weight."
        )
    if report.same_prompt.rows > 0.1 * max(kept, 1):
        sentences.append(
            f"{report.same_prompt.rows} rows share their question with another answer; where the answers contradict "
            "each other, the model learns a mixture."
        )
    if report.clusters.largest > max(0.2 * kept, 10):
        sentences.append(
            f"{report.clusters.largest} rows belong together (near duplicates, one question or one group) and must "
            "share a split, so the splits may come out far from their shares."
        )
    return sentences


def summary_sentence(report: DataReport, split: SplitReport) -> str:
    """Summarize the same in half a sentence."""
    left_out = {
        "rejected": report.rejected,
        "duplicates": report.duplicates,
        "near duplicates": report.near_duplicates,
    }
    parts = ", ".join(f"{count:,} {name}" for name, count in left_out.items() if count)
    splits = ", ".join(f"{split.rows[name]:,} {name}" for name in SPLITS)
    return f"{report.kept:,} of {report.read:,} rows kept{f' ({parts})' if parts else ''}: {splits}"


def summary_lines(report: DataReport, split: SplitReport, leaks: LeakReport, rejected: StrPath) -> list[str]:
    """Summarize report.json, split.json and leaks.json: five lines, and one for each remark.

    rejected: the file that lists the rejected rows.
    """
    reasons = ", ".join(f"{count} {code}" for code, count in report.reasons.items())
    length = report.lengths.row
    leaking = ", ".join(f"{n} of {leaks.rows[name]} {name}" for name, n in leaks.affected.items() if n)
    return [
        f"rows     {report.read} read = {report.kept} kept + {report.rejected} rejected + "
        f"{report.duplicates} duplicates + {report.near_duplicates} near duplicates",
        f"rejected {f'{reasons}; see {rejected}' if reasons else 'none'}",
        f"splits   {', '.join(f'{split.rows[name]} {name}' for name in SPLITS)}; {split.clustered_rows} rows in "
        f"{split.clusters} clusters that stay together",
        f"lengths  {length['smallest']} to {length['largest']} characters, half of the rows below {length['median']}"
        if length
        else "lengths  no rows",
        f"leaks    {f'{leaking} rows belong together with rows of another split' if leaking else 'none'}",
        *(f"remark   {sentence}" for sentence in (*split.warnings, *report.advice)),
    ]
