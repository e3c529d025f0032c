"""The demo's numbers and words."""

from itertools import islice
from pathlib import Path

from snaketune.demo import task

ROOT = Path(__file__).resolve().parents[3]


def test_numbers_are_said_in_english_and_hawaiian() -> None:
    assert task.english(853) == "eight hundred fifty three"
    assert task.hawaiian(853) == "ʻewalu haneli kanalimakūmākolu"
    assert (task.english(7), task.hawaiian(7)) == ("seven", "ʻehiku")
    assert (task.english(40), task.hawaiian(40)) == ("forty", "kanahā")


def test_no_two_numbers_share_their_words() -> None:
    everything = range(1, task.LARGEST + 1)
    assert len({task.english(n) for n in everything}) == task.LARGEST
    assert len({task.hawaiian(n) for n in everything}) == task.LARGEST


def test_the_held_out_numbers_are_in_no_fact_and_no_other_split() -> None:
    splits = task.numbers(seed=1)
    assert sorted(number for members in splits.values() for number in members) == list(range(1, task.LARGEST + 1))
    assert len(splits["test"]) == task.HELD_OUT
    known = splits["train"] + splits["valid"]
    held_out = {task.english(n) for n in splits["test"]} | {task.hawaiian(n) for n in splits["test"]}
    held_out |= {str(n) for n in splits["test"]}
    for left, right in islice(task.facts(known, seed=1), 5000):
        assert left.removesuffix(" =") not in held_out
        assert right.strip() not in held_out


def test_the_shipped_rows_are_what_the_module_writes(tmp_path: Path) -> None:
    task.write_rows(tmp_path)
    for split in ("train", "valid", "test"):
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (ROOT / "data/demo" / f"{split}.jsonl").read_bytes()
