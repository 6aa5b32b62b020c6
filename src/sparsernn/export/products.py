"""Products with a matrix of the model, packed as its zeros and the precision ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from .maps import copy, row_function
from .places import Memory, Place, collapsed, row_major
from .source import Source, loops

STRIP = 16
WORTH = 0.8  # blocks are taken where at most this share of them is there: each costs a column's number besides


class Matrix(Protocol):
    """A packed matrix: its tables, what it computes, how C calls it."""

    @property
    def weight(self) -> np.ndarray: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def multiply_adds(self) -> int: ...

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """y (n, rows) += x (n, columns) times the matrix, in the order in which C adds."""
        ...

    def call(self, source: Source, x: str, y: str) -> list[str]:
        """The statements that do so for one row of x and y."""
        ...


@dataclass(frozen=True)
class Dense:
    """All weights, in strips of 16 rows, the last filled up with zeros."""

    weight: np.ndarray  # (rows, columns)
    tables: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape  # type: ignore[return-value]

    @property
    def multiply_adds(self) -> int:
        return self.weight.size

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        for c in range(x.shape[1]):
            y += x[:, c, None] * self.weight[:, c]

    def call(self, source: Source, x: str, y: str) -> list[str]:
        rows, columns = self.shape
        return [f"{source.kernel('dense')}({self.tables[0]}, {x}, {y}, {columns}, {rows});"]

    @staticmethod
    def packed(weight: np.ndarray) -> np.ndarray:
        return strips(weight).swapaxes(1, 2)


@dataclass(frozen=True)
class Blocks:
    """Blocks of 16 rows and one column, those that are zero left out; each gate begins a strip of its own."""

    weight: np.ndarray
    gates: int
    present: np.ndarray  # (rows, columns): whether its block is there
    wide: bool  # columns in 16 bits
    tables: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape  # type: ignore[return-value]

    @property
    def multiply_adds(self) -> int:
        return int(self.present.sum())

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        for c in range(x.shape[1]):
            if (there := self.present[:, c]).any():
                y[:, there] += x[:, c, None] * self.weight[there, c]

    def call(self, source: Source, x: str, y: str) -> list[str]:
        kernel = source.kernel("blocks16" if self.wide else "blocks8")
        rows = self.shape[0] // self.gates
        return [f"{kernel}({self.tables[0]}, {self.tables[1]}, {x}, {y}, {rows}, {self.gates});"]


def strips(weight: np.ndarray) -> np.ndarray:
    """(rows, columns) as (strips, 16, columns), filled up with zeros."""
    rows, columns = weight.shape
    whole = np.zeros((-(-rows // STRIP) * STRIP, columns), weight.dtype)
    whole[:rows] = weight
    return whole.reshape(-1, STRIP, columns)


def gate_strips(weight: np.ndarray, gates: int) -> np.ndarray:
    """(gates * rows, columns) as (strips, 16, columns), each gate filled up to whole strips."""
    return np.concatenate([strips(part) for part in np.split(weight, gates)])


def pack(weight: np.ndarray, gates: int, tables: Tables) -> Matrix:
    """The layout that the matrix's zeros make worth it."""
    weight = np.ascontiguousarray(weight, np.float32)
    cut = gate_strips(weight, gates)
    there = (cut != 0).any(1)  # (strips, columns)
    if there.sum() * STRIP > WORTH * weight.size or weight.shape[1] > 65535:
        return Dense(weight, (tables.add(Dense.packed(weight)),))
    wide = weight.shape[1] > 255
    index = [n for strip in there for n in (int(strip.sum()), *np.flatnonzero(strip))]
    values = [cut[s, :, c] for s, c in zip(*np.nonzero(there))]
    names = (
        tables.add(np.array(values, np.float32).reshape(-1) if values else np.zeros(1, np.float32)),
        tables.add(np.array(index, np.uint16 if wide else np.uint8)),
    )
    per_gate = -(-(len(weight) // gates) // STRIP)
    rows = [s * per_gate * STRIP + r for s in range(gates) for r in range(len(weight) // gates)]
    return Blocks(weight, gates, np.repeat(there, STRIP, 0)[rows], wide, names)


class Tables:
    """The constants of a program as C holds them: name -> array; equal ones once."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._names: dict[tuple[str, bytes], str] = {}

    def add(self, array: np.ndarray) -> str:
        array = np.ascontiguousarray(array).ravel()
        key = (array.dtype.str, array.tobytes())
        if key not in self._names:
            self._names[key] = f"$t{len(self.arrays)}"
            self.arrays[self._names[key]] = array
        return self._names[key]

    def bytes_by_type(self) -> Mapping[str, int]:
        sizes: dict[str, int] = {}
        for array in self.arrays.values():
            sizes[array.dtype.name] = sizes.get(array.dtype.name, 0) + array.nbytes
        return sizes


@dataclass(frozen=True)
class Product:
    """y (..., rows) += x (..., columns) times a packed matrix; the elements of a row of y follow each other.

    Those of x do so as well, or they are first gathered into `row`; then the columns may be several axes.
    """

    matrix: Matrix
    x: Place
    y: Place
    row: Place | None = None

    def run(self, memory: Memory) -> None:
        y = self.y.of(memory)
        rows, columns = self.matrix.shape
        total = y.reshape(-1, rows).copy()
        self.matrix.add(self.x.of(memory).reshape(-1, columns), total)
        y[...] = total.reshape(y.shape)

    def write(self, source: Source) -> None:
        n = len(self.y.shape) - 1
        heads = [replace(p, shape=p.shape[:n], strides=p.strides[:n]) for p in (self.x, self.y)]
        sizes, strides = collapsed(heads)
        x, y = (p.pointer([s[k] for s in strides]) for k, p in enumerate(heads))
        before: list[str] = []
        if self.row is not None:
            before, x = self._gathered(source, [s[0] for s in strides], n), self.row.pointer()
        source.loop(sizes, [*before, *self.matrix.call(source, x, y)])

    def _gathered(self, source: Source, outer: list[int], heads: int) -> list[str]:
        """The lines that copy a row of x, inside loops whose strides in x are `outer`."""
        assert self.row is not None
        field = replace(self.x, shape=self.x.shape[heads:], strides=self.x.strides[heads:])
        row = row_major(self.row.array, field.shape, self.row.offset)
        sizes, strides = collapsed([field, row])
        inner, last = (sizes[-1], strides[-1]) if sizes else (1, [1, 1])
        name = row_function(source, copy(field, row), last)
        zeros = [0] * len(outer)
        x = field.pointer([*outer, *(s[0] for s in strides[:-1])])
        y = row.pointer([*zeros, *(s[1] for s in strides[:-1])])
        return loops(sizes[:-1], [f"{name}({x}, {y}, {inner});"], len(outer))


@dataclass(frozen=True)
class Lookup:
    """out (..., width) = rows of `table` (count, width) by `tokens` (...).

    A token that the model computes may be anything, the place of the largest of NaNs say: it is held to the table.
    """

    tokens: Place
    table: Place
    out: Place

    def run(self, memory: Memory) -> None:
        self.out.of(memory)[...] = self.table.of(memory)[np.clip(self.tokens.of(memory), 0, self.table.shape[0] - 1)]

    def write(self, source: Source) -> None:
        rows, width = self.table.shape
        name, inside = source.function("row", _ROW), source.function("inside", _INSIDE)
        heads = self.tokens, replace(self.out, shape=self.out.shape[:-1], strides=self.out.strides[:-1])
        sizes, strides = collapsed(heads)
        token, out = (p.pointer([s[k] for s in strides]) for k, p in enumerate(heads))
        row = f"{self.table.pointer()} + {self.table.strides[0]} * {inside}(*({token}), {rows})"
        source.loop(sizes, [f"{name}({row}, {out}, {width});"])


_INSIDE = """\
static int $@(int i, int n)
{
    return i < 0 ? 0 : i < n ? i : n - 1;
}
"""
_ROW = """\
static void $@(const float *a, float *y, int n)
{
    for (int i = 0; i < n; ++i)
        y[i] = a[i];
}
"""
