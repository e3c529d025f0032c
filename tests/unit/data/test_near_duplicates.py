"""Near duplicates: what counts as one, what must not, and what is kept of them."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.data import minhash
from snaketune.data.minhash import length_adjusted_threshold
from snaketune.demo import task
from snaketune.files import read_jsonl
from unit.data.data_steps import ask, divided, settings, validated, write

TENS = "one two three four five six seven eight nine ten".split()
WORDS = [f"{a}{b}" for a in TENS for b in TENS]


def sentence(count: int, seed: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=count)


def kept(folder: Path, *rows: dict, **data: object) -> list[int]:
    """The lines of the rows that are kept."""
    validated(folder, settings(write(folder / "rows.jsonl", *rows), **data))
    return [row["line"] for row in read_jsonl(folder / "records.jsonl")]


@pytest.mark.parametrize("kind", ["auto", "words", "characters"])
@pytest.mark.parametrize("threshold", [0.85, 0.7])
def test_the_demos_numbers_all_stay_and_are_divided(kind: str, threshold: float, tmp_path: Path) -> None:
    rows = [task.row(number) for number in range(1, task.LARGEST + 1)]
    data = {"near_duplicates": threshold, "shingles": kind}
    assert kept(tmp_path, *rows, **data) == list(range(1, len(rows) + 1))
    found = divided(tmp_path, settings({"path": str(tmp_path / "rows.jsonl")}, **data))
    assert 730 < len(found["train"]) < 870


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_short_rows_under_a_long_instruction_all_stay_and_are_divided(kind: str, tmp_path: Path) -> None:
    instruction = " ".join(sentence(120, 0))
    rows = [ask(f"{instruction}: {' '.join(sentence(3, n))}", "yes" if n % 2 else "no") for n in range(1, 200)]
    data = {"shingles": kind}
    assert len(kept(tmp_path, *rows, **data)) == len(rows)
    found = divided(tmp_path, settings({"path": str(tmp_path / "rows.jsonl")}, **data))
    assert len(found["train"]) > 130


def changed(words: list[str], place: int) -> list[str]:
    return [*words[:place], "another", *words[place + 1 :]]


def test_of_two_long_rows_that_differ_in_a_word_the_first_is_kept(tmp_path: Path) -> None:
    question, answer = sentence(60, 1), sentence(90, 2)
    rows = [ask(" ".join(question), " ".join(changed(answer, place))) for place in (10, 45, 80)]
    assert kept(tmp_path, *rows, ask("Something else?", "Yes.")) == [1, 4]


def test_other_capitals_and_punctuation_make_no_new_row(tmp_path: Path) -> None:
    assert kept(tmp_path, ask("who is there?", "me."), ask("Who is there", "Me!")) == [1]


def test_signs_that_arithmetic_lives_by_make_another_row(tmp_path: Path) -> None:
    rows = [ask(f"12 {sign} 4 =", "a number") for sign in "+-*/"]
    assert kept(tmp_path, *rows) == [1, 2, 3, 4]


@pytest.mark.parametrize("length", [2, 12, 80])
def test_another_answer_to_the_same_question_is_kept_beside_it_and_reported(length: int, tmp_path: Path) -> None:
    question = " ".join(sentence(200, 3))
    rows = [ask(question, " ".join(sentence(length, seed))) for seed in (4, 5)]
    report = validated(tmp_path, settings(write(tmp_path / "rows.jsonl", *rows)))
    assert report["kept"] == 2
    assert report["same_prompt"]["rows"] == 2
    assert len({row["cluster"] for row in read_jsonl(tmp_path / "records.jsonl")}) == 1


def test_the_same_long_answer_to_another_question_is_kept(tmp_path: Path) -> None:
    answer = " ".join(sentence(300, 6))
    assert kept(tmp_path, *(ask(" ".join(sentence(9, seed)), answer) for seed in (7, 8, 9))) == [1, 2, 3]


def test_switched_off_it_removes_nothing_and_still_keeps_near_duplicates_on_one_side(tmp_path: Path) -> None:
    answer = sentence(120, 10)
    rows = [ask("What is it?", " ".join(changed(answer, place))) for place in range(0, 120, 4)]
    assert len(kept(tmp_path, *rows, near_duplicates=False)) == 30
    assert len({row["cluster"] for row in read_jsonl(tmp_path / "records.jsonl")}) == 1


def test_near_duplicates_are_found_in_a_script_without_spaces(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + n * 37 % 5000) for n in range(120))
    assert kept(
        tmp_path, ask("问题是什么", text), ask("问题是什么", text[:60] + "东" + text[61:]), ask("问", "东")
    ) == [1, 3]


def test_a_family_larger_than_the_window_keeps_one_row(tmp_path: Path) -> None:
    base = sentence(200, 11)
    rows = [ask("Tell the long story.", " ".join([*base, f"end{n}"])) for n in range(60)]
    rows += [ask(f"Unlike {n}?", " ".join(sentence(30, 100 + n))) for n in range(300)]
    assert kept(tmp_path, *rows) == [1, *range(61, 361)]


spaced = st.text("ab \u00e9\u4e00", max_size=12).map(lambda text: " ".join(text.split()))


@given(texts=st.lists(spaced, max_size=6), by_words=st.booleans())
def test_hashed_shingles_are_those_that_a_loop_would_make(texts: list[str], by_words: bool) -> None:
    size = minhash.WORDS if by_words else minhash.CHARACTERS
    found, counts = minhash.hash_shingles([*texts, "x"], by_words)
    names: dict[int, object] = {}
    at = 0
    for text, count in zip([*texts, "x"], counts.tolist(), strict=True):
        units = text.split() if by_words else list(text)
        expected = [tuple(units[i : i + size]) for i in range(max(1, len(units) - size + 1))] if units else []
        assert count == len(expected)
        for value, one in zip(found[at : at + count].tolist(), expected, strict=True):
            assert names.setdefault(value, one) == one
        at += count
    assert len(set(names.values())) == len(names)


@given(threshold=st.floats(0.5, 1.0))
def test_hardly_a_pair_at_the_threshold_is_missed(threshold: float) -> None:
    width = minhash.band_width(threshold)
    assert minhash.PERMUTATIONS % width == 0
    assert (1 - threshold**width) ** (minhash.PERMUTATIONS / width) < 0.01


def test_the_shorter_the_rows_the_more_alike_they_must_be() -> None:
    assert length_adjusted_threshold(0.85, 26) > 1
    assert np.isclose(length_adjusted_threshold(0.85, 100), 0.89)
    assert np.isclose(length_adjusted_threshold(0.85, 4000), 0.851)
