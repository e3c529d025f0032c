"""Compares rows: keys that ignore spelling's accidents, clusters of related rows, and duplicates to drop.

Related are near duplicates, rows of one prompt, and rows of one group. The same relations decide which rows share a
split and whether two splits leak into each other. The keys ignore whitespace, invisible characters and the Unicode
normalization form; they are for comparison only, and training text is never modified.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Callable, Container, Hashable, Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from snaketune.contracts.data import SPLITS, Content
from snaketune.data.minhash import NearDuplicateIndex, Shingles

# Characters that take no ink and that str.strip() leaves in place; NBSP and its like it strips itself.
INVISIBLE = dict.fromkeys(
    map(
        ord,
        "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
        "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u2800\u3164\ufe0e\ufe0f\ufeff\uffa0",
    )
)
# C0 without tab, line feed and carriage return; DEL; C1 without NEL, which old mainframes and some word processors use.
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
# Punctuation of prose. Not all of \W, which holds the vowel signs of Hindi, nor signs that arithmetic and code live by.
ASCII_PUNCTUATION = b"!\"',.:;?"
TO_SPACES = bytes.maketrans(ASCII_PUNCTUATION, b" " * len(ASCII_PUNCTUATION))
PUNCTUATION = re.compile(
    "[!\"',.:;?\u00a1\u00ab\u00bb\u00bf\u2010-\u2027\u3001-\u3002\u300c-\u300f\uff01\uff0c\uff0e\uff1a\uff1b\uff1f]+"
)


def is_blank(text: str) -> bool:
    """Whether a reader would see nothing: white space, no-break spaces, zero-width characters."""
    if not text:
        return True
    if text[0].isalnum():
        return False
    return not text.translate(INVISIBLE).strip()


def first_control_char(text: str) -> str:
    """The first control character and its position, or an empty string."""
    found = CONTROLS.search(text)
    return f"U+{ord(found[0]):04X} at character {found.start() + 1}" if found else ""


def normalize(text: str) -> str:
    """Normalize for comparison: NFC, each run of white space one space, none at the ends."""
    if text.isascii():
        plain = "  " not in text and "\n" not in text and "\t" not in text and "\r" not in text
        if plain and text[:1] != " " and text[-1:] != " ":  # most rows; splitting costs ten times as much
            return text
    else:
        text = unicodedata.normalize("NFC", text.translate(INVISIBLE))
    return " ".join(text.split())


def fold(text: str) -> str:
    """Normalize further, for near duplicates: casefold and drop punctuation. A text of punctuation alone keeps it."""
    if text.isascii():
        words = text.lower().encode().translate(TO_SPACES).decode()
    else:
        words = PUNCTUATION.sub(" ", normalize(text).casefold())
    return " ".join(words.split()) or normalize(text)


KEY_BYTES = 16  # for 500,000 rows the chance that any two meet by accident is 4e-28
MIN_OPENING_LENGTH = 20  # characters; sharing a shorter first prompt ("hi there") relates no conversations

encode = msgspec.json.Encoder(order="sorted").encode


class RowKeys(NamedTuple):
    """What a row is compared by.

    key: hash of all that is trained on, KEY_BYTES long, equal for exact duplicates; folded_prompt, folded_response: the
    texts as `fold` leaves them; prompt_hash: 64-bit hash of all that precedes the last response; opening_hash: that of
    the first prompt of a longer conversation (each 0 where there is none).
    """

    key: bytes
    folded_prompt: str
    folded_response: str
    prompt_hash: int
    opening_hash: int


def row_keys(record: Content) -> RowKeys:
    """Compute the keys of a record. System texts and tools are part of `key` only: sharing them relates no rows."""
    if "text" in record:
        pieces = f"\x00{record['segments']}" if "segments" in record else ""
        return RowKeys(content_hash(normalize(record["text"]) + pieces), "", fold(record["text"]), 0, 0)
    exact: list[str] = []
    folded_prompt: list[str] = []
    folded_response: list[str] = []
    before: list[str] = []  # all turns; the last is the response
    for message in record["messages"]:
        role, content = message["role"], message["content"]
        exact.append(role if message.get("trained", True) else f"{role}, not trained")
        exact.append(normalize(content))
        if role == "system":
            continue
        text = fold(content)
        if "tool_calls" in message:
            calls = encode(message["tool_calls"]).decode()
            exact.append(calls)
            text = f"{text} {fold(calls)}".strip()
        (folded_response if role == "assistant" else folded_prompt).append(text)
        before.append(text)
    if "tools" in record:
        exact.append(encode(record["tools"]).decode())
    has_opening = len(before) > 2 and len(before[0]) >= MIN_OPENING_LENGTH
    return RowKeys(
        content_hash("\x00".join(exact)),
        " ".join(folded_prompt),
        " ".join(folded_response),
        hash64("\x00".join(before[:-1])),
        hash64(before[0]) if has_opening else 0,
    )


def content_hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


def hash64(text: Hashable) -> int:
    """A 64-bit key for finding equal texts within this process; Python's own hash differs from one to the next."""
    return hash(text) & 0xFFFFFFFFFFFFFFFF


class UnionFind:
    """Disjoint sets of rows 0 to count - 1. The sets do not depend on the order in which rows are joined."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def root(self, row: int) -> int:
        parent = self.parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(self, one: int, other: int) -> None:
        one, other = self.root(one), self.root(other)
        if one != other:
            self.parent[max(one, other)] = min(one, other)

    def join_equal(self, rows: np.ndarray, keys: np.ndarray) -> None:
        """Join the rows whose keys are equal; rows and keys have one entry a pair."""
        order = np.argsort(keys, kind="stable")
        rows, keys = rows[order], keys[order]
        same = np.flatnonzero(keys[1:] == keys[:-1])
        for one, other in zip(rows[same].tolist(), rows[same + 1].tolist(), strict=True):
            self.join(one, other)

    def members(self) -> dict[int, list[int]]:
        """The sets of more than one row, each in rising order, by their first row."""
        found: dict[int, list[int]] = {}
        for row, parent in enumerate(self.parent):
            if parent != row:
                first = self.root(row)
                found.setdefault(first, [first]).append(row)
        return found


def cluster_ids(clusters: Iterable[list[int]], key: Callable[[int], bytes]) -> dict[int, bytes]:
    """Each clustered row's cluster ID: the smallest content hash in the cluster, whatever the order of the rows."""
    return {row: name for members in clusters for name in [min(map(key, members))] for row in members}


SPLIT_CODES = ("", *SPLITS)  # of a row: its declared split by number, 0 for none
CLUSTER_THRESHOLD_WHEN_OFF = 0.85  # near_duplicates: false keeps every row, but near duplicates still share a split
MAX_COMPARISONS = 100  # kept rows that each row of a family of near duplicates is compared with


class RowIndex:
    """Keys and origin of every row that is neither rejected nor an exact duplicate, in columns; rows count from 0.

    It holds no text: some 400 bytes a row. The shingles of the rows are in a scratch file.
    """

    def __init__(self, shingles: Shingles) -> None:
        self.shingles = shingles
        self.first: dict[bytes, int] = {}  # the first row of each content hash
        self.keys = bytearray()
        self.files: dict[str, int] = {}
        self.file, self.line = array("L"), array("q")
        self.source, self.split = array("H"), array("B")
        self.lengths = array("q")  # characters of prompts and responses, two numbers a row
        self.folded_hash, self.prompt_hash = array("Q"), array("Q")
        self.opening_hash, self.opening_rows = array("Q"), array("q")  # the hash of an opening, and the row that has it
        self.group, self.group_rows = array("q"), array("q")  # the index of a group's name, and the row that is in it
        self.groups: dict[str, int] = {}
        self.category = array("q")  # the index of a category's name, or -1
        self.categories: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.line)

    def key(self, row: int) -> bytes:
        return bytes(self.keys[KEY_BYTES * row : KEY_BYTES * (row + 1)])

    def where(self, row: int) -> str:
        """`file:line` of a row."""
        return f"{list(self.files)[self.file[row]]}:{self.line[row]}"

    def add(self, known: RowKeys, record: Content, path: str, line: int, source: int, split: int) -> None:
        self.keys += known.key
        self.file.append(self.files.setdefault(path, len(self.files)))
        self.line.append(line)
        self.source.append(source)
        self.split.append(split)
        self.lengths.extend((len(known.folded_prompt), len(known.folded_response)))
        self.folded_hash.append(hash64((known.folded_prompt, known.folded_response)))
        self.prompt_hash.append(known.prompt_hash)
        if known.opening_hash:
            self.opening_hash.append(known.opening_hash)
            self.opening_rows.append(len(self) - 1)
        category = record.get("category")
        self.category.append(self.categories.setdefault(category, len(self.categories)) if category else -1)
        self.add_to_group(len(self) - 1, record)
        self.shingles.add(known.folded_prompt, known.folded_response)

    def add_to_group(self, row: int, record: Content) -> None:
        """Add a row to the group of a record, its own or that of an exact duplicate."""
        if "group" in record:
            self.group.append(self.groups.setdefault(record["group"], len(self.groups)))
            self.group_rows.append(row)


class DedupResult(NamedTuple):
    """Clusters and near duplicates among the rows.

    cluster: the ID of each clustered row's cluster; removed: the near duplicates, and the row that each repeats; sizes:
    how many rows are left in each cluster.
    """

    cluster: dict[int, bytes]
    removed: dict[int, int]
    sizes: list[int]


def cluster_and_deduplicate(rows: RowIndex, threshold: float | bool, copied: Container[int] = ()) -> DedupResult:
    """Cluster the rows, and find the near duplicates among them.

    threshold: data.near_duplicates; copied: rows that are removed already. The clusters do not depend on the
    order of the rows; which of two near duplicates is kept does: the first.
    """
    index = NearDuplicateIndex(rows.shingles, threshold or CLUSTER_THRESHOLD_WHEN_OFF)
    alike = UnionFind(len(rows))
    alike.join_equal(*keys_by(rows, "wording"))
    for one, other in index.pairs(content_order(rows)):
        alike.join(one, other)
    families = alike.members()
    removed: dict[int, int] = {}
    if threshold:
        for family in families.values():
            removed |= _near_duplicates_of_kept([row for row in family if row not in copied], rows, index)
    clusters = UnionFind(len(rows))
    for family in families.values():
        for row in family[1:]:
            clusters.join(family[0], row)
    for what in ("question", "opening", "group"):
        clusters.join_equal(*keys_by(rows, what))
    together = clusters.members()
    named = cluster_ids(together.values(), rows.key)
    sizes = [sum(row not in removed and row not in copied for row in members) for members in together.values()]
    return DedupResult(named, removed, sizes)


def free_copies_of_pinned_rows(rows: RowIndex) -> dict[int, int]:
    """Find rows without a declared split that equal one with a declared split: {free row: declared row}."""
    chosen = (row for row in range(len(rows)) if rows.split[row])
    found = ((rows.first.get(rows.key(row)), row) for row in chosen)
    return {copy: row for copy, row in found if copy is not None}


def content_order(rows: RowIndex) -> np.ndarray:
    """Rank the rows by their content hash, an order that does not depend on the order of the input."""
    keys = np.frombuffer(bytes(rows.keys), ">u8").reshape(-1, 2)
    places = np.empty(len(rows), np.int64)
    places[np.lexsort((keys[:, 1], keys[:, 0]))] = np.arange(len(rows))
    return places


def _near_duplicates_of_kept(family: list[int], rows: RowIndex, index: NearDuplicateIndex) -> dict[int, int]:
    """The near duplicates in a family, and the kept row of each: one with a declared split, else the earliest."""
    kept: list[int] = []
    removed: dict[int, int] = {}
    for row in sorted(family, key=lambda row: (not rows.split[row], row)):
        for earlier in kept[:MAX_COMPARISONS]:
            same = rows.folded_hash[row] == rows.folded_hash[earlier]
            if rows.split[row] in (0, rows.split[earlier]) and (same or index.is_near_duplicate(earlier, row)):
                removed[row] = earlier
                break
        else:
            kept.append(row)
    return removed


def keys_by(rows: RowIndex, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and their 64-bit keys by what they may share: row, wording, question, opening or group."""
    if what == "row":
        return np.arange(len(rows)), np.frombuffer(bytes(rows.keys), np.uint64)[:: KEY_BYTES // 8]
    if what == "opening":
        return np.array(rows.opening_rows, np.int64), np.array(rows.opening_hash, np.uint64)
    if what == "group":
        return np.array(rows.group_rows, np.int64), np.array(rows.group, np.uint64)
    keys = np.array(rows.folded_hash if what == "wording" else rows.prompt_hash, np.uint64)
    members = np.flatnonzero(keys) if what == "question" else np.arange(len(keys))
    return members, keys[members]
