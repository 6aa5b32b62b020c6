"""The packed layers of one module, and how they run together in one compiled call."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from . import threads
from .compiled import address, function
from .fields import Call, Entry
from .packed_layer import PackedLayer, Workspace

_Fields = ctypes.c_int64 * len(Call)
_write_form = struct.Struct(f"{Call.X - Call.FIRST}q").pack_into
_write_places = struct.Struct(f"{len(Call) - Call.X}q").pack_into
_FORM, _PLACES, _STALE = 8 * Call.FIRST, 8 * Call.X, int(Call.STALE)


class Space:
    """Buffers and tables of a stack for up to `rows` batch rows, `total` rows of gates; one call uses it at a time."""

    def __init__(self, layers: Sequence[Sequence[PackedLayer]], sample: Tensor, rows: int, total: int) -> None:
        self.rows, self.total = rows, total
        self.form: Any = None  # the numbers of the last call that don't depend on its tensors
        flat = [direction for directions in layers for direction in directions]
        # They run one after the other, so they share what nobody needs afterwards.
        room = [layer.capacity(rows, total) for layer in flat]
        size = max(count * layer.gates_width for count, layer in zip(room, flat))
        gates = torch.empty(size, dtype=torch.float32, device="cpu")
        scratch = torch.empty(max(layer.scratch for layer in flat), dtype=torch.uint8, device="cpu")
        self._works = [Workspace(layer, rows, count, gates, scratch) for layer, count in zip(flat, room)]
        self._entries = torch.tensor(_entries(layers, self._works), dtype=torch.int64, device="cpu")
        self._kept = layers, gates, scratch, sample  # what the addresses below belong to
        f = self.fields = _Fields()
        f[Call.SAMPLE], f[Call.SAMPLES] = sample.data_ptr(), len(sample)
        f[Call.KERNEL], f[Call.ARGUMENT] = address("whole.stack"), ctypes.addressof(f)
        f[Call.ENTRIES], f[Call.LAYER] = self._entries.data_ptr(), address("sequence.layer")
        # One argument, an object made beforehand: each number that a call has to convert costs as much as the call.
        self.argument = ctypes.c_int64(ctypes.addressof(f))


def _entries(layers: Sequence[Sequence[PackedLayer]], works: Sequence[Workspace]) -> list[list[int]]:
    rows, before_h, before_c, below = [], 0, 0, 0
    spaces = iter(works)
    for number, directions in enumerate(layers):
        width, offset = 4 * sum(d.weights.output_size for d in directions), 0
        for direction in directions:
            space, w = next(spaces), direction.weights
            h, c = (*w.state_sizes, 0)[:2]
            own = space.places is not None and h == w.hidden_size
            place = 0 if space.places is None else space.places.data_ptr()
            rows.append(
                [space.address, number, below, width, offset, before_h, before_c, h, c, own, direction.finite, place]
            )
            assert len(rows[-1]) == len(Entry)
            offset, before_h, before_c = offset + 4 * w.output_size, before_h + h, before_c + c
        below = width
    return rows


class Stack:
    """Packed layers by layer and direction, for batches of about one size, and what calls of them need."""

    def __init__(self, layers: list[list[PackedLayer]], sample: Tensor, spare: list[Space]) -> None:
        self.layers, self._sample = layers, sample
        self.spare = spare  # a list that other stacks of the same packed matrices share
        flat = [direction for directions in layers for direction in directions]
        self.directions = len(layers[0])
        self.widths = [sum(d.weights.output_size for d in directions) for directions in layers]
        sizes = [layer.weights.state_sizes for layer in flat]
        self.state_widths = list(zip(*sizes))  # of h and c, each by layer and direction
        self.run = function("whole.watched", 1)
        self._most = max(1, min(layer.capacity(1, 1 << 62) for layer in flat))

    def nanoseconds(self, first: int, last: int) -> float:
        """Predicted, of one time step of the layers from `first` to before `last`."""
        return sum(direction.nanoseconds for directions in self.layers[first:last] for direction in directions)

    def take(self, form: tuple[int, ...], rows: int, total: int) -> Space:
        """A space for so many rows with the numbers of `form` in it; put it back into `spare`."""
        try:
            found = self.spare.pop()
            if found.form is form:  # as large as it was at that call
                return found
        except IndexError:
            found = None
        total = total if total <= self._most else max(rows, self._most)
        if found is None or found.rows < rows or found.total < total:
            with torch.inference_mode(False):  # it is used again, also outside of that mode
                found = Space(self.layers, self._sample, rows, total)
        _write_form(found.fields, _FORM, *form)
        found.form = form
        return found


Packing = tuple[Tensor, Tensor]
Pair = tuple[int, int]


class Job:
    """A call of one shape: everything about it that can be known before its tensors are there.

    x_strides, out_strides: numbers from step to step and from row to row. out: the shape of the output, None if only
    the states are wanted. states: the shapes of h, or h and c, whose memory is, layer by layer and direction by
    direction, (batch, width). packing: active rows of each step and first rows, see `packing_of`. total: rows of x.
    """

    def __init__(
        self,
        stack: Stack,
        steps: int,
        batch: int,
        total: int,
        x_strides: tuple[int, int],
        out: Sequence[int] | None,
        out_strides: tuple[int, int],
        states: Sequence[Sequence[int]],
        layers: tuple[int, int],
        packing: Packing | None = None,
    ) -> None:
        self.stack, self._steps, self._batch, self._total = stack, steps, batch, total
        self.out, self.states = out, states
        self._two = len(states) == 2
        self._x_strides, self._out_strides = x_strides, out_strides
        self._layers, self._packing = layers, packing
        first, last = (n * stack.directions for n in layers)
        # The kernel counts states from the first layer on.
        self._h_before, self._c_before, *_ = [4 * batch * sum(w[:first]) for w in stack.state_widths] + [0]
        self._between = total * max([0, *stack.widths[layers[0] : layers[1] - 1]])  # numbers of one buffer
        self._buffers = min(2, layers[1] - layers[0] - 1)
        self._form = self._form_of(first, last, x_strides, out_strides, 0, batch)
        self.nanoseconds = steps * stack.nanoseconds(*layers)
        self._most = stack.directions * (1 if packing is not None else batch)
        self._short = self.nanoseconds < 2 * threads.WORTH

    def __call__(self, x: Tensor, given: Sequence[Tensor]) -> tuple[Tensor | None, tuple[Tensor, ...]] | None:
        """Output and states; None where nothing was run: the sample of the weights has changed, or memory was freed.

        x: its features lie side by side. given: no states, or h, or h and c, contiguous.
        """
        # A short call takes as long as these lines: nothing is made that is not needed.
        new = x.new_empty
        source, end, between, h0, c0, cn = x.data_ptr(), 0, 0, 0, 0, 0
        if given:
            h0 = given[0].data_ptr()
            c0 = given[1].data_ptr() if self._two else 1
            if not h0 or not c0:
                return None
            h0, c0 = h0 - self._h_before, c0 - self._c_before
        if not source:
            return None
        out = buffers = None
        if self.out is not None:
            out = new(*self.out)
            end = out.data_ptr()
        if self._between:
            buffers = new(self._between * self._buffers)
            between = buffers.data_ptr()
        h = new(*self.states[0])
        hn = h.data_ptr() - self._h_before
        states = (h,)
        if self._two:
            c = new(*self.states[1])
            cn = c.data_ptr() - self._c_before
            states = (h, c)
        places = source, end, between, h0, c0, hn, cn
        if self._short or threads.parts(self.nanoseconds, self._most) == 1:
            done = self._run(self._form, self._batch, self._total, places)
        else:
            done = self._in_parts(*places)
        return (out, states) if done else None

    def _form_of(
        self, first: int, last: int, x_strides: tuple[int, int], out_strides: tuple[int, int], row: int, rows: int
    ) -> tuple[int, ...]:
        """Entries from `first` to before `last` on `rows` rows from `row` on."""
        sizes, starts = (0, 0) if self._packing is None else (t.data_ptr() for t in self._packing)
        strides = (4 * stride for stride in (*x_strides, *out_strides))
        return (first, last, *strides, self._steps, self._batch, row, rows, sizes, starts, 4 * self._between)

    def _run(self, form: tuple[int, ...], rows: int, total: int, places: tuple[int, ...]) -> bool:
        stack = self.stack
        space = stack.take(form, rows, total)
        _write_places(space.fields, _PLACES, *places)
        stack.run(space.argument)
        if space.fields[_STALE]:
            return False
        stack.spare.append(space)
        return True

    def _in_parts(self, source: int, end: int, between: int, *states: int) -> bool:
        """Rows of a batch don't know of each other, nor do the directions of a layer: each thread takes some."""
        stack, share = self.stack, threads.parts(self.nanoseconds, self._most)
        each = -(-share // stack.directions)
        edges = [self._batch * n // each for n in range(each + 1)] if self._packing is None else [0, self._batch]

        def calls(first: int, last: int, x_strides: Pair, out_strides: Pair, *places: int) -> list[Callable[[], bool]]:
            made = []
            for a, b in pairwise(edges):
                form = self._form_of(first, last, x_strides, out_strides, a, b - a)
                total = self._total if b - a == self._batch else self._steps * (b - a)
                made.append(partial(self._run, form, b - a, total, (*places, *states)))
            return made

        bottom, top = self._layers
        if stack.directions == 1:
            every = calls(bottom, top, self._x_strides, self._out_strides, source, end, between)
            return all(threads.in_parallel(every))
        strides = self._x_strides
        for layer in range(bottom, top):
            target, target_strides = end, self._out_strides
            if layer < top - 1:
                width = stack.widths[layer]
                target, target_strides = between + 4 * self._between * (layer & 1), (self._batch * width, width)
            entries = range(layer * stack.directions, (layer + 1) * stack.directions)
            found = [calls(n, n + 1, strides, target_strides, source, target, 0) for n in entries]
            if not all(threads.in_parallel([call for both in found for call in both])):
                return False
            source, strides = target, target_strides
        return True
