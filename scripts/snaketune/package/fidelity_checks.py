"""From measurements to verdicts: each a sentence with what was found, what is allowed, and whether it passes."""

from __future__ import annotations

import math
from typing import Any

MAX_DLOGP = 0.05
"""Largest difference of a log-probability between two 16-bit forms of one model, both computed in float32."""
LEAST_GAIN = 0.01
"""Nats a token: where the adapter gained less than this over its base, no share of it can be told from noise."""


def verdict(check: str, artefact: str, value: Any, limit: Any, passed: bool, says: str) -> dict[str, Any]:
    return {"check": check, "artefact": artefact, "value": value, "limit": limit, "passed": bool(passed), "says": says}


def loads(artefact: str, problem: str | None) -> dict[str, Any]:
    """Whether llama.cpp takes the file at all."""
    says = problem or "llama.cpp loads it"
    return verdict("loads", artefact, 0 if problem else 1, 1, not problem, says)


def tokens(artefact: str, found: dict[str, Any], begin: dict[str, Any]) -> dict[str, Any]:
    """No text may become other token ids."""
    wrong_begin = begin["expected"] != begin["found"]
    count = found["differences"] + wrong_begin
    says = f"{found['differences']} of {found['texts']} texts become other token ids"
    if wrong_begin:
        says += f"; the begin token is {begin['found']} instead of {begin['expected']}"
    if found["examples"]:
        says += f", for instance {found['examples'][0]['text']!r}"
    return verdict("tokens", artefact, count, 0, count == 0, says)


def template(artefact: str, differences: int, conversations: int) -> dict[str, Any]:
    """The chat template read back from the file must render every conversation as it was trained."""
    says = f"{differences} of {conversations} conversations are rendered differently by the file's own chat template"
    return verdict("template", artefact, differences, 0, differences == 0, says)


def modelfile(artefact: str, differences: int | None, conversations: int) -> dict[str, Any]:
    """What Ollama will put before the answer must be what was trained."""
    if differences is None:
        says = "the Modelfile has no template of its own: Ollama runs the one in the GGUF, which is not checked here"
        return verdict("modelfile", artefact, None, 0, True, says)
    says = f"{differences} of {conversations} questions are rendered differently by the Modelfile's template"
    return verdict("modelfile", artefact, differences, 0, differences == 0, says)


def stops(artefact: str, endless: list[str]) -> dict[str, Any]:
    """llama.cpp must know the token at which an answer ends, or it runs on."""
    says = "llama.cpp stops where an answer ends"
    if endless:
        says = f"llama.cpp would not stop at {', '.join(map(repr, endless))}, with which answers were trained to end"
    return verdict("stops", artefact, len(endless), 0, not endless, says)


def numbers(artefact: str, against: str, distance: dict[str, Any]) -> dict[str, Any]:
    """A 16-bit form of the model must be the model."""
    value = distance["max_dlogp"]
    says = f"the largest difference of a log-probability to {against} is {value:.4f}"
    if distance["not_finite"]:
        says += f", and {distance['not_finite']} distributions are not finite"
    passed = value <= MAX_DLOGP and not distance["not_finite"]
    return verdict("numbers", artefact, value, MAX_DLOGP, passed, says)


def gain_kept(artefact: str, base: float, adapter: float, found: float, count: int, least: float) -> dict[str, Any]:
    """The share of the adapter's gain over its base that survives; the first three are sums of log-probabilities."""
    if not math.isfinite(found):
        return verdict("gain", artefact, None, least, False, "the answers' probabilities are not finite")
    gain = (adapter - base) / max(count, 1)
    if gain < LEAST_GAIN:
        says = f"the adapter gained {gain:.4f} nats a token over its base here, too little to tell a share of it"
        return verdict("gain", artefact, None, least, True, says)
    share = (found - base) / (adapter - base)
    says = f"{share:.1%} of the adapter's gain of {gain:.3f} nats a token is kept"
    return verdict("gain", artefact, round(share, 6), least, share >= least, says)
