"""What each measure is called, which way is better, and what it does and does not say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Measure:
    """How a number is shown. kind: `share` is 0 to 1 and shown in per cent; `points` is 0 to 100; `plain` as it is."""

    title: str
    better: Better
    kind: Literal["share", "points", "plain"]
    says: str


MEASURES: dict[str, Measure] = {
    "perplexity": Measure(
        "Answer perplexity",
        "lower",
        "plain",
        "How surprised the model is by the reference answers, per token; 1 would be certainty. Only models with the "
        "same tokenizer may be compared by it.",
    ),
    "bits_per_byte": Measure(
        "Bits per byte",
        "lower",
        "plain",
        "The same surprise per byte of text, which may be compared between tokenizers.",
    ),
    "exact_match": Measure(
        "Exact match", "higher", "share", "Answers that equal the reference answer character by character."
    ),
    "exact_match_normalized": Measure(
        "Normalised exact match",
        "higher",
        "share",
        "Answers that equal the reference but for case, punctuation and spaces.",
    ),
    "token_f1": Measure("Token F1", "higher", "share", "Words shared with the reference, whatever their order."),
    "bleu": Measure(
        "BLEU",
        "higher",
        "points",
        "Runs of up to four words shared with the reference, over all answers together. It asks for the same words, "
        "so a right answer in other words scores low, and answers of fewer than four words always score 0.",
    ),
    "chrf": Measure(
        "chrF++",
        "higher",
        "points",
        "Runs of characters and words shared with the reference; kinder to inflected languages than BLEU.",
    ),
    "ter": Measure("TER", "lower", "points", "Edits needed to turn the answers into the references, per word."),
    "rouge_l": Measure(
        "ROUGE-L", "higher", "share", "The longest sequence of words shared with the reference, gaps allowed."
    ),
    "length_ratio": Measure(
        "Length ratio", "neither", "plain", "Length of the answers over that of the references; 1 is as long."
    ),
    "stopped": Measure(
        "Stopped by itself",
        "higher",
        "share",
        "Answers that the model ended itself; the others were cut at the length limit.",
    ),
    "repetition": Measure("Repetition", "lower", "share", "Runs of words that had occurred before in the same answer."),
    "similarity": Measure(
        "Semantic similarity",
        "higher",
        "plain",
        "Closeness in meaning to the reference, as an embedding model sees it.",
    ),
}


def measure(name: str) -> Measure:
    """The measure of that name; one of the user's own is shown under its name, higher taken as better."""
    return MEASURES.get(name) or Measure(name, "higher", "plain", "A measure of this run's own configuration.")


def in_sentence(name: str) -> str:
    """A measure's title as it stands inside a sentence: names of their own keep their capitals."""
    title = measure(name).title
    own = not title[1:2].islower() or any(letter.isupper() for letter in title.split()[0][1:])
    return title if own or measure(name).title == name else title[0].lower() + title[1:]


def shown(name: str, value: float | None) -> str:
    """A measure's value in the digits that mean something."""
    if value is None:
        return "–"
    kind = measure(name).kind
    if kind == "share":
        return f"{100 * value:.1f} %"
    if kind == "points":
        return f"{value:.1f}"
    return number(value)


def gap(name: str, value: float) -> str:
    """A difference between two values of a measure; of shares, in percentage points."""
    return f"{number(100 * value)} points" if measure(name).kind == "share" else number(value)


def number(value: float) -> str:
    """Three significant digits, and thousands kept apart by a narrow space."""
    if value != value:  # NaN
        return "not a number"
    size = abs(value)
    if size >= 1e15:
        return f"{value:.2e}"
    if size >= 100 or value == int(value):
        return f"{value:,.0f}".replace(",", "\u202f")
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    if size >= 0.001:
        return f"{value:.3f}"
    return re.sub(r"e([+-])0*", r"e\1", f"{value:.1e}")


def size(count: float) -> str:
    """Bytes in decimal units, as file managers show them."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """A time as one would say it."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def quantity(value: float | None, unit: str) -> str:
    """A number of bytes, seconds, nats or things in words."""
    if value is None:
        return "–"
    return {"bytes": size, "seconds": duration}.get(unit, number)(value)


def probability(p: float) -> str:
    """A p-value; below a thousandth the digits say nothing more."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
