"""The packed layers of one module, and how they run together in one compiled call."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from . import threads
from .compiled import address, function
from .fields import Call, Entry
from .packed_layer import PackedLayer, Workspace

_Fields = ctypes.c_int64 * len(Call)
_write = struct.Struct(f"{len(Call) - Call.FIRST}q").pack_into
_BEGIN = 8 * Call.FIRST


class Space:
    """Buffers and tables of a stack for up to `rows` batch rows, `total` rows of gates; one call uses it at a time."""

    def __init__(self, layers: Sequence[Sequence[PackedLayer]], sample: Tensor, rows: int, total: int) -> None:
        self.rows, self.total = rows, total
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
            rows.append([space.address, number, below, width, offset, before_h, before_c, h, c, own, place])
            assert len(rows[-1]) == len(Entry)
            offset, before_h, before_c = offset + 4 * w.output_size, before_h + h, before_c + c
        below = width
    return rows


class Stack:
    """Packed layers by layer and direction, for batches of about one size, and what calls of them need."""

    def __init__(self, layers: list[list[PackedLayer]], sample: Tensor, spare: list[Space]) -> None:
        self.layers, self._sample = layers, sample
        self._spare = spare  # a list that other stacks of the same packed matrices share
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

    def take(self, rows: int, total: int) -> Space:
        """A space for so many rows; `give` it back."""
        total = min(total, max(rows, self._most))
        try:
            found = self._spare.pop()
            if found.rows >= rows and found.total >= total:
                return found
        except IndexError:
            pass
        with torch.inference_mode(False):  # it is used again, also outside of that mode
            return Space(self.layers, self._sample, rows, total)

    def give(self, space: Space) -> None:
        self._spare.append(space)


Packing = tuple[Tensor, Tensor]


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
        self.stack, self._steps, self._batch = stack, steps, batch
        self._x_time, self._x_row = (4 * stride for stride in x_strides)
        self.out, self.states = out, states
        self._out_time, self._out_row = (4 * stride for stride in out_strides)
        self._layers, self._packing = layers, packing
        self._sizes, self._starts = (0, 0) if packing is None else (packing[0].data_ptr(), packing[1].data_ptr())
        self._total = total
        first, last = layers
        self._first, self._last = first * stack.directions, last * stack.directions
        # The kernel counts states from the first layer on.
        self._before = [4 * batch * sum(widths[: self._first]) for widths in stack.state_widths]
        self._between = self._total * max([0, *stack.widths[first : last - 1]])  # numbers of one buffer
        self._buffers = min(2, last - first - 1)
        self.nanoseconds = steps * stack.nanoseconds(first, last)
        self._most = stack.directions * (1 if packing is not None else batch)

    def __call__(self, x: Tensor, given: Sequence[Tensor]) -> tuple[Tensor | None, list[Tensor]] | None:
        """Output and states; None where nothing was run: the sample of the weights has changed, or memory was freed.

        x: its features lie side by side. given: no states, or h, or h and c, contiguous.
        """
        source = x.data_ptr()
        places = [0, 0, 0, 0]
        for n, state in enumerate(given):
            places[n] = state.data_ptr() - self._before[n]
            if not state.data_ptr():
                return None
        if not source:
            return None
        out = None if self.out is None else x.new_empty(*self.out)
        states = [x.new_empty(*shape) for shape in self.states]
        between = x.new_empty(self._between * self._buffers) if self._between else None
        for n, state in enumerate(states):
            places[2 + n] = state.data_ptr() - self._before[n]
        if self.nanoseconds >= 2 * threads.WORTH and threads.parts(self.nanoseconds, self._most) > 1:
            done = self._in_parts(source, out, between, places)
        else:
            done = self._run(
                self._first, self._last, source, self._x_time, self._x_row,
                0 if out is None else out.data_ptr(), self._out_time, self._out_row, 0, self._batch,
                0 if between is None else between.data_ptr(), places,
            )  # fmt: skip
        return (out, states) if done else None

    def _run(
        self, first: int, last: int, x: int, x_time: int, x_row: int, out: int, out_time: int, out_row: int, row: int,
        rows: int, between: int, places: list[int],
    ) -> bool:  # fmt: skip
        """Entries from `first` to before `last` on the rows from `row` on."""
        stack = self.stack
        space = stack.take(rows, self._total if rows == self._batch else self._steps * rows)
        _write(
            space.fields, _BEGIN, first, last, x, x_time, x_row, out, out_time, out_row, self._steps, self._batch, row,
            rows, self._sizes, self._starts, between, 4 * self._between, *places,
        )  # fmt: skip
        stack.run(space.argument)
        if space.fields[Call.STALE]:
            return False
        stack.give(space)
        return True

    def _in_parts(self, x: int, out: Tensor | None, between: Tensor | None, places: list[int]) -> bool:
        """Rows of a batch don't know of each other, nor do the directions of a layer: each thread takes some."""
        stack, share = self.stack, threads.parts(self.nanoseconds, self._most)
        first, last = self._layers
        each = -(-share // stack.directions)
        edges = [self._batch * n // each for n in range(each + 1)] if self._packing is None else [0, self._batch]
        cuts = list(pairwise(edges))
        begin = 0 if between is None else between.data_ptr()
        end = 0 if out is None else out.data_ptr()
        if stack.directions == 1:
            return all(
                threads.in_parallel(
                    [
                        partial(
                            self._run, self._first, self._last, x, self._x_time, self._x_row, end,
                            self._out_time, self._out_row, a, b - a, begin, places,
                        )
                        for a, b in cuts
                    ]
                )
            )  # fmt: skip
        source, source_time, source_row = x, self._x_time, self._x_row
        for layer in range(first, last):
            target, target_time, target_row = end, self._out_time, self._out_row
            if layer < last - 1:
                target, target_row = begin + 4 * self._between * (layer & 1), 4 * stack.widths[layer]
                target_time = self._batch * target_row
            entries = range(layer * stack.directions, (layer + 1) * stack.directions)
            calls = [
                partial(
                    self._run, n, n + 1, source, source_time, source_row, target, target_time, target_row, a, b - a, 0,
                    places,
                )
                for n in entries
                for a, b in cuts
            ]  # fmt: skip
            if not all(threads.in_parallel(calls)):
                return False
            source, source_time, source_row = target, target_time, target_row
        return True
