"""How large a threshold may be: the largest that a trained dense net does not notice (Wen et al., arXiv 1709.05027)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.levels import scored

from .runs import RunError

GRID = tuple(float(f"{10 ** (k / 4 - 6):.3g}") for k in range(21))  # 1e-6 to 0.1, four a decade


def largest_harmless(
    model: nn.Module, example_inputs: Any, harmless: Callable[[Any], bool], include: str | tuple[str, ...] = "recurrent"
) -> float:
    """The largest threshold of GRID below which every weight that ISS learns can be set to zero so that the net stays
    `harmless`. By bisection: a threshold is taken to do more harm than a smaller one. Raises RunError where none is."""
    levels = GroupLasso(copy.deepcopy(model), example_inputs, strength=1.0, include=include).levels
    names = {name for level in levels for name in scored(level)}

    def fits(threshold: float) -> bool:
        other = copy.deepcopy(model)
        with torch.no_grad():
            for name in names:
                weight = other.get_parameter(name)
                weight[weight.abs() < threshold] = 0
        return harmless(other)

    low, high = -1, len(GRID)  # GRID[low] does no harm, GRID[high] does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(GRID[middle]) else (low, middle)
    if low < 0:
        raise RunError(
            f"No threshold from {GRID[0]:g} on is harmless to the dense net: set threshold to one that may cost."
        )
    return GRID[low]
