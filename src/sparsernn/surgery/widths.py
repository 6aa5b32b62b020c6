"""Which widths a module has: what a saved attachment may name, and what adapters pick and fill up."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import nn

from ..nn.layers import LayeredRecurrent
from ..nn.packing import mode_of, widths_of
from ..structure.cells import MODES

WIDEST = 2**31  # no layer is wider: a bound for numbers that are read before the model is at hand


def state_widths(module: nn.Module) -> list[list[int]]:
    """Width of each state (h, or h and c) of a recurrent module, by layer and direction; [] for any other module."""
    of: Any = module
    if not isinstance(module, (nn.RNNBase, nn.RNNCellBase, LayeredRecurrent)):
        return []
    count = MODES[mode_of(module)].states
    if isinstance(module, nn.RNNCellBase):
        return [[of.hidden_size]] * count
    cells, outer = widths_of(module, "hidden_size"), widths_of(module, "proj_size")
    return [[width for row in rows for width in row] for rows in (outer if outer[0][0] else cells, cells)[:count]]


def output_width(module: nn.Module) -> int:
    """Width of what the last layer of a recurrent module hands out, all directions side by side."""
    rows = state_widths(module)[0]
    directions = 1 + bool(getattr(module, "bidirectional", False))
    return sum(rows[-directions:])


def whole(what: str, value: object, least: int, most: int) -> int:
    """`value`, if it is a whole number from `least` to `most`; else ValueError."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{what} is {str(value)[:40]}; expected a whole number from {least} to {most}.")
    return value


def rising(what: str, value: object, most: int) -> list[int]:
    """`value`, if it is a list of rising whole numbers from 0 to `most` - 1; else ValueError."""
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n < most for n in value):
        raise ValueError(f"{what} is no list of whole numbers from 0 to {most - 1}.")
    if any(a >= b for a, b in pairwise(value)):
        raise ValueError(f"{what} does not rise.")
    return value
