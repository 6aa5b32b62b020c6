"""Rows of weights as int8 with one scale a row; rows that stand on a grid already keep it, so that nothing is lost."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 127
_LOOK = 8  # the largest weights of a row, by which most rows are seen to be on no grid
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
    for steps in range(1, LARGEST):
        at = torch.nonzero((found == LARGEST) & _on(few * steps))[:, 0]
        if len(at):
            on = _on(weight[at] / safe[at, None] * steps)
            found[at[on]] = float(steps)
    return found


def _on(values: Tensor) -> Tensor:
    return ((values - values.round()).abs() < _NEAR).all(1)
