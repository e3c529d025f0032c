"""What the numbers allow one to say, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from snaketune.evaluate.metrics import METRICS, find


def of_measure(artefact: str, against: str, name: str, entry: Mapping[str, Any], rows: int, comparisons: int) -> str:
    """One measure of one pair."""
    said = f"{find(name, METRICS).in_sentence} {number(entry['value'])} against {number(entry['against'])}"
    if entry["verdict"] in ("better", "worse"):
        surely = probability(entry["p_corrected"])
        surely += f" after correction for {comparisons} comparisons" if comparisons > 1 else ""
        between = f"95 % interval {signed(entry['low'])} to {signed(entry['high'])}"
        return (
            f"{artefact} is {entry['verdict']} than {against}: {said} "
            f"(difference {signed(entry['difference'])}, {between}; {surely})."
        )
    if entry["detectable"] is None:
        return f"{artefact} and {against} do not differ in a single row: {said}."
    return (
        f"{artefact} and {against}: {said}, no difference that {rows} rows could show; "
        f"one of {number(entry['detectable'])} would have been found in four of five such tests."
    )


def of_pair(artefact: str, against: str, metrics: Mapping[str, Mapping[str, Any]], rows: int) -> str:
    """All measures of one pair together."""
    better, worse = (
        [name for name, entry in metrics.items() if entry["verdict"] == way] for way in ("better", "worse")
    )
    if not better and not worse:
        return f"{artefact} and {against}: no difference that {rows} rows could show."
    parts = [f"better in {listed(better)}"] if better else []
    parts += [f"worse in {listed(worse)}"] if worse else []
    rest = len(metrics) - len(better) - len(worse)
    tail = f"; no difference shown in the other {rest}" if rest else ""
    return f"{artefact} against {against} on {rows} rows: {', '.join(parts)}{tail}."


def conclusion(pairs: Sequence[Mapping[str, Any]]) -> str:
    """What may be concluded of the file that is recommended, against the base and against the prompted base."""
    ggufs = [pair for pair in pairs if pair["artefact"].startswith("gguf-")]
    tuned = ggufs or [pair for pair in pairs if pair["artefact"] in ("fused", "adapter")]
    if not tuned:
        return "No tuned artefact was compared with the base."
    first = tuned[0]["artefact"]
    return " ".join(
        pair["sentence"] for pair in tuned if pair["artefact"] == first and pair["against"] in ("base", "prompted")
    )


def of_forgetting(artefact: str, pair: Mapping[str, Any], limit: float | None) -> str:
    """What an artefact has forgotten of the general set."""
    entry = pair["metrics"].get("perplexity") or pair["metrics"]["bits_per_byte"]
    rows, ratio = pair["rows"], pair["ratio"]
    lost = {"worse": "has forgotten some of it", "better": "has lost nothing of it"}
    found = lost.get(entry["verdict"], f"has forgotten nothing that {rows} rows could show")
    said = f"General set: {artefact} {found}; its perplexity there is {ratio:.2f} times the base's"
    if limit is None:
        return f"{said}."
    return f"{said}, {'within' if ratio <= limit else 'above'} the limit of {limit:g}."


def listed(names: Sequence[str]) -> str:
    words = [find(name, METRICS).in_sentence for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def probability(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def number(value: float) -> str:
    """Three significant digits, and no exponent for what people meet."""
    return f"{value:.3g}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.2e}"


def signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value)
