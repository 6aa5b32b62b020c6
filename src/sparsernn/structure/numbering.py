"""Parameters and buffers by number, and what a zero of each of them means.

A weight that is computed (a mask times a parameter, a norm times a direction) is cut with the planes of all that it is
computed from, but only some of these have to be zero for it to be zero. An *alias* is a second number of a parameter:
its planes count along the axes that the alias names, and are merely cut along all others. A negative number is a
weight that was computed by an operation which is not followed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .channels import narrow_expanded
from .shadow import Shadow, Weight, weight_shadow

if TYPE_CHECKING:
    from .channels import Reason


class Numbering:
    def __init__(self, names: Sequence[str], tensors: Sequence[Tensor]) -> None:
        self.names = ["", *names]  # number 0 is "no parameter"
        self.shapes: list[tuple[int, ...]] = [(), *(tuple(t.shape) for t in tensors)]
        self.buffers = {number for number, t in enumerate(tensors, start=1) if not isinstance(t, nn.Parameter)}
        self.of = {id(tensor): number for number, tensor in enumerate(tensors, start=1)}
        self.unfollowed: list[Reason] = []  # of the weights -1, -2, ...
        self._aliases: dict[int, tuple[int, frozenset[int]]] = {}  # alias -> parameter, the axes along which it counts

    def parameter(self, number: int) -> int:
        """The parameter behind `number`, which may be an alias."""
        return self._aliases.get(number, (number,))[0]

    def counts(self, number: int, axis: int) -> bool:
        """Whether zeros on a plane of `number` along `axis` are zeros of what is computed from it."""
        return number not in self._aliases or axis in self._aliases[number][1]

    def is_alias(self, weight: Weight) -> bool:
        return any(number in self._aliases for number in _numbers(weight))

    def alias(self, weight: Weight, axes: Collection[int] = ()) -> Weight:
        """`weight` where zeros count along `axes` alone (of those along which they counted)."""
        number = weight[0]
        for value in _numbers(weight):
            if value > 0:
                parameter, already = self._aliases.get(value, (value, frozenset(range(len(self.shapes[value])))))
                wanted = (parameter, already & frozenset(axes))
                number = torch.where(number == value, self._number(wanted), number)
        return (number, *weight[1:])

    def _number(self, wanted: tuple[int, frozenset[int]]) -> int:
        for alias, known in self._aliases.items():
            if known == wanted:
                return alias
        self._aliases[len(self.shapes)] = wanted
        self.names.append(self.names[wanted[0]])
        self.shapes.append(self.shapes[wanted[0]])
        return len(self.shapes) - 1

    def parameters_in(self, weight: Weight) -> list[int]:
        """The numbers of the parameters and buffers that `weight` is made of, in order."""
        return list(dict.fromkeys(self.parameter(n) for n in _numbers(weight) if n > 0))

    def whole(self, shadow: Shadow) -> int | None:
        """The parameter that a tensor with this shadow is, element for element; None for anything else."""
        if not shadow.is_weight or len(shadow.weights) != 1:
            return None
        number, *parts = shadow.weights[0]
        mine = int(number.reshape(-1)[0]) if number.numel() else 0
        if mine <= 0 or mine in self._aliases or self.shapes[mine] != tuple(number.shape):
            return None
        own = weight_shadow(mine, number.shape).weights[0]
        same = bool((number == mine).all()) and all(torch.equal(a, b) for a, b in zip(parts, own[1:]))
        return mine if same else None

    def lost(self, reason: Reason, shape: torch.Size) -> Shadow:
        """The shadow of a weight that was computed in a way that is not followed."""
        if reason not in self.unfollowed:
            self.unfollowed.append(reason)
        return Shadow(weights=((torch.tensor(-1 - self.unfollowed.index(reason)).expand(shape),),))

    def why_lost(self, weight: Weight) -> Reason | None:
        """Why the weight is not followed; None if it is."""
        return next((self.unfollowed[-1 - number] for number in _numbers(weight) if number < 0), None)


def _numbers(weight: Weight) -> list[int]:
    return torch.unique(narrow_expanded(weight[0])[0]).tolist()
