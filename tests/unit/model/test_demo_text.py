"""The demo's numbers and words."""

from itertools import islice
from pathlib import Path

from snaketune.model import demo_text

ROOT = Path(__file__).resolve().parents[3]


def test_numbers_are_said_in_english_and_hawaiian() -> None:
    assert demo_text.english(853) == "eight hundred fifty three"
    assert demo_text.hawaiian(853) == "ʻewalu haneli kanalimakūmākolu"
    assert (demo_text.english(7), demo_text.hawaiian(7)) == ("seven", "ʻehiku")
    assert (demo_text.english(40), demo_text.hawaiian(40)) == ("forty", "kanahā")


def test_no_two_numbers_share_their_words() -> None:
    everything = range(1, demo_text.LARGEST + 1)
    assert len({demo_text.english(n) for n in everything}) == demo_text.LARGEST
    assert len({demo_text.hawaiian(n) for n in everything}) == demo_text.LARGEST


def test_the_held_out_numbers_are_in_no_fact_and_no_other_split() -> None:
    splits = demo_text.numbers(seed=1)
    assert sorted(number for members in splits.values() for number in members) == list(range(1, demo_text.LARGEST + 1))
    assert len(splits["test"]) == demo_text.HELD_OUT
    known = splits["train"] + splits["valid"]
    held_out = {demo_text.english(n) for n in splits["test"]} | {demo_text.hawaiian(n) for n in splits["test"]}
    held_out |= {str(n) for n in splits["test"]}
    for left, right in islice(demo_text.facts(known, seed=1), 5000):
        assert left.removesuffix(" =") not in held_out
        assert right.strip() not in held_out


def test_the_shipped_rows_are_what_the_module_writes(tmp_path: Path) -> None:
    demo_text.write_rows(tmp_path)
    for split in ("train", "valid", "test"):
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (ROOT / "data/demo" / f"{split}.jsonl").read_bytes()
