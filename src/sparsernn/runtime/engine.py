"""Running packed layers: the fields and workspaces of compiled calls."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from .compiled import address, function
from .fields import COUNT, Field
from .pack import BYTES, WIDTH, Arrangement, Packed, pack_panels, slot_row, unit_rows
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
        except IndexError:
            return Workspace(self, rows, capacity)
        return found if found.rows == rows and found.capacity >= capacity else Workspace(self, rows, capacity)

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


def pack_layer(
    weights: LayerWeights, choose: Callable[[Tensor, Arrangement, str], Packed] | None = None
) -> PackedLayer:
    """Pack one layer and direction; `choose` packs each matrix (default: dense panels)."""
    choose = choose or (lambda weight, arrangement, _: pack_panels(weight, arrangement))
    slots, hidden = weights.slots, weights.hidden_size
    bias = slot_row(weights.bias_slots())
    ih = Arrangement(*unit_rows(hidden, len(slots.ih), slots.ih, slots.count), bias, len(bias))
    hh = Arrangement(*unit_rows(hidden, len(slots.hh), slots.hh, slots.count), None, len(bias))
    hr = None
    if weights.hr is not None:
        zero = torch.zeros(-(-weights.output_size // WIDTH) * WIDTH)
        arrangement = Arrangement(*unit_rows(weights.output_size, 1, (0,), 1), zero, len(zero))
        hr = choose(weights.hr, arrangement, "hr")
    return PackedLayer(weights, choose(weights.ih, ih, "ih"), choose(weights.hh, hh, "hh"), hr)


def packing_of(batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Active rows and first rows of each step of a PackedSequence, as `PackedLayer.run` wants them."""
    sizes = batch_sizes.to(torch.int64).contiguous()
    starts = torch.zeros(len(sizes) + 1, dtype=torch.int64)
    starts[1:] = sizes.cumsum(0)
    return sizes, starts


class Engine:
    """Packs the layers of one module and keeps them; packs anew when a weight was changed in place or replaced.

    A copy or a pickle of an engine is an empty one: it packs by itself at its first call.
    """

    def __init__(self, precision: str = "float32") -> None:
        self.precision = precision
        self._stamp: tuple[int, ...] = ()
        self._layers: list[list[PackedLayer]] = []

    def __reduce__(self) -> tuple[type[Engine], tuple[str]]:
        return Engine, (self.precision,)

    def layers(self, module: nn.Module, rows: int) -> list[list[PackedLayer]]:
        """The packed layers, by layer and direction, for a batch of `rows`."""
        stamp = tuple(p._version for p in module._parameters.values() if p is not None)
        if stamp != self._stamp:
            self._layers = _by_layer(pack_layer(weights) for weights in layer_weights(module))
            self._stamp = stamp
        return self._layers

    def explain(self, path: str, module: nn.Module) -> list[str]:
        """One line a layer and direction: layouts and sizes."""
        lines = []
        for number, directions in enumerate(self.layers(module, 1)):
            for layer in directions:
                end = "_reverse" if layer.weights.reverse else ""
                parts = [("input", layer.ih), ("recurrent", layer.hh)] + (
                    [("projection", layer.hr)] if layer.hr else []
                )
                text = ", ".join(f"{name} {packed.layout} ({packed.bytes / 1024:.0f} KiB)" for name, packed in parts)
                lines.append(f"{path or type(module).__name__}.l{number}{end}: {text}")
        return lines


def _by_layer(layers: Iterator[PackedLayer]) -> list[list[PackedLayer]]:
    found: list[list[PackedLayer]] = []
    for layer in layers:
        if layer.weights.layer == len(found):
            found.append([])
        found[-1].append(layer)
    return found
