"""Rows of a matrix that are all zero, those of constant gates above all, left out of its product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .places import Place
from .products import Matrix, Tables
from .source import Source

PRICE = 16  # bytes of tables that moving a row to the others and back is worth, in time


@dataclass(frozen=True)
class Rows:
    """The product of the other rows, whose sums are moved together in `sums` before and back behind it.

    weight: the whole matrix; living: the rows that are not zero.
    """

    weight: np.ndarray
    living: np.ndarray
    matrix: Matrix
    index: str  # table of `living`
    sums: Place

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape  # type: ignore[return-value]

    @property
    def multiply_adds(self) -> int:
        return self.matrix.multiply_adds

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        sums = y[:, self.living]
        self.matrix.add(x, sums)
        y[:, self.living] = sums

    def call(self, source: Source, x: str, y: str) -> list[str]:
        kind = "uint16" if len(self.weight) > 256 else "uint8"
        take, put = (source.function(name, text.replace("$T", f"{kind}_t")) for name, text in (_TAKE, _PUT))
        sums, count = self.sums.pointer(), len(self.living)
        return [
            f"{take}({y}, {self.index}, {sums}, {count});",
            *self.matrix.call(source, x, sums),
            f"{put}({sums}, {self.index}, {y}, {count});",
        ]


def without_zero_rows(
    weight: np.ndarray,
    gates: int,
    tables: Tables,
    pack: Callable[[np.ndarray, int, Tables], Matrix],
    scratch: Callable[[int], Place],
) -> Matrix:
    """`weight` as `pack` packs it, by way of the rows that are not zero where that pays."""
    living = np.flatnonzero(weight.any(1))
    if not 0 < len(living) < len(weight) <= 65536:
        return pack(weight, gates, tables)
    aside = Tables(), Tables()
    pack(weight, gates, aside[0])
    pack(weight[living], 1, aside[1])
    whole, part = (sum(t.bytes_by_type().values()) for t in aside)
    if whole - part <= PRICE * len(living):
        return pack(weight, gates, tables)
    index = tables.add(living.astype(np.uint16 if len(weight) > 256 else np.uint8))
    return Rows(weight, living, pack(weight[living], 1, tables), index, scratch(len(living)))


_TAKE = (
    "taken",
    """\
static void $@(const float *y, const $T *rows, float *sums, int n)
{
    for (int k = 0; k < n; ++k)
        sums[k] = y[rows[k]];
}
""",
)
_PUT = (
    "put",
    """\
static void $@(const float *sums, const $T *rows, float *y, int n)
{
    for (int k = 0; k < n; ++k)
        y[rows[k]] = sums[k];
}
""",
)
