"""Which widths a module has: what a saved attachment may name, and what adapters pick and fill up."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..structure.cells import MODES

WIDEST = 2**31  # no layer is wider: a bound for numbers that are read before the model is at hand


class Axes(NamedTuple):
    """Axes of a leaf module's weight that stand for channels: number of the argument -> (axis of the weight, dimension
    of the activation), and the same for the result."""

    inputs: Mapping[int, tuple[int, int]]
    output: tuple[int, int]


def leaf_axes(module: nn.Module) -> Axes | None:
    """The axes of a module that adapters can give the dense width; None for any other."""
    weight = getattr(module, "weight", None)
    spatial = -(weight.dim() - 1) if isinstance(weight, Tensor) else 0
    table: dict[type[nn.Module], Axes] = {
        nn.Linear: Axes({0: (1, -1)}, (0, -1)),
        nn.Bilinear: Axes({0: (1, -1), 1: (2, -1)}, (0, -1)),
        nn.Embedding: Axes({}, (1, -1)),
        nn.modules.batchnorm._BatchNorm: Axes({0: (0, 1)}, (0, 1)),
        nn.PReLU: Axes({0: (0, 1)}, (0, 1)),
        nn.modules.conv._ConvTransposeNd: Axes({0: (0, spatial)}, (1, spatial)),
        nn.modules.conv._ConvNd: Axes({0: (1, spatial)}, (0, spatial)),
    }
    return next((axes for kind, axes in table.items() if isinstance(module, kind)), None)


def state_widths(module: nn.Module) -> list[list[int]]:
    """Width of each state (h, or h and c) of a recurrent module, by layer and direction; [] for any other module."""
    of: Any = module
    if isinstance(module, nn.RNNCellBase):
        return [[of.hidden_size]] * (1 + isinstance(module, nn.LSTMCell))
    if isinstance(module, nn.RNNBase):
        rows = module.num_layers * (1 + module.bidirectional)
        cells, outer = [module.hidden_size] * rows, [module.proj_size or module.hidden_size] * rows
    elif isinstance(getattr(module, "hidden_sizes", None), tuple) and type(module).__module__.startswith("sparsernn."):
        cells = [width for row in of.hidden_sizes for width in row]
        outer = [width for row in getattr(module, "proj_sizes", None) or of.hidden_sizes for width in row]
    else:
        return []
    cell = MODES[of.mode] if isinstance(module, nn.RNNBase) else of.cell
    return [outer, cells][: cell.states]


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
