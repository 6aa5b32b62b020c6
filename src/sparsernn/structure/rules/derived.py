"""Products of parameters alone: matrices of low rank, whose rows are planes of one factor and columns of the other.

Row i of A @ B is zero where row i of A is, column j where column j of B is. So `h @ (A @ B)` reads unit i through row i
of A and computes its result j from column j of B, as if the two were one weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..ledger import Ledger
from ..shadow import SUMMED, Shadow, Weight, expand_constant


def derived(ledger: Ledger, equation: str, a: Tensor, b: Tensor) -> Shadow | None:
    """The shadow of `torch.einsum(equation, a, b)` as a weight; None unless both are matrices made of parameters.

    What the product reads and owns inside itself is `contract`'s to record, as for any other.
    """
    sides, out = equation.split("->")
    letters = sides.split(",")
    shadows = ledger.shadow(a), ledger.shadow(b)
    matrices = {len(side) for side in (*letters, out)} == {2} and max(a.shape + b.shape) > 1
    if not matrices or not all(map(ledger.is_learned, shadows)):
        return None
    factors: list[list[Weight]] = []
    for tensor, shadow, side in zip((a, b), shadows, letters):
        free = next(n for n, c in enumerate(side) if c in out)
        plain = id(tensor) in ledger.numbering.of
        found = [_factor(weight, free, plain) for weight in shadow.weights]
        if any(weight is None for weight in found):
            return None
        factors.append([weight for weight in found if weight is not None and _axes(weight)])
    for left in factors[0]:
        for right in factors[1]:
            for plane in _planes(ledger, left):
                for other in _planes(ledger, right):
                    ledger.channels.chain(plane, other)
    weights: list[Weight] = []
    for own, other, side in ((factors[0], b, letters[0]), (factors[1], a, letters[1])):
        free = next(c for c in side if c in out)
        size = next(s for s, c in zip(other.shape, letters[letters[0] == side]) if c in out)
        weights += [tuple(_spread(part, out.index(free), size) for part in weight) for weight in own]
    return Shadow(weights=tuple(weights))


def _factor(weight: Weight, free: int, plain: bool) -> Weight | None:
    """`weight` (rows and columns) along its axis `free` alone, SUMMED where an index does not follow that axis.

    None if a row is made of several parameters, or is no plane. `plain`: it is a parameter, axis for axis.
    """
    number, *parts = (expand_constant(part).movedim(free, 0) for part in weight)
    if not number.numel() or _varies(number, 1) or any(_varies(p, 0) and _varies(p, 1) for p in parts):
        return None
    if len(number) == 1 and not plain:
        return None  # which of its axes the one row lies along can't be told
    summed = torch.tensor([SUMMED]).expand(len(number))
    follows = [axis == free if plain else _varies(part, 0) for axis, part in enumerate(parts)]
    return (number[:, 0], *(part[:, 0] if own else summed for part, own in zip(parts, follows)))


def _varies(index: Tensor, axis: int) -> bool:
    return index.shape[axis] > 1 and index.stride(axis) != 0


def _axes(weight: Weight) -> list[int]:
    return [axis for axis, part in enumerate(weight[1:]) if int(part[0]) != SUMMED]


def _planes(ledger: Ledger, weight: Weight) -> list[tuple[int, int]]:
    return [(number, axis) for number in ledger.parameters_in(weight) for axis in _axes(weight)]


def _spread(part: Tensor, at: int, size: int) -> Tensor:
    """A vector along axis `at` of a matrix, the same at all `size` places of the other axis."""
    return part.unsqueeze(1 - at).expand((len(part), size) if at == 0 else (size, len(part)))
