"""The demo's task: English number words to Hawaiian, and the facts about numbers that its base model is raised on.

Numbers run from 1 to 999. Two hundred of them are held out of everything, the base's text included, so that what the
tuned model says of them it has worked out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from snaketune.files import StrPath, write_jsonl

LARGEST = 999
HELD_OUT = 200
VALIDATION = 60
INSTRUCTION = "translate to Hawaiian: "

ENGLISH = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
ENGLISH_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
HAWAIIAN = "ʻole kahi lua kolu hā lima ono hiku walu iwa".split()
HAWAIIAN_TENS = "- ʻumi iwakālua kanakolu kanahā kanalima kanaono kanahiku kanawalu kanaiwa".split()


def english(number: int) -> str:
    """English words for 1 to 999, without "and": 853 is "eight hundred fifty three"."""
    words = []
    hundreds, rest = divmod(number, 100)
    if hundreds:
        words += [ENGLISH[hundreds], "hundred"]
    if rest >= 20:
        words.append(ENGLISH_TENS[rest // 10])
        rest %= 10
    if rest:
        words.append(ENGLISH[rest])
    return " ".join(words)


def hawaiian(number: int) -> str:
    """Hawaiian words for 1 to 999: 853 is "ʻewalu haneli kanalimakūmākolu"."""
    words = []
    hundreds, rest = divmod(number, 100)
    if hundreds:
        words += [f"ʻe{HAWAIIAN[hundreds]}", "haneli"]
    tens, units = divmod(rest, 10)
    if tens:
        words.append(HAWAIIAN_TENS[tens] + (f"kūmā{HAWAIIAN[units]}" if units else ""))
    elif units:
        words.append(f"ʻe{HAWAIIAN[units]}")
    return " ".join(words)


def numbers(seed: int) -> dict[str, list[int]]:
    """The numbers of each split: `test` is held out of everything, `valid` of the adapter's training."""
    order = list(range(1, LARGEST + 1))
    random.Random(seed).shuffle(order)
    return {
        "test": sorted(order[:HELD_OUT]),
        "valid": sorted(order[HELD_OUT : HELD_OUT + VALIDATION]),
        "train": sorted(order[HELD_OUT + VALIDATION :]),
    }


def row(number: int) -> dict[str, str]:
    """One example of the task, as a person would write it."""
    return {"prompt": INSTRUCTION + english(number), "response": hawaiian(number)}


def facts(known: list[int], seed: int) -> Iterator[tuple[str, str]]:
    """Endless statements about known numbers in both languages, each a left side and a right side.

    Two thirds name a number ("853 =" | " eight hundred fifty three"), the rest read one ("ʻelima =" | " 5").
    """
    source = random.Random(seed)
    while True:
        number = source.choice(known)
        draw = source.random()
        words = english(number) if draw < 0.35 or 0.7 <= draw < 0.85 else hawaiian(number)
        left, right = (str(number), words) if draw < 0.7 else (words, str(number))
        yield f"{left} =", f" {right}"


def write_rows(folder: StrPath, seed: int = 1) -> None:
    """Write the demo's three files of rows: what stands in data/demo."""
    for split, members in numbers(seed).items():
        write_jsonl(Path(folder) / f"{split}.jsonl", map(row, members))
