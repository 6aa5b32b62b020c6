"""Register tiles: the innermost loops of the products, written straight in LLVM code.

A tile holds `rows` x `vectors` accumulators in registers and walks over the columns: load the weights of one column
(`vectors` of them), broadcast one number of each input row, multiply and add. Every accumulator adds up its columns
in order, one fused multiply-add each, whatever the tile's size: so the result of a row has the same bits in any
batch, chunk or thread.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .vector import BYTES, FLOAT, INT64, VECTOR, broadcast, fused, instruction, pointer, types

_SLOTS = 12  # arguments of a tile


def _add(builder: Any, *values: Any) -> Any:
    total, *rest = values
    for value in rest:
        total = builder.add(total, value)
    return total


def _times(builder: Any, value: Any, factor: int) -> Any:
    return builder.mul(value, ir.Constant(INT64, factor))


def dense_tile(rows: int, vectors: int, panel: int) -> Any:
    """A tile over consecutive columns of dense panels.

    Arguments, all int64: weights (address; `panel` vectors a column, so that `vectors` = 2 `panel` takes two panels
    side by side), panel_bytes (from one panel to the next), columns, x (address), x_stride (bytes from row to row),
    y (address), y_stride (bytes), where (address of int64 byte offsets in a row of y, one for each vector), start
    (address that the sums start from: y itself or a bias row), start_stride (bytes: y_stride, or 0 for a bias).
    """

    @instruction(types.void, *[types.int64] * 10)
    def tile(
        builder: Any,
        weights: Any,
        panel_bytes: Any,
        columns: Any,
        x: Any,
        x_stride: Any,
        y: Any,
        y_stride: Any,
        where: Any,
        start: Any,
        start_stride: Any,
    ) -> None:
        offsets = [builder.load(pointer(builder, where, INT64, 8 * v)) for v in range(vectors)]
        x_rows = [_add(builder, x, _times(builder, x_stride, r)) for r in range(rows)]
        sums = []
        for r in range(rows):
            for v in range(vectors):
                slot = cgutils.alloca_once(builder, VECTOR)
                place = _add(builder, start, _times(builder, start_stride, r), offsets[v])
                builder.store(builder.load(pointer(builder, place, VECTOR), align=4), slot)
                sums.append(slot)
        bases = [_add(builder, weights, _times(builder, panel_bytes, p)) for p in range(vectors // panel)]
        with cgutils.for_range(builder, columns) as loop:
            column = _times(builder, loop.index, BYTES * panel)
            number = _times(builder, loop.index, 4)
            values = [
                builder.load(
                    pointer(builder, _add(builder, bases[v // panel], column), VECTOR, BYTES * (v % panel)), align=4
                )
                for v in range(vectors)
            ]
            for r in range(rows):
                scalar = builder.load(pointer(builder, _add(builder, x_rows[r], number), FLOAT), align=4)
                spread = broadcast(builder, scalar)
                for v in range(vectors):
                    slot = sums[r * vectors + v]
                    builder.store(fused(builder, values[v], spread, builder.load(slot)), slot)
        for r in range(rows):
            for v in range(vectors):
                place = _add(builder, y, _times(builder, y_stride, r), offsets[v])
                builder.store(builder.load(sums[r * vectors + v]), pointer(builder, place, VECTOR), align=4)

    return tile
