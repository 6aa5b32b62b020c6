"""One packed layer and direction: its products, and the memory that it works on."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .compiled import address
from .fields import COUNT, Field
from .held import finite
from .pack import BYTES, WIDTH, Packed
from .weights import LayerWeights, parts_of

GATES_BYTES = 4 << 20  # workspace of the hoisted input product; longer sequences go through it in pieces

_Fields = ctypes.c_int64 * COUNT
_ALL = slice(None)


class Workspace:
    """Buffers and fields of one layer and direction for up to `rows` batch rows; one call uses it at a time.

    gates, scratch: memory that it shares with others, which run before or after it.
    """

    def __init__(
        self, layer: PackedLayer, rows: int, capacity: int, gates: Tensor | None = None, scratch: Tensor | None = None
    ) -> None:
        w = layer.weights
        units = -(-w.hidden_size // WIDTH)
        if gates is None:
            gates = torch.empty(capacity, layer.gates_width, dtype=torch.float32, device="cpu")
        if scratch is None:
            scratch = torch.empty(layer.scratch, dtype=torch.uint8, device="cpu")
        self._shared = gates, scratch
        self.state = torch.zeros(w.slots.states, rows, units * WIDTH, dtype=torch.float32, device="cpu")
        self._widths, self._lanes = w.state_sizes, w.hidden_size
        self.fields = _Fields()
        f = self.fields
        f[Field.INPUT_KERNEL], f[Field.INPUT_PLAN] = layer.ih.kernel, layer.ih.plan
        f[Field.GATES], f[Field.GATES_STRIDE] = gates.data_ptr(), layer.gates_width * 4
        f[Field.CAPACITY] = capacity
        f[Field.SCRATCH], f[Field.REVERSE] = scratch.data_ptr(), w.reverse
        f[Field.HIDDEN_KERNEL], f[Field.HIDDEN_PLAN] = layer.hh.kernel, layer.hh.plan
        f[Field.DEPTHS], f[Field.DEEPER] = len(layer.deeper), layer.deeper_plans.data_ptr()
        f[Field.CELL_KERNEL] = layer.cell
        f[Field.UNITS], f[Field.LANES] = units, w.hidden_size
        f[Field.H], f[Field.STATE_STRIDE] = self.state.data_ptr(), units * BYTES
        f[Field.C] = rows * units * BYTES
        f[Field.RECURRENT], f[Field.RECURRENT_STRIDE] = f[Field.H], units * BYTES
        self.places = None if layer.order is None else places(layer.order)
        self.recurrent_buffer = self.state[0]
        self.projected: Tensor | None = None
        if layer.back is not None:
            width = -(-w.output_size // WIDTH) * WIDTH
            self.recurrent_buffer = self.projected = torch.zeros(rows, width, dtype=torch.float32, device="cpu")
            f[Field.RECURRENT], f[Field.RECURRENT_STRIDE] = self.projected.data_ptr(), width * 4
            f[Field.PROJECT_KERNEL], f[Field.PROJECT_PLAN] = layer.back.kernel, layer.back.plan
            f[Field.PROJECT_LANES] = w.output_size
        self.address = ctypes.addressof(f)

    def clear(self, rows: Tensor | slice = _ALL) -> None:
        """Back to a state of zeros, in these rows of the batch."""
        self.state[:, rows] = 0.0
        if self.projected is not None:
            self.projected[rows] = 0.0

    def states(self) -> list[Tensor]:
        """Copies of [h] or [h, c], each (rows, width), units in the module's own order."""
        found = [self.recurrent_buffer[:, : self._widths[0]].clone()]
        if len(self.state) == 2:
            c = self.state[1]
            found.append(c[:, : self._widths[1]].clone() if self.places is None else c[:, self.places])
        return found

    def set_states(self, states: Sequence[Tensor]) -> None:
        """Start from `states`, as `states()` gives them."""
        h, *rest = states
        self.recurrent_buffer[:, : self._widths[0]] = h
        # A cell reads its own h, in its own order; where h is projected, it reads none.
        own = ([h] if self._widths[0] == self._lanes else []) + rest
        for buffer, value in zip(self.state[len(self.state) - len(own) :], own):
            if self.places is None:
                buffer[:, : self._lanes] = value
            else:
                buffer[:, self.places] = value


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
        self.finite = all(map(finite, parts_of(weights.hh)))
        self.cell = address(weights.slots.kernel)
        self.gates_width = -(-weights.hidden_size // WIDTH) * weights.slots.count * WIDTH

    def capacity(self, rows: int, total: int) -> int:
        """Rows of gates that a workspace for `rows` batch rows has room for: `total`, if they are not too many."""
        return max(rows, min(total, GATES_BYTES // (self.gates_width * 4)))

    @property
    def products(self) -> list[Packed]:
        return [packed for packed in (self.ih, self.hh, *self.deeper, self.back) if packed is not None]

    @property
    def scratch(self) -> int:
        """Bytes that its products need beside."""
        return max(packed.scratch for packed in self.products)


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
