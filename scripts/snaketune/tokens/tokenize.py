"""Tokenizes the splits once: filters rows by tokens, writes token stores and tokens.json."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from snaketune.config.sections import Section
from snaketune.contracts.data import DataRecord, FilteredRow, LengthClass, SplitTokens, TokenReport
from snaketune.data.records import iter_texts
from snaketune.errors import DataError
from snaketune.files import StrPath, read_jsonl, write_json
from snaketune.model import untrusted_files
from snaketune.model.manifest import declared_context_length, read_manifest
from snaketune.runtime.events import report_warning
from snaketune.runtime.progress import progress
from snaketune.tokens.chat_template import Rendered, Renderer
from snaketune.tokens.token_store import write_store

FILTER_REASONS = {
    "too-long": "more tokens than data.max_length",
    "answer-cut-off": "its answer begins beyond data.max_length, so nothing of it would be trained",
    "no-trained-token": "no token of it would be trained",
    "special-token": "its content holds a special token of the model, with which it could forge a turn",
    "not-rendered": "the chat template refuses it, or does not show it as it is written",
}


TEXT_HAS_NO_TEMPLATE = "prompt tuning needs rows with messages, into which the chat template puts its virtual tokens"
STRESS_TEXTS = [f"{run * 2000}{end}" for run in ("a", " ", "1", "!", "aA", "a ", "\n") for end in ("", "!", "\u00e9")]
BINS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class TemplateConfig(Section, frozen=True, kw_only=True):
    """What the tokens of a row depend on: a key of `model`, and `TrainConfig.virtual_tokens`."""

    chat_template: str | None
    num_virtual_tokens: int


class FilterConfig(Section, frozen=True, kw_only=True):
    """The part of `data` that the filtering of rows by their tokens depends on; max_length in tokens."""

    max_length: int
    on_too_long: Literal["truncate", "drop"]


@dataclass(frozen=True)
class FilterResult:
    """What is done with a row for its tokens.

    reason: a key of FILTER_REASONS, or empty; rendered: what is trained on, None when dropped; tokens: the length of
    the whole row before anything is cut (0 where it could not be rendered).
    """

    action: Literal["keep", "cut", "drop"]
    tokens: int
    rendered: Rendered | None = None
    reason: str = ""
    detail: str = ""


class TokenFilter:
    """Keeps, truncates or drops records by their tokens."""

    def __init__(self, renderer: Renderer, config: FilterConfig) -> None:
        self.renderer = renderer
        self.max_length = config.max_length
        self.truncates = config.on_too_long == "truncate"
        tokens = sorted(renderer.special_tokens, key=lambda token: (-len(token), token))
        self.special_token_pattern = re.compile("|".join(map(re.escape, tokens))) if tokens else None

    def filter(self, record: DataRecord) -> FilterResult:
        """Render one record and decide."""
        if self.renderer.virtual_ids and "text" in record:
            return FilterResult("drop", 0, reason="not-rendered", detail=TEXT_HAS_NO_TEMPLATE)
        injected = self._injected_special_token(record)
        if injected and "text" not in record:
            return FilterResult("drop", 0, reason="special-token", detail=f"it contains {injected}")
        rendered = self.renderer.record_or_reason(record)
        if isinstance(rendered, str):
            return FilterResult("drop", 0, reason="not-rendered", detail=rendered)
        tokens = len(rendered.ids)
        # The first token is predicted from nothing, so it is never a target.
        if not any(rendered.loss_mask[1:]):
            return FilterResult("drop", tokens, reason="no-trained-token", detail=f"{tokens} tokens, none a target")
        if tokens > self.max_length:
            return self._too_long(rendered, tokens)
        if injected:  # a text that was rendered by hand may hold turns on purpose
            return FilterResult("keep", tokens, rendered, "special-token", f"it contains {injected}")
        return FilterResult("keep", tokens, rendered)

    def _too_long(self, rendered: Rendered, tokens: int) -> FilterResult:
        excess = f"{tokens} tokens; data.max_length is {self.max_length}"
        if not self.truncates:
            return FilterResult("drop", tokens, reason="too-long", detail=excess)
        cut = Rendered(rendered.ids[: self.max_length], rendered.loss_mask[: self.max_length])
        if not any(cut.loss_mask[1:]):
            return FilterResult("drop", tokens, reason="answer-cut-off", detail=excess)
        lost = sum(rendered.loss_mask[self.max_length :])
        return FilterResult("cut", tokens, cut, "too-long", f"{excess}; {lost} trained tokens at its end are lost")

    def _injected_special_token(self, record: DataRecord) -> str:
        """The first special token in anything that the row's author wrote."""
        if self.special_token_pattern:
            for text in iter_texts(record):
                found = self.special_token_pattern.search(text)
                if found:
                    return found[0]
        return ""


def token_filter_of(renderer: Renderer, config: FilterConfig) -> TokenFilter:
    """The filter of the rows of a base; its own context is the limit where max_length is longer."""
    limit = min(config.max_length, declared_context_length(renderer.folder) or config.max_length)
    return TokenFilter(renderer, msgspec.structs.replace(config, max_length=limit))


class _SplitFilter:
    """Filters the rows of one split, and counts them."""

    def __init__(self, token_filter: TokenFilter) -> None:
        self.token_filter = token_filter
        self.counts: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        self.flagged: list[FilteredRow] = []

    def rows(self, path: StrPath) -> Iterator[tuple[Rendered, float]]:
        """Yield the kept rows of a file and their weights."""
        counts = self.counts
        for record in progress(read_jsonl(path), f"tokenizing {Path(path).stem}"):
            result = self.token_filter.filter(record)
            counts["rows"] += 1
            self.lengths[next((edge for edge in BINS if result.tokens <= edge), 0)] += 1
            if result.reason:
                self.flagged.append(filtered_row(record, result))
            if result.rendered is None:
                counts["dropped"] += 1
                continue
            counts["cut"] += result.action == "cut"
            counts["tokens"] += len(result.rendered.ids)
            counts["num_target_tokens"] += sum(result.rendered.loss_mask)
            yield result.rendered, float(record.get("weight", 1.0))

    def report(self) -> SplitTokens:
        return SplitTokens(
            rows=self.counts["rows"],
            cut=self.counts["cut"],
            dropped=self.counts["dropped"],
            tokens=self.counts["tokens"],
            num_target_tokens=self.counts["num_target_tokens"],
            lengths=[
                LengthClass(up_to=edge or None, rows=self.lengths[edge]) for edge in (*BINS, 0) if self.lengths[edge]
            ],
        )


def filtered_row(record: DataRecord, result: FilterResult) -> FilteredRow:
    """A row and its result as they stand in tokens.json."""
    return FilteredRow(
        id=record["id"],
        source=record["source"],
        line=record["line"],
        action=result.action,
        reason=result.reason,
        detail=result.detail,
        tokens=result.tokens,
    )


class TokenizeConfig(Section, frozen=True, kw_only=True):
    """The settings of tokenize_rows."""

    model: TemplateConfig
    data: FilterConfig


def tokenize_splits(
    rows: dict[str, str], manifest: StrPath, config: TokenizeConfig, stores: dict[str, str], report: StrPath
) -> TokenReport:
    """Write a token store for each split, and tokens.json: counts, lengths, and every row that is not simply kept.

    rows, stores: file by split. The model's own context is the limit where max_length is longer. Raises DataError when
    nothing is left to train on.
    """
    folder = Path(read_manifest(manifest).folder).expanduser()
    template = config.model.chat_template
    probe_tokenizer(folder, template)
    renderer = Renderer(folder, template, config.model.num_virtual_tokens)
    token_filter = token_filter_of(renderer, config.data)
    splits: dict[str, SplitTokens] = {}
    flagged: list[FilteredRow] = []
    for split, path in rows.items():
        of_split = _SplitFilter(token_filter)
        write_store(stores[split], of_split.rows(path), renderer.virtual_ids)
        splits[split] = of_split.report()
        flagged += of_split.flagged
    written = TokenReport(max_length=token_filter.max_length, splits=splits, verdicts=flagged)
    write_json(report, written)
    _check_train(written, rows["train"], report)
    return written


def _check_train(written: TokenReport, train_file: str, report: StrPath) -> None:
    """Raise DataError if no training row is left; say how many are dropped."""
    train = written.splits["train"]
    if train.rows == train.dropped:
        first = next((row for row in written.verdicts if row.action != "cut"), None)
        example = f"; the first, {first.source}:{first.line}: {first.detail or first.reason}" if first else ""
        raise DataError(
            f"no training row is left of {train.rows} after tokenizing{example}",
            where=train_file,
            why="There is nothing to train on",
            fix="Raise data.max_length, or add rows to the training split",
        )
    if train.dropped:
        report_warning(f"{train.dropped} training rows are dropped; {report} says which and why")


def probe_tokenizer(folder: Path, template: str | None, seconds: float = 60) -> None:
    """Try the tokenizer and the chat template on a few texts, in a process of their own.

    The texts are long runs of one kind of character, on which a pattern that tries all ways to split a run never ends.
    Raises ModelError where the fork does not end within `seconds`, or takes all memory.
    """
    import transformers  # noqa: F401 - once, for this process and its fork

    def work() -> None:
        renderer = Renderer(folder, template)
        for text in STRESS_TEXTS:
            renderer.tokenizer(text)

    untrusted_files.probe_in_subprocess(
        work, "trying its tokenizer and chat template on a few texts", where=str(folder), seconds=seconds
    )
