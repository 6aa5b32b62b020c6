"""`milliseconds`: what a model of given widths would take in the runtime, by its cost table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from .runtime.costs import current, predict
from .runtime.held import Precision
from .runtime.layout import Counts
from .runtime.layouts import offered
from .runtime.order import WIDTH
from .structure.cells import RecurrentLayer, plain_parameters
from .structure.cuts import unit_cuts
from .structure.trace import trace


@dataclass(frozen=True)
class _Matrix:
    """One matrix: its shape, how much of each side a unit of each set takes with it, how often it multiplies.

    `blocks`: in how many equal parts its rows are packed (gates).
    """

    shape: tuple[int, int]
    cuts: tuple[Mapping[str, float], Mapping[str, float]]
    calls: int
    rows: int
    blocks: int


def milliseconds(
    model: nn.Module,
    example_inputs: Any,
    *,
    batch: int = 1,
    steps: int = 1,
    precision: Precision = "float32",
    carried_states: bool = False,
) -> Callable[[Mapping[str, int]], float]:
    """A function {unit set of `trace`: units left} -> predicted milliseconds of the products of one call.

    For `Shrink(model, x, to=0.5, cost=milliseconds(model, x), steps=...)`: units go until the compact model is
    predicted to take half a millisecond on one thread, for `batch` rows over `steps` time steps. The prediction is that
    of `accelerate(...).explain()`, from the runtime's cost table (`sparsernn tune` measures it anew): matrix products
    of recurrent layers (projections too) and linear layers, dense. Activations, other operations and weights that are
    no plain parameters are left out.
    Raises what `trace` raises.
    """
    structure = trace(model, example_inputs, carried_states=carried_states)
    parameters = {name: p for name, p in model.named_parameters() if p.dim() == 2}
    groups = structure.groups("unit").of(parameters)
    sizes = {name: len(numbers) for name, numbers in groups.units.items()}
    matrices = []
    for name, kind, gates in _products(model, structure.layers):
        p = parameters[name]
        cuts = unit_cuts(groups, name, 2)
        calls, rows = (steps, batch) if kind in ("hh", "hr") else (1, steps * batch)
        matrices.append(_Matrix((p.shape[0], p.shape[1]), (cuts[0], cuts[1]), calls, rows, gates))
    layout = offered(precision)[0]  # dense panels

    def cost(widths: Mapping[str, int]) -> float:
        gone = {name: size - widths.get(name, size) for name, size in sizes.items()}
        total = 0.0
        for m in matrices:
            sides = [size - sum(gone[s] * each for s, each in cut.items()) for size, cut in zip(m.shape, m.cuts)]
            high, wide = (max(1, round(side)) for side in sides)
            total += m.calls * predict(layout, _dense(high, wide, m.blocks), m.rows, current())
        return total / 1e6

    return cost


def _products(model: nn.Module, layers: Sequence[RecurrentLayer]) -> Iterator[tuple[str, str, int]]:
    """Each matrix product of a call: the weight's name, what it multiplies and how many gates it stacks.

    What it multiplies is "ih", "hh", "hr" or "linear"; a weight of two layers (a tied output) is there twice.
    """
    for layer in layers:
        for kind in ("ih", "hh"):
            for name in layer.parameters(kind):
                yield name, kind, sum(row.parameter == name for row in layer.rows)
        if layer.projection:
            yield layer.projection, "hr", 1
    names = plain_parameters(model)
    for module in model.modules():
        if isinstance(module, nn.Linear) and id(module.weight) in names:
            yield names[id(module.weight)], "linear", 1


def _dense(rows: int, columns: int, parts: int) -> Counts:
    """The counts of a matrix without zeros whose rows are packed in `parts` equal parts."""
    blocks = parts * math.ceil(rows / parts / WIDTH)
    weights = rows * columns
    return Counts(columns, blocks, blocks * columns, blocks * math.ceil(columns / 4), weights)
