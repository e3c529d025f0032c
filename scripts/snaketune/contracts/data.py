"""The files of the data stage: records.jsonl, report.json, split.json, leaks.json, tokens.json; and model manifests."""

from __future__ import annotations

import re
from typing import Any, Literal, NotRequired, TypedDict

from snaketune.files import Record

SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
_DECLARED = re.compile(rf"-(?:{'|'.join(SPLITS)})(?=#|$)")


def content_id(identifier: str) -> str:
    """The id of a record or prediction without the split that its source declares: the same content, the same id."""
    return _DECLARED.sub("", identifier)


class Message(TypedDict):
    """One turn of a conversation, with the fields that a chat template reads.

    trained: False for an answer that is read and not learned; no template sees it.
    """

    role: str
    content: str
    tool_calls: NotRequired[list[Any]]
    name: NotRequired[str]
    tool_call_id: NotRequired[str]
    trained: NotRequired[bool]


class Content(TypedDict, total=False):
    """What is trained on in a row: `messages` (and `tools`), or `text`. The labels and the weight are per row.

    segments: the pieces of `text` that are tokenized one by one, each [start, end, whether it is trained].
    """

    messages: list[Message]
    tools: list[Any]
    text: str
    segments: list[list[int]]
    group: str
    category: str
    weight: float


class DataRecord(Content, total=False):
    """A line of records.jsonl, {train,valid,test}.jsonl: a kept row.

    A dict, not a Struct: half a million of them are encoded and decoded, and extra keys must survive.
    id: hash of the content, hexadecimal; line: in the source, from 1; split: the one that its source declares; cluster:
    ID of the rows that must share its split.
    """

    id: str
    source: str
    line: int
    split: SplitName
    cluster: str


class Rejected(Record, frozen=True, kw_only=True):
    """A line of rejected.jsonl (writer: validate_rows). reason: a code of REJECTION_REASONS; row: the raw text."""

    source: str
    line: int
    reason: str
    detail: str
    row: str


class SourceReport(Record, frozen=True, kw_only=True):
    """Counts of rows of one source; read is the sum of the other four.

    available: rows in the source where a `limit` lets only a sample of them be read, None where all are.
    """

    source: str
    read: int
    kept: int
    rejected: int
    duplicates: int
    near_duplicates: int
    available: int | None = None


class SamePrompt(Record, frozen=True, kw_only=True):
    """Kept rows that share their prompt with another row; examples are `file:line`."""

    prompts: int
    rows: int
    examples: list[str]


class ClusterCounts(Record, frozen=True, kw_only=True):
    """Clusters of two kept rows or more; largest: rows in the largest."""

    count: int
    rows: int
    largest: int


class LengthReport(Record, frozen=True, kw_only=True):
    """Lengths of the kept rows, as classes {"from", "to" (exclusive), "rows"}, and smallest, median, p95, largest."""

    unit: str
    histogram: list[dict[str, int]]
    row: dict[str, int]
    prompt: dict[str, int]
    response: dict[str, int]


class DataReport(Record, frozen=True, kw_only=True):
    """data/report.json (writer: validate_rows). read = kept + rejected + duplicates + near_duplicates.

    reasons, examples: by rejection code; the examples of duplicates are pairs of `file:line`, the dropped row first.
    """

    read: int
    kept: int
    rejected: int
    duplicates: int
    near_duplicates: int
    reasons: dict[str, int]
    examples: dict[str, list[str]]
    sources: list[SourceReport]
    duplicate_examples: list[list[str]]
    near_duplicate_examples: list[list[str]]
    same_prompt: SamePrompt
    clusters: ClusterCounts
    groups: int
    categories: dict[str, int]
    lengths: LengthReport
    shortest: list[str]
    longest: list[str]
    advice: list[str]


class SplitReport(Record, frozen=True, kw_only=True):
    """data/split.json (writer: split_rows). Counts are of rows, by split; declared_rows: those a source had placed."""

    rows: dict[str, int]
    shares: dict[str, float]
    method: str
    seed: int
    clusters: int
    clustered_rows: int
    declared_rows: int
    categories: dict[str, dict[str, int]]
    warnings: list[str]


class LeakingRow(Record, frozen=True, kw_only=True):
    """One of two rows that belong together; row: `file:line`."""

    split: str
    row: str


class LeakPair(Record, frozen=True, kw_only=True):
    """Two rows of different splits and why they belong together."""

    why: str
    rows: list[LeakingRow]


class LeakReport(Record, frozen=True, kw_only=True):
    """data/leaks.json (writer: check_leaks).

    pairs: how many were found; rows: of each split; affected: rows of each split that have a partner in another; by:
    pairs of each kind; action: `data.on_leakage`; listed: the first pairs.
    """

    pairs: int
    rows: dict[str, int]
    affected: dict[str, int]
    by: dict[str, int]
    action: Literal["fail", "warn"]
    listed: list[LeakPair]


class FilteredRow(Record, frozen=True, kw_only=True):
    """A row that is not simply kept for its tokens: what is done with it, and why; tokens: its whole length."""

    id: str
    source: str
    line: int
    action: Literal["keep", "cut", "drop"]
    reason: str
    detail: str
    tokens: int


class LengthClass(Record, frozen=True, kw_only=True):
    """Rows of at most `up_to` tokens and more than the class before; None for all longer ones."""

    up_to: int | None
    rows: int


class SplitTokens(Record, frozen=True, kw_only=True):
    """Rows and tokens of one split; num_target_tokens: those with a loss."""

    rows: int
    cut: int
    dropped: int
    tokens: int
    num_target_tokens: int
    lengths: list[LengthClass]


class TokenReport(Record, frozen=True, kw_only=True):
    """data/tokens/<base>/tokens.json (writer: tokenize_rows). max_length: the limit in effect, in tokens."""

    max_length: int
    splits: dict[str, SplitTokens]
    verdicts: list[FilteredRow]


class PreviewRow(Record, frozen=True, kw_only=True):
    """A row of preview.json as the model reads it.

    pieces: its text in order, each with whether it is trained; note: what is done with it, if it is not simply kept.
    """

    source: str
    line: int
    tokens: int
    num_target_tokens: int
    pieces: list[tuple[str, bool]]
    note: str


class Preview(Record, frozen=True, kw_only=True):
    """data/preview.json (writer: preview_rows): a few rows of the training split, and how many it has."""

    run: str
    rows: list[PreviewRow]
    available: int


class ModelFile(Record, frozen=True, kw_only=True):
    """Size and SHA-256 of one file of a model."""

    bytes: int
    sha256: str


class QuantizeRecord(Record, frozen=True, kw_only=True):
    """How a base was quantized."""

    bits: int
    group_size: int
    mode: str


class ReadAs(Record, frozen=True, kw_only=True):
    """The chat template, number format and virtual tokens of the experiment that was chosen."""

    chat_template: str | None
    dtype: str
    num_virtual_tokens: int = 0


class ModelManifest(Record, frozen=True, kw_only=True, omit_defaults=True):
    """results/models/<key>.json, <key>.config.json and model/base.json: a base model, described by its files.

    Steps depend on it, never on the folder. commit: of a Hub model; read_as: in model/base.json only.
    """

    base: str
    revision: str | None
    commit: str | None
    folder: str
    quantize: QuantizeRecord | None
    files: dict[str, ModelFile]
    read_as: ReadAs | None = None
