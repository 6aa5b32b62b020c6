"""One packed layer and direction: its products, its workspaces, and how it runs over a whole sequence."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .compiled import address, function
from .fields import COUNT, Field
from .pack import BYTES, WIDTH, Packed
from .weights import LayerWeights

GATES_BYTES = 4 << 20  # workspace of the hoisted input product; longer sequences go through it in pieces

_Fields = ctypes.c_int64 * COUNT


class Workspace:
    """Buffers and fields of one layer and direction for up to `rows` batch rows; one call uses it at a time."""

    def __init__(self, layer: PackedLayer, rows: int, capacity: int) -> None:
        self.rows, self.capacity = rows, capacity
        w = layer.weights
        units = -(-w.hidden_size // WIDTH)
        cells = 2 if w.kind == "LSTM" else 1
        self.gates = torch.empty(capacity, layer.gates_width, dtype=torch.float32, device="cpu")
        self.state = torch.zeros(cells, rows, units * WIDTH, dtype=torch.float32, device="cpu")
        self._widths, self._lanes = w.state_sizes, w.hidden_size
        self.fields = _Fields()
        f = self.fields
        f[Field.INPUT_KERNEL], f[Field.INPUT_PLAN] = layer.ih.kernel, layer.ih.plan
        f[Field.GATES], f[Field.GATES_STRIDE] = self.gates.data_ptr(), layer.gates_width * 4
        f[Field.CAPACITY] = capacity
        products = (layer.ih, layer.hh, *layer.deeper, layer.back)
        needed = max(packed.scratch for packed in products if packed is not None)
        self.scratch = torch.empty(needed, dtype=torch.uint8, device="cpu")
        f[Field.SCRATCH] = self.scratch.data_ptr()
        f[Field.HIDDEN_KERNEL], f[Field.HIDDEN_PLAN] = layer.hh.kernel, layer.hh.plan
        f[Field.DEPTHS], f[Field.DEEPER] = len(layer.deeper), layer.deeper_plans.data_ptr()
        f[Field.CELL_KERNEL] = layer.cell
        f[Field.UNITS], f[Field.LANES] = units, w.hidden_size
        f[Field.H], f[Field.STATE_STRIDE] = self.state.data_ptr(), units * BYTES
        f[Field.C] = rows * units * BYTES
        f[Field.RECURRENT], f[Field.RECURRENT_STRIDE] = f[Field.H], units * BYTES
        self._places = None if layer.order is None else places(layer.order)
        self.recurrent_buffer = self.state[0]
        self.projected: Tensor | None = None
        if layer.back is not None:
            width = -(-w.output_size // WIDTH) * WIDTH
            self.recurrent_buffer = self.projected = torch.zeros(rows, width, dtype=torch.float32, device="cpu")
            f[Field.RECURRENT], f[Field.RECURRENT_STRIDE] = self.projected.data_ptr(), width * 4
            f[Field.PROJECT_KERNEL], f[Field.PROJECT_PLAN] = layer.back.kernel, layer.back.plan
            f[Field.PROJECT_LANES] = w.output_size
        self.address = ctypes.addressof(f)

    def clear(self) -> None:
        """Back to a state of zeros."""
        self.state.zero_()
        if self.projected is not None:
            self.projected.zero_()

    def states(self) -> list[Tensor]:
        """Copies of [h] or [h, c], each (rows, width), units in the module's own order."""
        found = [self.recurrent_buffer[:, : self._widths[0]].clone()]
        if len(self.state) == 2:
            c = self.state[1]
            found.append(c[:, : self._widths[1]].clone() if self._places is None else c[:, self._places])
        return found

    def set_states(self, states: Sequence[Tensor]) -> None:
        """Start from `states`, as `states()` gives them."""
        h, *rest = states
        self.recurrent_buffer[:, : self._widths[0]] = h
        # A cell reads its own h, in its own order; where h is projected, it reads none.
        own = ([h] if self._widths[0] == self._lanes else []) + rest
        for buffer, value in zip(self.state[len(self.state) - len(own) :], own):
            if self._places is None:
                buffer[:, : self._lanes] = value
            else:
                buffer[:, self._places] = value


class PackedLayer:
    """One layer and direction, packed for batches of about `rows` rows."""

    nanoseconds = 0.0  # predicted, of one time step

    def __init__(self, weights: LayerWeights, packed: Mapping[str, Packed], order: Tensor | None) -> None:
        self.weights, self.order = weights, order
        self.ih, self.hh = packed["ih"], packed["hh"]
        self.deeper = [packed[f"d{depth}"] for depth, _ in enumerate(weights.deeper, 1)]
        self.deeper_plans = torch.tensor([[p.kernel, p.plan] for p in self.deeper], dtype=torch.int64, device="cpu")
        # What makes the recurrent state of a cell's h: a projection, or units brought back into their own order.
        self.back = packed.get("hr") or (None if order is None else _unsorted(order))
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
            space.set_states(state)
        f = space.fields
        f[Field.STEPS], f[Field.ROWS], f[Field.REVERSE] = steps, rows, self.weights.reverse
        f[Field.SIZES], f[Field.STARTS] = (0, 0) if packing is None else (packing[0].data_ptr(), packing[1].data_ptr())
        f[Field.X], f[Field.X_TIME], f[Field.X_ROW] = x.data_ptr(), strides[0] * 4, strides[1] * 4
        place = 0 if out is None else out.data_ptr()
        f[Field.OUT], f[Field.OUT_TIME], f[Field.OUT_ROW] = place, out_strides[0] * 4, out_strides[1] * 4
        self._run(space.address)
        final = space.states()
        self._spare.append(space)
        return final


def places(order: Tensor) -> Tensor:
    """Where each unit stands in `order`."""
    found = torch.empty(int((order >= 0).sum()), dtype=torch.int64, device="cpu")
    found[order[order >= 0]] = (order >= 0).nonzero().view(-1)
    return found


def _unsorted(order: Tensor) -> Packed:
    """A product kernel that brings units back into their own order."""
    where = places(order)
    plan = torch.tensor([where.data_ptr(), len(where)], dtype=torch.int64, device="cpu")
    return Packed("order", "products.pick", plan.data_ptr(), where.numel() * 8, 0, (plan, where))
