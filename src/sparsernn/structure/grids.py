"""Rows of weights as int8 with one scale a row; rows that stand on a grid already keep it, so that nothing is lost."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LARGEST = 127
_LOOK = 8  # the largest weights of a row, by which most rows are seen to be on no grid
_ROWS = 1024  # rows that are looked at together: 4 MB
_NEAR = 1e-4  # of a step: far above what float32 makes of a product, far below half a step


def integers(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) float32 -> int8 q and scales t (rows,) with w near q t: |w - q t| is at most t / 2.

    t is the row's largest weight over 127, or over as many steps as a coarser grid has on which the whole row lies:
    int4 weights, or single ones.
    """
    most = weight.abs().amax(1)
    scales = most / _steps(weight, most)
    safe = torch.where(scales > 0, scales, 1.0)
    return (weight / safe.unsqueeze(1)).round().clamp(-LARGEST, LARGEST).to(torch.int8), scales


def _steps(weight: Tensor, most: Tensor) -> Tensor:
    """How many steps from 0 to the largest of each row, (rows,): the smallest number on whose grid the row lies."""
    found = torch.full_like(most, LARGEST)
    safe = torch.where(most > 0, most, 1.0)
    few = weight.abs().topk(min(_LOOK, weight.shape[1]), dim=1).values / safe.unsqueeze(1)
    counts = torch.arange(1, LARGEST, dtype=few.dtype, device=few.device)
    may = torch.cat([_on(rows.unsqueeze(1) * counts[:, None]) for rows in few.split(_ROWS)])
    for steps in torch.nonzero(may.any(0))[:, 0].tolist():
        at = torch.nonzero((found == LARGEST) & may[:, steps])[:, 0]
        if len(at):
            on = _on(weight[at] / safe[at, None] * (steps + 1))
            found[at[on]] = float(steps + 1)
    return found


def _on(values: Tensor) -> Tensor:
    return ((values - values.round()).abs() < _NEAR).all(-1)


_QUICK = 4  # rows that are looked at first: of most matrices none lies on a grid


def with_digits(scales: Tensor, digits: int) -> Tensor:
    """Scales of this many binary digits, so that small multiples of them are exact numbers."""
    mantissa, exponent = torch.frexp(scales)
    return torch.ldexp((mantissa * 2**digits).round() / 2**digits, exponent)


def on_grid(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """int8 q and float32 scales t (rows,) with w = q t to the bit for the whole (rows, columns) matrix; None where
    there are none, and where each row has but one size of number, which says nothing.

    t is the largest number of which all weights of the row are multiples.
    """
    for rows in (weight[:_QUICK], weight):
        found = _whole_numbers(rows.detach().to("cpu", torch.float64).numpy())
        if found is None:
            return None
        numbers, scales = found
    codes, steps = torch.from_numpy(numbers), torch.from_numpy(scales)
    exact = torch.equal(codes.double() * steps.float().double().unsqueeze(1), weight.detach().to("cpu", torch.float64))
    if not exact or not bool((codes.abs() > 1).any()):
        return None
    return codes.to(torch.int8), steps.float()


def _whole_numbers(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Each row over the largest number of which all its weights are multiples, and that number, both exact."""
    if not np.isfinite(rows).all() or not rows.size:
        return None
    mantissas, exponents = np.frexp(rows)
    whole = (mantissas * 2.0**53).astype(np.int64)
    lowest = exponents - 54 + np.frexp((whole & -whole).astype(np.float64))[1]
    there = rows != 0
    low = np.where(there, lowest, 2000).min(1, keepdims=True)
    high = np.where(there, exponents, -2000).max(1, keepdims=True)
    if (high - low > _WIDE).any():
        return None
    low = np.where(there.any(1, keepdims=True), low, 0)
    numbers = np.ldexp(rows, -low).astype(np.int64)
    steps = np.maximum(np.gcd.reduce(numbers, axis=1, keepdims=True), 1)
    numbers //= steps
    if np.abs(numbers).max() > LARGEST:
        return None
    return numbers, np.where(there.any(1), np.ldexp(steps.astype(np.float64), low)[:, 0], 0.0)


_WIDE = 31  # bits from the lowest of a scale of float32 to the highest of 127 times it
