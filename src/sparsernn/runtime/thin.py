"""A matrix that is there as two factors: its product is two products, one after the other."""

from __future__ import annotations

import torch

from .costs import Choice, Matrix
from .held import Precision
from .pack import Arrangement, Packed, unit_rows
from .weights import Factors, Weight

THROUGH = 64  # rows that go through the scratch at once


class ThinMatrix:
    """Two factors, each rounded and packed by itself; it is used as a `Matrix`.

    `parts`: the outer factor, in whose blocks the rows stand, and the inner one, which multiplies the inputs.
    """

    def __init__(self, weight: Factors, arrangement: Arrangement, precision: Precision) -> None:
        self.parts = Matrix(weight.outer, arrangement, precision), inner_matrix(weight.inner, precision)
        self._packed: dict[str, Packed] = {}

    def choose(self, inputs: int) -> Choice:
        """A layout for each: their names in a row."""
        outer, inner = (part.choose(inputs) for part in self.parts)
        return Choice(f"{outer.layout} {inner.layout}", outer.nanoseconds + inner.nanoseconds)

    def packed(self, layout: str) -> Packed:
        if layout not in self._packed:
            outer, inner = (part.packed(own) for part, own in zip(self.parts, layout.split()))
            self._packed[layout] = thin_product(inner, outer, self.parts[1].arrangement.width)
        return self._packed[layout]


AnyMatrix = Matrix | ThinMatrix


def matrix_of(weight: Weight | Factors, arrangement: Arrangement, precision: Precision) -> AnyMatrix:
    kind = ThinMatrix if isinstance(weight, Factors) else Matrix
    return kind(weight, arrangement, precision)  # type: ignore[arg-type]


def inner_matrix(weight: Weight, precision: Precision) -> Matrix:
    """The factor that multiplies the inputs: its product begins whole rows anew."""
    rows, where = unit_rows(weight.shape[0], 1, (0,), 1)
    zero = torch.zeros(rows.numel(), dtype=torch.float32, device="cpu")
    return Matrix(weight, Arrangement(rows, where, zero, len(zero)), precision)


def thin_product(inner: Packed, outer: Packed, width: int) -> Packed:
    """`outer` multiplies what `inner` gives, rows of `width` numbers with their padding."""
    scratch = -(-max(inner.scratch, outer.scratch) // 64) * 64
    numbers = [inner.kernel, inner.plan, outer.kernel, outer.plan, 4 * width, scratch]
    plan = torch.tensor(numbers, dtype=torch.int64, device="cpu")
    kept = (plan, *inner.kept, *outer.kept)
    layout, size = f"{inner.layout} before {outer.layout}", inner.bytes + outer.bytes
    return Packed(layout, "products.thin", plan.data_ptr(), size, scratch + THROUGH * 4 * width, kept)
