"""What the numbers allow one to say, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = {
    "perplexity": "answer perplexity",
    "bits_per_byte": "bits per byte",
    "exact_match": "exact match",
    "exact_match_normalized": "exact match (normalised)",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF++",
    "ter": "TER",
    "length_ratio": "length ratio",
    "stopped": "answers that stopped by themselves",
    "repetition": "repetition",
}


def of_measure(artefact: str, against: str, name: str, entry: Mapping[str, Any], rows: int, comparisons: int) -> str:
    """One measure of one pair."""
    said = f"{NAMES.get(name, name)} {number(entry['value'])} against {number(entry['against'])}"
    if entry["verdict"] == "no difference shown":
        return (
            f"{artefact} and {against}: no difference in {said} that {rows} rows could show; "
            f"one of {number(entry['detectable'])} would have been found in four of five such tests."
        )
    surely = probability(entry["p_corrected"])
    surely += f" after correction for {comparisons} comparisons" if comparisons > 1 else ""
    between = f"95 % interval {signed(entry['low'])} to {signed(entry['high'])}"
    return (
        f"{artefact} is {entry['verdict']} than {against}: {said} "
        f"(difference {signed(entry['difference'])}, {between}; {surely})."
    )


def of_pair(artefact: str, against: str, metrics: Mapping[str, Mapping[str, Any]], rows: int) -> str:
    """All measures of one pair together."""
    better = [NAMES.get(name, name) for name, entry in metrics.items() if entry["verdict"] == "better"]
    worse = [NAMES.get(name, name) for name, entry in metrics.items() if entry["verdict"] == "worse"]
    if not better and not worse:
        return f"{artefact} and {against}: no difference that {rows} rows could show."
    parts = [f"better in {listed(better)}"] if better else []
    parts += [f"worse in {listed(worse)}"] if worse else []
    rest = len(metrics) - len(better) - len(worse)
    tail = f"; no difference shown in the other {rest}" if rest else ""
    return f"{artefact} against {against} on {rows} rows: {', '.join(parts)}{tail}."


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def probability(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def number(value: float) -> str:
    """Three significant digits, and no exponent for what people meet."""
    return f"{value:.3g}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.2e}"


def signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value)
