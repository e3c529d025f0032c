"""A slip in the YAML of a configuration is told with file, line and what is wrong."""

from pathlib import Path

import pytest
from snaketune.config.schema import read
from snaketune.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("run: x\ndata:\n\tsources: []\n", 3, "a tab stands where only spaces may"),
        ("train:\n  rank 8\n  alpha: 3\n", 2, "a colon is missing after `rank`. Write rank: 8."),
        ("train:\n  alpha: 3\n  rank 8\n", 3, "a colon is missing after `rank`. Write rank: 8."),
        ("run: x\ntrain\n  rank: 8\n", 2, "a colon is missing after `train`"),
        ("train:\n  rank:8\n  alpha: 3\n", 2, "a space is missing after the colon. Write rank: 8."),
        ("train:\n  rank: 8\n   alpha: 3\n", 3, "does not stand under the ones before it"),
        ("train:\n    rank: 8\n  alpha: 3\n", 3, "does not stand under the ones before it"),
        ("data:\n  sources:\n    - path: a\n     fields: {}\n", 4, "does not stand under the ones before it"),
        (
            "data:\n  sources:\n    -path: a\n      fields: {}\n",
            3,
            "a space is missing after the dash. Write - path",
        ),
        ("data:\n  sources: [{path: a.jsonl}\nrun: x\n", 2, "`[` is opened here and never closed. Add a ]."),
        ("train: {rank: 8\nrun: x\n", 1, "`{` is opened here and never closed. Add a }."),
        ('run: "x\ntrain: {}\n', 1, '`"` is opened here and never closed.'),
        ("data:\n  system: Du bist Köchin: antworte kurz\n", 2, "a text with a colon and a space in it needs quotes"),
        ("train:\n  rank: 8\n  alpha: 3\n  rank: 16\n", 4, '"rank" stands twice, first in line 2.'),
        ("run: a\ntrain: {}\nrun: b\n", 3, '"run" stands twice, first in line 1.'),
    ],
)
def test_a_slip_is_told_with_its_line_and_what_is_wrong(text: str, line: int, words: str, tmp_path: Path) -> None:
    file = tmp_path / "köchin.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        read(file)
    assert str(refused.value).startswith(f"{file}:{line}: ")
    assert words in str(refused.value)


def test_a_file_that_is_not_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes("run: x\ndata: {system: Köchin}\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"mine\.yaml:2: this is not UTF-8 text"):
        read(file)


def test_anchors_and_merged_keys_are_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("a: &base {rank: 8, alpha: 3}\nb: {<<: *base, rank: 16}\n")
    assert read(file)["b"] == {"rank": 16, "alpha": 3}
