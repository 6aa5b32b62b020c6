"""A mask in the form in which a whole matrix is multiplied by it fastest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def factors(mask: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Tensors whose product with a tensor of the mask's shape zeroes what `mask` (bool, True kept) leaves out.

    Whole rows and columns, as gates and units have them, become one vector an axis; anything else is the mask in
    `dtype`, since a product with a bool tensor takes three times as long as one with floats.
    """
    if mask.dim() == 2:
        rows, columns = mask.any(1), mask.any(0)
        if torch.equal(mask, rows[:, None] & columns):
            sides = [side for side in (rows[:, None], columns[None]) if not bool(side.all())]
            return [side.to(dtype) for side in sides]
    return [mask.to(dtype)]


def apply(value: Tensor, by: Sequence[Tensor]) -> None:
    """Multiply in place."""
    for factor in by:
        value.mul_(factor)
