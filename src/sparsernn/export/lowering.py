"""A step program as the steps of a C file: places in memory, packed tables, loops; nothing of C itself yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any, Protocol

import numpy as np
import torch

from ..runtime.program.program import CONSTANT, STATE, Clock, Operation, Port, Program, View
from .integers import MOST, WORD, Words, pack_int8
from .maps import Operand, copy
from .places import NUMPY_TYPES, Memory, Place, row_major
from .products import Matrix, Tables, pack
from .rows import Rows, without_zero_rows
from .source import Source

ARRAYS = {"float": "f", "int": "i", "bool": "b"}
SCRATCH, BYTES = "w", "q"  # what one operation needs and the next may overwrite: floats, and int8 inputs of products


class Step(Protocol):
    """One of maps.py and products.py: the same work in numpy and in C."""

    def run(self, memory: Memory) -> None: ...

    def write(self, source: Source) -> None: ...


@dataclass(frozen=True)
class Timed:
    """Steps of one operation of the program, and when they are due."""

    clock: Clock
    title: str  # what the model has here, as a comment
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Argument:
    """An input or output of the C function: what `port` is to the program, `place` to C.

    inside: where the program has it; an input is copied there unless it is read where it lies.
    """

    port: Port
    place: Place
    inside: Place


@dataclass
class Plan:
    """What the oracle runs and C is written from."""

    program: Program
    timed: list[Timed]
    tables: Tables
    sizes: dict[str, int]  # array of the state -> elements
    start: dict[str, np.ndarray]  # array of the state -> content after reset, where that is not all zeros
    inputs: list[Argument]
    outputs: list[Argument]
    bounds: dict[str, int]  # input of tokens -> how many rows every table has that they choose from
    multiply_adds: int = 0
    filed: bool = False  # whether the tables are a file of their own


class Refused(ValueError):
    """What C can't be written of; a sentence."""


class Lowering:
    """What the rules of the operations put their steps into."""

    def __init__(
        self, program: Program, precision: str, direct: Mapping[str, str], limits: Sequence[float] | None = None
    ) -> None:
        """direct: input buffers that are read where the caller has them, and the names of those arguments. limits: of
        the inputs of each product in int8, where batches have fixed them."""
        self.program, self.precision, self.limits = program, precision, limits
        self.tables = Tables()
        self.sizes = dict.fromkeys([*ARRAYS.values(), SCRATCH, BYTES], 0)
        self.matrices: list[tuple[Matrix, int]] = []  # and how often a step takes the product
        self._direct = direct
        self._offsets: dict[str, int] = {}
        self._scratch = 0
        for name, buffer in program.buffers.items():
            if buffer.kind != CONSTANT and name not in direct:
                self._offsets[name] = self.sizes[ARRAYS[buffer.dtype]]
                self.sizes[ARRAYS[buffer.dtype]] += buffer.size

    def place(self, view: View) -> Place:
        """Where C has what `view` shows."""
        buffer = self.program.buffers[view.buffer]
        if buffer.kind == CONSTANT:
            return self._constant(view)
        if view.buffer in self._direct:
            return Place(self._direct[view.buffer], view.shape, view.strides, view.offset, buffer.dtype)
        return Place(
            ARRAYS[buffer.dtype], view.shape, view.strides, self._offsets[view.buffer] + view.offset, buffer.dtype
        )

    def operand(self, value: View | float | None) -> Operand:
        assert value is not None
        return self.place(value) if isinstance(value, View) else value

    def array(self, view: View | float | None) -> np.ndarray | None:
        """The numbers of a constant, None for None; refuses what is worked out in the step."""
        if view is None:
            return None
        if not isinstance(view, View) or self.program.buffers[view.buffer].kind != CONSTANT:
            raise Refused("its weights are not constants of the model")
        value = self.program.buffers[view.buffer].value
        assert value is not None
        return view.of(value.detach().cpu().flatten()).to(torch.float32).numpy()

    def matrix(self, weight: np.ndarray, gates: int = 1, times: int = 1) -> Matrix:
        """A packed matrix, of which a step takes `times` products."""
        if self.precision == "int8" and weight.shape[1] > MOST:
            raise Refused(f"its sums of {weight.shape[1]} columns may not fit into 32 bits in int8")
        packed = self._words if self.precision == "int8" else pack
        matrix = without_zero_rows(weight, gates, self.tables, packed, self.scratch)
        words = matrix.matrix if isinstance(matrix, Rows) else matrix
        if isinstance(words, Words):
            row = -(-weight.shape[1] // WORD) * WORD
            self.sizes[BYTES] = max(self.sizes[BYTES], row * (2 if words.gathered else 1))
        self.matrices.append((matrix, times))
        return matrix

    def _words(self, weight: np.ndarray, gates: int, tables: Tables) -> Matrix:
        limit = None if self.limits is None else self.limits[len(self.matrices)]
        return pack_int8(weight, gates, tables, row_major(BYTES, (weight.shape[1],), 0, "int8"), limit)

    def table(self, array: np.ndarray) -> Place:
        return row_major(self.tables.add(np.asarray(array, np.float32)), array.shape)

    def scratch(self, *shape: int) -> Place:
        """Memory that only this operation uses."""
        place = row_major(SCRATCH, shape, self._scratch)
        self._scratch += prod(shape)
        self.sizes[SCRATCH] = max(self.sizes[SCRATCH], self._scratch)
        return place

    def rows(self, place: Place) -> tuple[list[Step], Place]:
        """(n, features): a tensor whose rows' elements follow each other, and the copy that makes it so if need be."""
        if (flat := rows_of(place)) is not None:
            return [], flat
        copied = self.scratch(*place.shape)
        return [copy(place, copied)], row_major(
            SCRATCH, (place.size // place.shape[-1], place.shape[-1]), copied.offset
        )

    def merged(self, place: Place, axes: int) -> tuple[list[Step], Place]:
        """`place` with its last axes as one, and the copy that makes it so if need be."""
        n = len(place.shape) - axes
        if (whole := merged(place, n, n + axes)) is not None:
            return [], whole
        copied = self.scratch(*place.shape)
        return [copy(place, copied)], row_major(SCRATCH, (*place.shape[:n], prod(place.shape[n:])), copied.offset)

    def done(self, operation: Operation, steps: Sequence[Step]) -> Timed:
        self._scratch = 0
        title = f"{operation.kind}{f'  {operation.source}' if operation.source else ''}"
        return Timed(operation.clock, title, tuple(steps))

    def _constant(self, view: View) -> Place:
        buffer = self.program.buffers[view.buffer]
        assert buffer.value is not None
        last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.strides))
        shown = buffer.value.detach().cpu().flatten()[view.offset : last + 1]
        name = self.tables.add(shown.numpy().astype(NUMPY_TYPES[buffer.dtype]))
        return Place(name, view.shape, view.strides, 0, buffer.dtype)

    def start(self) -> dict[str, np.ndarray]:
        """The content of the state's arrays after reset, of those that don't begin as zeros."""
        found: dict[str, np.ndarray] = {}
        for name, buffer in self.program.buffers.items():
            if buffer.kind == STATE and buffer.value is not None and bool((buffer.value != 0).any()):
                array = ARRAYS[buffer.dtype]
                whole = found.setdefault(array, np.zeros(self.sizes[array], NUMPY_TYPES[buffer.dtype]))
                offset = self._offsets[name]
                whole[offset : offset + buffer.size] = buffer.value.detach().cpu().flatten().numpy()
        return found


Rule = Callable[[Lowering, Operation], list[Any]]


def merged(place: Place, begin: int, end: int) -> Place | None:
    """`place` with axes begin to end - 1 as one; None where strides don't allow that."""
    axes = [(n, s) for n, s in zip(place.shape[begin:end], place.strides[begin:end]) if n != 1]
    if any(outer != inner * n for (_, outer), (n, inner) in pairwise(axes)):
        return None
    shape = (*place.shape[:begin], prod(place.shape[begin:end]), *place.shape[end:])
    strides = (*place.strides[:begin], axes[-1][1] if axes else 0, *place.strides[end:])
    return replace(place, shape=shape, strides=strides)


def rows_of(place: Place) -> Place | None:
    """(n, features) of a tensor (..., features) whose rows' elements follow each other."""
    flat = merged(place, 0, len(place.shape) - 1)
    return flat if flat is not None and (flat.shape[1] == 1 or flat.strides[1] == 1) else None
