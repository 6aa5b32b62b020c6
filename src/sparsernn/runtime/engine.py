"""Running packed layers: the fields and workspaces of compiled calls."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .compiled import address, function
from .costs import Choice, Matrix, Precision
from .fields import COUNT, Field
from .pack import BYTES, WIDTH, Arrangement, Packed, slot_row, unit_rows
from .weights import LayerWeights, layer_weights

GATES_BYTES = 4 << 20  # workspace of the hoisted input product; longer sequences go through it in pieces

_Fields = ctypes.c_int64 * COUNT


class Workspace:
    """Buffers and fields of one layer and direction for up to `rows` batch rows; one call uses it at a time."""

    def __init__(self, layer: PackedLayer, rows: int, capacity: int) -> None:
        self.rows, self.capacity = rows, capacity
        w = layer.weights
        units = -(-w.hidden_size // WIDTH)
        cells = 2 if w.kind == "LSTM" else 1
        self.gates = torch.empty(capacity, layer.gates_width)
        self.state = torch.zeros(cells, rows, units * WIDTH)
        self.h = self.state[0, :, : w.hidden_size]
        self.c = self.state[1, :, : w.hidden_size] if cells == 2 else None
        self.fields = _Fields()
        f = self.fields
        f[Field.INPUT_KERNEL], f[Field.INPUT_PLAN] = layer.ih.kernel, layer.ih.plan
        f[Field.GATES], f[Field.GATES_STRIDE] = self.gates.data_ptr(), layer.gates_width * 4
        f[Field.CAPACITY] = capacity
        needed = max(packed.scratch for packed in (layer.ih, layer.hh, layer.hr) if packed is not None)
        self.scratch = torch.empty(needed, dtype=torch.uint8)
        f[Field.SCRATCH] = self.scratch.data_ptr()
        f[Field.HIDDEN_KERNEL], f[Field.HIDDEN_PLAN] = layer.hh.kernel, layer.hh.plan
        f[Field.CELL_KERNEL] = layer.cell
        f[Field.UNITS], f[Field.LANES] = units, w.hidden_size
        f[Field.H], f[Field.STATE_STRIDE] = self.state.data_ptr(), units * BYTES
        f[Field.C] = rows * units * BYTES
        f[Field.RECURRENT], f[Field.RECURRENT_STRIDE] = f[Field.H], units * BYTES
        self.recurrent, self.recurrent_buffer = self.h, self.state[0]
        self.projected: Tensor | None = None
        if layer.hr is not None:
            width = -(-w.output_size // WIDTH) * WIDTH
            self.projected = torch.zeros(rows, width)
            self.recurrent, self.recurrent_buffer = self.projected[:, : w.output_size], self.projected
            f[Field.RECURRENT], f[Field.RECURRENT_STRIDE] = self.projected.data_ptr(), width * 4
            f[Field.PROJECT_KERNEL], f[Field.PROJECT_PLAN] = layer.hr.kernel, layer.hr.plan
            f[Field.PROJECT_LANES] = w.output_size
        self.address = ctypes.addressof(f)

    def clear(self) -> None:
        """Back to a state of zeros."""
        self.state.zero_()
        if self.projected is not None:
            self.projected.zero_()

    def states(self) -> list[Tensor]:
        """[h] or [h, c] as views, each (rows, width)."""
        return [self.recurrent] if self.c is None else [self.recurrent, self.c]


class PackedLayer:
    """One layer and direction, packed for batches of about `rows` rows."""

    nanoseconds = 0.0  # predicted, of one time step

    def __init__(self, weights: LayerWeights, ih: Packed, hh: Packed, hr: Packed | None) -> None:
        self.weights, self.ih, self.hh, self.hr = weights, ih, hh, hr
        self.cell = address(weights.slots.kernel)
        self.gates_width = -(-weights.hidden_size // WIDTH) * weights.slots.count * WIDTH
        self._spare: list[Workspace] = []
        self._run = function("sequence.layer", 1)

    def workspace(self, rows: int, total: int) -> Workspace:
        """A workspace for `rows` batch rows and, if they fit, `total` rows of gates."""
        capacity = max(rows, min(total, GATES_BYTES // (self.gates_width * 4)))
        try:
            found = self._spare.pop()
            if found.rows == rows and found.capacity >= capacity:
                return found
        except IndexError:
            pass
        with torch.inference_mode(False):  # it is used again, also outside of that mode
            return Workspace(self, rows, capacity)

    def run(
        self,
        x: Tensor,
        strides: tuple[int, int],
        steps: int,
        rows: int,
        packing: tuple[Tensor, Tensor] | None,
        state: Sequence[Tensor] | None,
        out: Tensor | None = None,
        out_strides: tuple[int, int] = (0, 0),
    ) -> list[Tensor]:
        """Run over a whole sequence and return the final [h] or [h, c], each (rows, width).

        x: its memory starts at time 0, row 0; `strides` are elements from step to step and from row to row, and the
        features of a row lie side by side. packing: (active rows of each step, first packed row of each step and
        behind them the number of rows), both int64. state: [h] or [h, c], None for zeros. out: where the output goes,
        None if only the final state is wanted.
        """
        total = steps * rows if packing is None else x.shape[0]
        space = self.workspace(rows, total)
        if state is None:
            space.clear()
        else:
            for own, given in zip(space.states(), state):
                own.copy_(given)
        f = space.fields
        f[Field.STEPS], f[Field.ROWS], f[Field.REVERSE] = steps, rows, self.weights.reverse
        f[Field.SIZES], f[Field.STARTS] = (0, 0) if packing is None else (packing[0].data_ptr(), packing[1].data_ptr())
        f[Field.X], f[Field.X_TIME], f[Field.X_ROW] = x.data_ptr(), strides[0] * 4, strides[1] * 4
        place = 0 if out is None else out.data_ptr()
        f[Field.OUT], f[Field.OUT_TIME], f[Field.OUT_ROW] = place, out_strides[0] * 4, out_strides[1] * 4
        self._run(space.address)
        final = [own.clone() for own in space.states()]
        self._spare.append(space)
        return final


class LayerMatrices:
    """The matrices of one layer and direction, and the packed layers made of them."""

    def __init__(self, weights: LayerWeights, precision: Precision) -> None:
        self.weights = weights
        slots, hidden = weights.slots, weights.hidden_size
        bias = slot_row(weights.bias_slots())
        ih = Arrangement(*unit_rows(hidden, len(slots.ih), slots.ih, slots.count), bias, len(bias))
        hh = Arrangement(*unit_rows(hidden, len(slots.hh), slots.hh, slots.count), None, len(bias))
        self.matrices = {"ih": Matrix(weights.ih, ih, precision), "hh": Matrix(weights.hh, hh, precision)}
        if weights.hr is not None:
            zero = torch.zeros(-(-weights.output_size // WIDTH) * WIDTH)
            arrangement = Arrangement(*unit_rows(weights.output_size, 1, (0,), 1), zero, len(zero))
            self.matrices["hr"] = Matrix(weights.hr, arrangement, precision)
        self._layers: dict[tuple[str, ...], PackedLayer] = {}

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
            self._layers[key] = PackedLayer(self.weights, packed["ih"], packed["hh"], packed.get("hr"))
        return self._layers[key]


def packing_of(batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Active rows and first rows of each step of a PackedSequence, as `PackedLayer.run` wants them."""
    sizes = batch_sizes.to(torch.int64).contiguous()
    starts = torch.zeros(len(sizes) + 1, dtype=torch.int64)
    starts[1:] = sizes.cumsum(0)
    return sizes, starts


MANY = 64  # beyond so many inputs a layout's cost grows with their number, so the choice stays


class Engine:
    """Packs the layers of one module and keeps them; packs anew when a weight was changed in place or replaced.

    A copy or a pickle of an engine is an empty one: it packs by itself at its first call.
    """

    def __init__(self, precision: Precision = "float32") -> None:
        self.precision: Precision = precision
        self._stamp: tuple[int, ...] = ()
        self._matrices: list[list[LayerMatrices]] = []
        self._layers: dict[tuple[int, int], list[list[PackedLayer]]] = {}

    def __reduce__(self) -> tuple[type[Engine], tuple[Precision]]:
        return Engine, (self.precision,)

    def layers(self, module: nn.Module, rows: int, steps: int) -> list[list[PackedLayer]]:
        """The packed layers, by layer and direction, for a batch of `rows` over `steps` steps."""
        matrices = self.matrices(module)
        key = (rows, min(steps, max(1, MANY // max(rows, 1))))
        if key not in self._layers:
            self._layers[key] = [[m.layer(max(1, rows), key[1]) for m in directions] for directions in matrices]
        return self._layers[key]

    def matrices(self, module: nn.Module) -> list[list[LayerMatrices]]:
        """The module's matrices as they are now, by layer and direction."""
        stamp = tuple(p._version for p in module._parameters.values() if p is not None)
        if stamp != self._stamp:
            found: list[list[LayerMatrices]] = []
            for weights in layer_weights(module):
                if weights.layer == len(found):
                    found.append([])
                found[-1].append(LayerMatrices(weights, self.precision))
            self._matrices, self._layers, self._stamp = found, {}, stamp
        return self._matrices

    def explain(self, path: str, module: nn.Module, rows: int, steps: int) -> list[str]:
        """One line a layer and direction: the layout of each matrix and the predicted microseconds a time step."""
        lines = []
        names = {"ih": "input", "hh": "recurrent", "hr": "projection"}
        for number, directions in enumerate(self.matrices(module)):
            for m in directions:
                parts, total = [], 0.0
                for name, choice in m.choices(rows, steps).items():
                    packed = m.matrices[name].packed(choice.layout)
                    took = choice.nanoseconds / 1e3 / (steps if name == "ih" else 1)
                    total += took
                    parts.append(f"{names[name]} {packed.layout}, {packed.bytes / 1024:.0f} KiB, {took:.2f} us")
                end = "_reverse" if m.weights.reverse else ""
                place = f"{path or type(module).__name__}.l{number}{end}"
                lines.append(f"{place}: {'; '.join(parts)}; together about {total:.2f} us a step")
        return lines
