"""What the processes of one training say to each other; alone, each of these hands back what it was given.

All of them call the same methods in the same order. Gradients are summed, so that every process makes the same update
of the same weights; what must not differ by a rounding between unlike machines (weights, decisions) is the first one's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np

from snaketune.engines.mlx.tensors import Weights

Some = TypeVar("Some", Sequence[Any], np.ndarray)


class LostError(Exception):
    """Another process is gone, so what was asked of all cannot be had."""


class Workers:
    """This process among `count`; `number` 0 writes.

    `steps` counts what was asked of all, and while an answer is outstanding it is `waiting`. Raises LostError when
    another process is gone.
    """

    def __init__(self, group: mx.distributed.Group | None = None) -> None:
        self._group = group
        self.number, self.count = (group.rank(), group.size()) if group else (0, 1)
        self.first = self.number == 0
        self.steps, self.waiting = 0, False
        self.asked_to_stop = 0  # a signal's number

    def share(self, items: Some) -> Some:
        """This process's part of some rows or batches."""
        return items[self.number :: self.count]

    def counts(self, *counts: int) -> list[int]:
        """Each of these summed over all."""
        return self._numbers("sum", counts)

    def most(self, *numbers: int) -> list[int]:
        """The largest of each over all."""
        return self._numbers("max", numbers)

    def summed(self, arrays: Weights) -> Weights:
        """Arrays summed over all, in fp32 on the way; they are sent one after another in the order of their names."""
        if not self._group:
            return arrays
        mine = {name: one.astype(mx.float32) for name, one in sorted(arrays.items())}
        return {name: self._all("sum", one).astype(arrays[name].dtype) for name, one in mine.items()}

    def given(self, arrays: Weights) -> Weights:
        """The first one's arrays, to the bit; the others give theirs for names, shapes and types."""
        if not self._group:
            return arrays
        mine = {name: one if self.first else mx.zeros_like(one) for name, one in sorted(arrays.items())}
        return {name: self._all("sum", one) for name, one in mine.items()}

    def told(self, value: Any) -> Any:
        """The first one's value, of JSON's kinds."""
        if not self._group:
            return value
        text = json.dumps(value).encode() if self.first else b""
        (length,) = self.counts(len(text))
        return json.loads(bytes(self._numbers("sum", list(text) or [0] * length)))

    def _numbers(self, what: str, numbers: Sequence[int]) -> list[int]:
        if not self._group:
            return list(numbers)
        found = self._all(what, mx.array(list(numbers), mx.int32))
        return [int(number) for number in np.array(found)]

    def _all(self, what: str, array: mx.array) -> mx.array:
        together = mx.distributed.all_sum if what == "sum" else mx.distributed.all_max
        mx.eval(array)  # this process's own work: only what follows is waiting
        self.steps, self.waiting = self.steps + 1, True
        try:
            found = together(array, group=self._group)
            mx.eval(found)
        except RuntimeError as error:
            raise LostError(str(error)) from error
        self.waiting = False
        return found
