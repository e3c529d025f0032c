"""The checks of fidelity: what a form of a model may differ by, and the sentence that says what was found.

A check holds what was found, what is allowed, and whether it passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from snaketune.config.products import MLX
from snaketune.contracts.package import FidelityCheck, TokenParity, VariantFidelity
from snaketune.evaluate import significance

MAX_DLOGP = 0.05
"""Largest difference of a log-probability between two 16-bit forms of one model, both computed in float32."""
MOST_POSITIONS = 0.9
"""Of a mixture of experts this share of positions is held to MAX_DLOGP: where two experts are nearly tied, rounding
chooses the other one, and the log-probabilities there and after it move by more than any mistake would."""
NOISE_MULTIPLE = 2.0  # by which such a form may be further from the adapter than another merge that is rounded alike
MIN_GAIN = 0.005
"""Nats a token: where the adapter gained less than this over its base, a share of it is noise."""
SAME_SHARE = 0.05  # of the gain, between two merges that are rounded alike


def load_check(variant: str, problem: str | None) -> FidelityCheck:
    """Whether what runs the file loads it at all."""
    message = problem or f"{_reader(variant)} loads it"
    return _check("loads", variant, (0 if problem else 1, 1), not problem, message)


def token_check(variant: str, parity: TokenParity, bos: tuple[int | None, int | None]) -> FidelityCheck:
    """No text may become other token ids; bos: the begin token that is expected, and the one that was found."""
    expected, found = bos
    count = parity.differences + (expected != found)
    message = f"{parity.differences} of {parity.texts} texts become other token ids"
    if expected != found:
        message += f"; the begin token is {found} instead of {expected}"
    if parity.examples:
        message += f", for instance {parity.examples[0].text!r}"
    return _check("tokens", variant, (count, 0), count == 0, message)


def template_check(variant: str, differences: int, conversations: int) -> FidelityCheck:
    """The chat template in the file must render every conversation as it was trained."""
    message = f"{differences} of {conversations} conversations are rendered differently by the file's own chat template"
    return _check("template", variant, (differences, 0), differences == 0, message)


def modelfile_check(variant: str, differences: int | None, conversations: int) -> FidelityCheck:
    """What Ollama puts before the answer must be what was trained."""
    if differences is None:
        message = "the Modelfile has no template of its own: Ollama uses the one in the GGUF, which is not checked here"
        return _check("modelfile", variant, (None, 0), True, message)
    message = f"{differences} of {conversations} prompts are rendered differently by the Modelfile's template"
    return _check("modelfile", variant, (differences, 0), differences == 0, message)


def stop_token_check(variant: str, missing: list[str]) -> FidelityCheck:
    """What runs the file must know the token at which an answer ends, or it goes on."""
    message = f"{_reader(variant)} stops where an answer ends"
    if missing:
        names = ", ".join(map(repr, missing))
        message = f"{_reader(variant)} would not stop at {names}, with which trained answers end"
    return _check("stops", variant, (len(missing), 0), not missing, message)


def _reader(variant: str) -> str:
    return "mlx-lm" if variant.startswith(MLX) else "llama.cpp"


def logprob_check(
    variant: str, baseline: str, distance: VariantFidelity, *, mixture: bool = False, limit: float = MAX_DLOGP
) -> FidelityCheck:
    """A 16-bit form of the model must be the model; mixture: of experts, at MOST_POSITIONS of the positions."""
    found = distance.most_dlogp if mixture else distance.max_dlogp
    value = found if found is not None else math.inf
    message = f"the largest difference of a log-probability to {baseline} is {value:.4f}"
    if mixture:
        message = f"at {MOST_POSITIONS:.0%} of the positions no log-probability differs from {baseline} by more than "
        message += f"{value:.4f} (the experts of a mixture can change hands at the others)"
    if distance.not_finite:
        message += f", and {distance.not_finite} distributions are not finite"
    return _check("logprobs", variant, (value, limit), value <= limit and not distance.not_finite, message)


def noise_limit(rounding: VariantFidelity) -> float:
    """How far a mixture's 16-bit form may be from the adapter; rounding: the distance of a merge rounded alike."""
    return max(MAX_DLOGP, NOISE_MULTIPLE * (rounding.most_dlogp or 0.0))


@dataclass(frozen=True)
class Gain:
    """The log-probabilities (nats) of each row's reference response under the base and under the adapter over it.

    tokens: of each response. A variant of which fewer rows were read is compared over those.
    """

    base: Sequence[float]
    adapter: Sequence[float]
    tokens: Sequence[int]

    def per_token(self, rows: int) -> float:
        """What the adapter gained over its base, in nats a token of the first rows."""
        return self._gained(rows) / max(sum(self.tokens[:rows]), 1)

    def share(self, logprobs: Sequence[float]) -> float | None:
        """The share of the gain that a variant with these log-probabilities retains; None where nothing was gained."""
        rows = len(logprobs)
        gained, total = self._gained(rows), sum(logprobs)
        if not (gained > 0 and math.isfinite(gained) and math.isfinite(total)):
            return None
        return (total - sum(self.base[:rows])) / gained

    def share_error(self, logprobs: Sequence[float]) -> float:
        """How far a 95 % interval reaches to each side of that share, from the rows' differences to the adapter."""
        rows = len(logprobs)
        gained = self._gained(rows)
        apart = np.array(logprobs) - np.array(self.adapter[:rows])
        if gained == 0 or not np.isfinite(apart).all():
            return 0.0
        return abs(_error_of_sum(apart) / gained)

    def is_decided(self, logprobs: Sequence[float], minimum: float, rounded: Sequence[float] | None = None) -> bool:
        """Whether these rows show that a variant retains more than `minimum`; no file fails before all rows are read.

        Where they show no gain to take a share of, whether they show that there is none. rounded: of another merge that
        excuses a folder which loses as much (see `retained_check`), so that more rows would change nothing.
        """
        gain, share = self.per_token(len(logprobs)), self.share(logprobs)
        if gain < MIN_GAIN and math.isfinite(gain + sum(logprobs)):
            return gain + self._gain_error(len(logprobs)) < MIN_GAIN
        if share is None or share - minimum > self.share_error(logprobs):
            return True
        return rounded is not None and self._as_much(share, rounded)

    def retained_check(
        self,
        variant: str,
        logprobs: Sequence[float],
        minimum: float,
        *,
        rounded: tuple[str, Sequence[float]] | None = None,
    ) -> FidelityCheck:
        """Check the share of the gain that a variant with these log-probabilities retains.

        A share that so few rows cannot tell from the minimum passes. rounded: for a folder in the base's own format,
        that format and the log-probabilities of another merge in it: losing as much as that is no fault of the folder.
        """
        gain, share = self.per_token(len(logprobs)), self.share(logprobs)
        if gain < MIN_GAIN and math.isfinite(sum(logprobs)):
            message = f"the adapter gained {gain:.4f} nats a token over its base here, too little to take a share of it"
            return _check("gain", variant, (None, minimum), True, message)
        if share is None:
            return _check("gain", variant, (None, minimum), False, "the responses' probabilities are not finite")
        message = f"{share:.1%} of the adapter's gain of {gain:.3f} nats a token is retained"
        passed = share >= minimum
        error = self.share_error(logprobs)
        if not passed and rounded is not None and self._as_much(share, rounded[1]):
            passed = True
            message += (
                f": {rounded[0]}, the base's own format, rounds the rest away. The GGUF files are made from the merge "
                "before this rounding; for a folder that loses less set model.dtype: float16"
            )
        elif not passed and share + error >= minimum:
            passed = True
            message += f", give or take {error:.1%}: these rows cannot tell it from {minimum:.0%}"
        return _check("gain", variant, (round(share, 6), minimum), passed, message)

    def _gained(self, rows: int) -> float:
        return sum(self.adapter[:rows]) - sum(self.base[:rows])

    def _gain_error(self, rows: int) -> float:
        """How far a 95 % interval reaches to each side of the gain in nats a token."""
        gains = np.array(self.adapter[:rows]) - np.array(self.base[:rows])
        return _error_of_sum(gains) / max(sum(self.tokens[:rows]), 1)

    def _as_much(self, share: float, logprobs: Sequence[float]) -> bool:
        other = self.share(logprobs)
        return other is not None and abs(share - other) <= SAME_SHARE


def _error_of_sum(values: np.ndarray) -> float:
    """How far a 95 % interval (Student's) reaches to each side of a sum; 0 where one value says nothing of it."""
    count = len(values)
    if count < 2:
        return 0.0
    return significance.student_quantile(count - 1) * float(values.std(ddof=1)) * count**0.5


def _check(
    check: str, variant: str, value_and_limit: tuple[float | None, float], passed: bool, message: str
) -> FidelityCheck:
    value, limit = value_and_limit
    return FidelityCheck(check=check, variant=variant, value=value, limit=limit, passed=bool(passed), message=message)
