"""What feeds back: weights that meet their own results again, and units that are carried from step to step.

Torch's layers and cells are recurrent by name. In a cell written by hand two signs tell it: a product with a weight
takes in what an earlier product with the same weight gave out; or a unit is multiplied by a gate or a factor at the
same source line at which it was multiplied before, without a matrix in between (minGRU, QRNN, SRU, IndRNN).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
from torch import Tensor


class Feedback:
    """Of one forward pass; tensors are known by identity, so whoever uses this has to keep them."""

    def __init__(self) -> None:
        self.looped: dict[int, tuple[str, str]] = {}  # parameter -> (operation, where) at which it met its own results
        self.carried: list[np.ndarray] = []  # channels that are carried from step to step without a matrix
        self._weights: dict[int, int] = {}  # tensor -> the parameters (as bits) of the products that it comes from
        self._gates: dict[int, frozenset[Hashable]] = {}  # tensor -> the gates that it went through, since a product
        self._now: set[Hashable] = set()
        self._derived: dict[int, list[int]] = {}  # tensor -> the parameters that were multiplied with one another

    def gate(self, tensor: Tensor, key: Hashable, channels: np.ndarray) -> None:
        """`tensor`, which carries `channels`, is multiplied by the gate `key` in the operation that is running."""
        if len(channels) and key in self._gates.get(id(tensor), ()):
            self.carried.append(channels)
        self._now.add(key)

    def product(
        self,
        inputs: Iterable[Tensor],
        parameters: Sequence[int],
        results: Iterable[Tensor],
        site: Callable[[], tuple[str, str]],
    ) -> None:
        """`results` are products of `inputs` with `parameters`, at `site()`."""
        known = self._bits(inputs)
        for number in parameters:
            if known >> number & 1 and number not in self.looped:
                self.looped[number] = site()
            known |= 1 << number
        self._now.clear()
        for tensor in results:
            self._weights[id(tensor)] = known

    def derived(self, results: Iterable[Tensor], parameters: list[int]) -> None:
        """`results` are products of nothing but parameters: weights themselves (of low rank, say)."""
        for tensor in results:
            self._derived[id(tensor)] = parameters

    def parameters(self, tensor: Tensor) -> list[int]:
        return self._derived.get(id(tensor), [])

    def alias(self, source: Tensor, tensor: Tensor) -> None:
        """`tensor` is another object over the memory of `source`."""
        for known in (self._weights, self._gates, self._derived):
            if id(source) in known:
                known[id(tensor)] = known[id(source)]  # type: ignore[assignment]

    def layer(self) -> None:
        """A recurrent layer or cell of torch's own: its results are a beginning."""
        self._now.clear()

    def other(self, inputs: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Any operation without a weight: `results` come from all that `inputs` come from."""
        known = self._bits(inputs)
        gates = frozenset(self._now).union(*(self._gates.get(id(tensor), ()) for tensor in inputs))
        self._now.clear()
        alone = self._derived.get(id(inputs[0]), []) if len(inputs) == 1 else []
        for tensor in results if alone else ():
            self._derived[id(tensor)] = alone
        if not known and not gates:
            return
        for tensor in results:
            self._weights[id(tensor)] = known
            self._gates[id(tensor)] = gates

    def _bits(self, tensors: Iterable[Tensor]) -> int:
        found = 0
        for tensor in tensors:
            found |= self._weights.get(id(tensor), 0)
        return found
