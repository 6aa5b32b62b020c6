"""The matrices of one layer and direction: their arrangement, their layouts and the order of the units."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..structure.coded import CodedMatrix
from ..structure.held_weights import Held
from .costs import Choice, Matrix, choose
from .held import Precision, Precisions, as_coded, columns_at, numbers_of, precision_of, rounded
from .layouts import LAYOUTS, offered
from .order import patterns, similar_order
from .pack import WIDTH, Arrangement, slot_row, unit_rows
from .packed_layer import PackedLayer, places
from .thin import AnyMatrix, matrix_of
from .weights import LayerWeights, parts_of

Matrices = dict[str, AnyMatrix]  # by the names that `LayerWeights.matrices` has


class LayerMatrices:
    """The matrices of one layer and direction, and the packed layers made of them."""

    def __init__(self, weights: LayerWeights, precision: Precisions, resort: bool = True) -> None:
        """precision: of all layers of the module, or by the name of the layer ("l0_reverse"). resort: units may stand
        in another order where that pays."""
        own = self.precision = precision_of(precision, weights.name)
        self.weights = weights
        self.order, self.matrices = _cheapest(weights, own) if resort else (None, _matrices(weights, own, None))
        self._layers: dict[tuple[str, ...], PackedLayer] = {}

    def take(self, owner: object) -> None:
        """From now on the packed matrices are where the weights that are held once have their numbers."""
        for name, weight in self.weights.matrices.items():
            order = self.order if name == "hr" else None
            for part, matrix in zip(parts_of(weight), self.matrices[name].parts):
                if isinstance(part, Held):
                    part.give_to(owner, self.precision, partial(_back, matrix, order))

    def nanoseconds(self) -> float:
        """Predicted of its products, summed over the batches that decide."""
        return _nanoseconds(self.matrices)

    def choices(self, rows: int, steps: int) -> dict[str, Choice]:
        """The layout of each matrix: the input product sees all steps at once, the others one."""
        return {name: m.choose(rows * steps if name == "ih" else rows) for name, m in self.matrices.items()}

    def layer(self, rows: int, steps: int) -> PackedLayer:
        """Packed for batches of `rows` over `steps` steps."""
        choices = self.choices(rows, steps)
        layer = copy.copy(self.packed({name: choice.layout for name, choice in choices.items()}))
        layer.nanoseconds = sum(c.nanoseconds / (steps if name == "ih" else 1) for name, c in choices.items())
        return layer

    def packed(self, layouts: dict[str, str]) -> PackedLayer:
        """Packed in the given layouts: matrix ("ih", "hh", "hr") -> name of the layout."""
        key = tuple(layouts.values())
        if key not in self._layers:
            packed = {name: self.matrices[name].packed(layout) for name, layout in layouts.items()}
            self._layers[key] = PackedLayer(self.weights, packed, self.order)
        return self._layers[key]


def _back(matrix: Matrix, order: Tensor | None) -> CodedMatrix:
    found = as_coded(matrix.source)
    return found if order is None else columns_at(found, places(order))


WORTH = 0.95  # units are re-sorted where the products get cheaper by a twentieth at least
LIKELY = (1, 10)  # the batches that decide


def _cheapest(weights: LayerWeights, precision: Precision) -> tuple[Tensor | None, Matrices]:
    """The matrices, with units in their own order (None) or in one that makes their blocks denser, if that pays."""
    plain = _matrices(weights, precision, None)
    columns = max(LAYOUTS[name].columns for name in offered(precision))
    gates = [m.parts[0] for name, m in plain.items() if name != "hr"]  # of two factors the one that has the rows
    if not any(_could_gain(m) for m in gates):
        return None, plain
    found = similar_order(patterns([numbers_of(m.source) for m in gates], weights.hidden_size, columns))
    if found is None:
        return None, plain
    order = torch.from_numpy(found)
    resorted = _matrices(weights, precision, order)
    pays = _nanoseconds(resorted) + _MOVE * weights.hidden_size < WORTH * _nanoseconds(plain)
    return (order, resorted) if pays else (None, plain)


_MOVE = 1.0  # nanoseconds that bringing one unit back into its place takes, about


def _could_gain(matrix: Matrix) -> bool:
    """Whether blocks, were they all full, would beat what is chosen."""
    full = replace(
        matrix.counts, blocks=-(-matrix.counts.weights // WIDTH), words=-(-matrix.counts.weights // 4 // WIDTH)
    )
    return any(matrix.choose(n).nanoseconds * WORTH > choose(full, n, matrix.precision).nanoseconds for n in LIKELY)


def _nanoseconds(matrices: Matrices) -> float:
    return sum(m.choose(n).nanoseconds for n in LIKELY for m in matrices.values())


def _matrices(weights: LayerWeights, precision: Precision, order: Tensor | None) -> Matrices:
    slots, hidden = weights.slots, weights.hidden_size
    hidden_zeros = torch.zeros(slots.count, hidden, dtype=torch.float32, device="cpu")
    bias = slot_row(weights.bias_slots(), order)
    ih = Arrangement(*unit_rows(hidden, len(slots.ih), slots.ih, slots.count, order), bias, len(bias))
    hh = Arrangement(*unit_rows(hidden, len(slots.hh), slots.hh, slots.count, order), None, len(bias))
    found: Matrices = {"ih": matrix_of(weights.ih, ih, precision), "hh": matrix_of(weights.hh, hh, precision)}
    for depth, (weight, own) in enumerate(weights.deeper, 1):
        # Its product begins whole rows of gates anew, from its own bias.
        start = slot_row(hidden_zeros if own is None else own.view(slots.count, -1), order)
        found[f"d{depth}"] = Matrix(weight, replace(hh, bias=start), precision)
    if weights.hr is not None:
        hr = weights.hr
        if order is not None:
            hr = columns_at(as_coded(rounded(hr, precision)), places(order), len(order))
        zero = torch.zeros(-(-weights.output_size // WIDTH) * WIDTH, dtype=torch.float32, device="cpu")
        arrangement = Arrangement(*unit_rows(weights.output_size, 1, (0,), 1), zero, len(zero))
        found["hr"] = Matrix(hr, arrangement, precision)
    return found
