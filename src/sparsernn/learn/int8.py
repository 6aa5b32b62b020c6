"""Products as the int8 kernels and the exported C make them, with gradients as if nothing had been rounded.

A row of x becomes round(x / s), s = max |x| / 127, anew at each product; a row of W becomes round(w / t), with t as
`structure.grids` has it. The sums of whole numbers are exact in any order; each is multiplied by s t and the bias is
added. Backward, rounding counts as the identity (straight-through: Bengio et al., arXiv 1308.3432).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..structure.grids import LARGEST, integers, with_digits

SEVEN, DIGITS = 7, 16  # steps on either side of zero in 4 bits, and binary digits of their scale
TINY = 1e-30  # a row of x that is nowhere larger is zeros


@dataclass(frozen=True)
class Grid:
    """A matrix (rows, columns) as whole numbers, one scale a row; `numbers` in a type in which sums are exact."""

    numbers: Tensor
    scales: Tensor
    bits: int

    @classmethod
    @torch.no_grad()
    def of(cls, weight: Tensor, bits: int) -> Grid:
        """Of 8 bits as the kernels have it; of 4 so that every weight is exact, and kernels and files find it."""
        if bits == 8:
            numbers, scales = integers(weight)
        else:
            scales = with_digits(weight.abs().amax(1) / SEVEN, DIGITS)
            safe = torch.where(scales > 0, scales, 1.0)
            numbers = (weight / safe[:, None]).round().clamp(-SEVEN, SEVEN)
        exact = weight.dtype == torch.float64 or LARGEST * int(numbers.long().abs().sum(1).max()) < 2**24
        return cls(numbers.to(weight.device, torch.float32 if exact else torch.float64), scales, bits)

    def values(self, weight: Tensor) -> Tensor:
        """The rounded matrix in the type of `weight`, whose grid this is: it has the same numbers and scales again."""
        values = self.numbers.to(weight.dtype) * self.scales[:, None]
        if self.bits == 4:
            return values
        most = weight.abs().amax(1, keepdim=True)
        ends = self.numbers.abs() == self.numbers.abs().amax(1, keepdim=True)
        return torch.where(ends, most * self.numbers.sign().to(weight.dtype), values)


def rounded_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (rows, columns) as whole numbers in its own type, and the scale of each row (rows, 1)."""
    most = x.abs().amax(-1, keepdim=True)
    inverse = torch.where(most > TINY, LARGEST / most, 0.0)
    # The product is exact in float64, as in the kernels' fused instruction.
    numbers = (x.double() * inverse.double()).round().to(x.dtype)
    return numbers, torch.where(most <= TINY, 0.0, most / LARGEST)


class Rounding:
    """The products of one forward of a model: each matrix of `chosen` (ids) is rounded once, others are as they are;
    `inputs`: what they multiply is rounded too."""

    def __init__(self, chosen: Collection[int], bits: int, inputs: bool = True) -> None:
        self._chosen, self._bits, self._inputs = chosen, bits, inputs
        self._grids: dict[int, Grid] = {}

    def product(self, x: Tensor, weight: Tensor | Sequence[Tensor], bias: Tensor | None) -> Tensor:
        """x (..., columns) times weight (rows, columns), or its factors (rows, r) and (r, columns) in turn, plus
        the bias."""
        if not isinstance(weight, Tensor):
            outer, inner = weight
            return self.product(self.product(x, inner, None), outer, bias)
        if id(weight) not in self._chosen:
            return F.linear(x, weight, bias)
        if id(weight) not in self._grids:
            self._grids[id(weight)] = Grid.of(weight.detach(), self._bits)
        grid = self._grids[id(weight)]
        x = x.to(weight.dtype)
        if not self._inputs:
            rounded = grid.numbers.to(weight.dtype) * grid.scales[:, None]
            return F.linear(x, _Through.apply(weight, rounded), bias)
        rows: Any = _Product.apply(x.reshape(-1, x.shape[-1]), weight, bias, grid.numbers, grid.scales)
        return rows.view(*x.shape[:-1], len(weight))


class _Through(torch.autograd.Function):
    """The second in place of the first, whose gradient is the result's."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return d_y, None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight: Tensor, bias: Tensor | None, numbers: Tensor, scales: Tensor) -> Tensor:
        own, steps = rounded_rows(x_NI)
        sums = (own.to(numbers.dtype) @ numbers.t()).to(x_NI.dtype)
        ctx.save_for_backward(own, steps, numbers, scales)
        scale = scales * steps
        return sums * scale if bias is None else torch.addcmul(bias, sums, scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        own, steps, numbers, scales = ctx.saved_tensors
        d_x = (d_y * scales) @ numbers.to(d_y.dtype) if ctx.needs_input_grad[0] else None
        d_weight = (d_y * steps).t() @ own if ctx.needs_input_grad[1] else None
        return d_x, d_weight, d_y.sum(0) if ctx.needs_input_grad[2] else None, None, None
