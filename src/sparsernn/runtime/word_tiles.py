"""Register tiles of int8 words, and the rows of x that become bytes for them: words.py says how."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import cgutils

from .products import MORE as BEGIN
from .quantise import LARGEST, largest, quantise
from .tiles import add, times
from .vector import (
    BYTES,
    FLOAT,
    INT32,
    INT64,
    INTEGERS,
    VECTOR,
    WIDTH,
    broadcast,
    call,
    fused,
    instruction,
    pointer,
    put_f32,
    types,
)

# Further fields of a plan, behind those of products.py.
SCALES, SHIFTS, INPUTS, MORE = range(BEGIN, BEGIN + 4)


def _dot(builder: Any, total: Any, word: Any, weights: Any) -> Any:
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", INTEGERS, total, word, weights)


def _finish(builder: Any, total: Any, scale: Any, spread: Any, start: Any) -> Any:
    """start + total * (scale of the row of W * scale of the row of x)."""
    return fused(builder, builder.sitofp(total, VECTOR), builder.fmul(scale, spread), start)


def _less(builder: Any, shifts: Any, vector: int = 0) -> Any:
    """What sums start from: minus what the 128 added to each byte of x will add."""
    shift = builder.load(pointer(builder, shifts, INTEGERS, BYTES * vector), align=4)
    return builder.sub(ir.Constant(INTEGERS, [0] * WIDTH), shift)


def dense_tile(rows: int, vectors: int) -> Any:
    """Dense: arguments weights, words, x (bytes), x_stride, scales of x (address), y, y_stride, where, start,
    start_stride, scales, shifts (addresses of the vectors of these blocks)."""

    @instruction(types.void, *[types.int64] * 12)
    def tile(
        builder: Any, weights: Any, words: Any, x: Any, x_stride: Any, own: Any, y: Any, y_stride: Any, where: Any,
        start: Any, start_stride: Any, scales: Any, shifts: Any,
    ) -> None:  # fmt: skip
        x_rows = [add(builder, x, times(builder, x_stride, r)) for r in range(rows)]
        begins = [_less(builder, shifts, v) for v in range(vectors)]
        sums = [cgutils.alloca_once_value(builder, begins[n % vectors]) for n in range(rows * vectors)]
        with cgutils.for_range(builder, words) as loop:
            place = add(builder, weights, times(builder, loop.index, BYTES * vectors))
            values = [builder.load(pointer(builder, place, INTEGERS, BYTES * v), align=4) for v in range(vectors)]
            for r in range(rows):
                word = builder.load(
                    pointer(builder, add(builder, x_rows[r], times(builder, loop.index, 4)), INT32), align=4
                )
                spread = broadcast(builder, word)
                for v in range(vectors):
                    slot = sums[r * vectors + v]
                    builder.store(_dot(builder, builder.load(slot), spread, values[v]), slot)
        for v in range(vectors):
            offset = builder.load(pointer(builder, where, INT64, 8 * v))
            scale = builder.load(pointer(builder, scales, VECTOR, BYTES * v), align=4)
            for r in range(rows):
                spread = broadcast(builder, builder.load(pointer(builder, own, FLOAT, 4 * r), align=4))
                place = add(builder, start, times(builder, start_stride, r), offset)
                begin = builder.load(pointer(builder, place, VECTOR), align=4)
                value = _finish(builder, builder.load(sums[r * vectors + v]), scale, spread, begin)
                place = add(builder, y, times(builder, y_stride, r), offset)
                builder.store(value, pointer(builder, place, VECTOR), align=4)

    return tile


def block_tile(rows: int) -> Any:
    """Blocks of WIDTH rows x 4 columns, one block row, for `rows` inputs side by side: word number n of input r is at
    x + 4 (n rows + r). Arguments weights, numbers (of the words, int32), count, x, scales of x, y, y_stride, where,
    start, start_stride, scales, shifts."""

    @instruction(types.void, *[types.int64] * 12)
    def tile(
        builder: Any, weights: Any, numbers: Any, count: Any, x: Any, own: Any, y: Any, y_stride: Any, where: Any,
        start: Any, start_stride: Any, scales: Any, shifts: Any,
    ) -> None:  # fmt: skip
        zero = ir.Constant(INTEGERS, [0] * WIDTH)
        turns = 4 if rows == 1 else 2 if rows < 6 else 1  # sums are exact, so their number changes no bit
        less = _less(builder, shifts)
        sums = [[cgutils.alloca_once_value(builder, zero if t else less) for t in range(turns)] for _ in range(rows)]

        def block(index: Any, turn: int) -> None:
            value = builder.load(
                pointer(builder, add(builder, weights, times(builder, index, BYTES)), INTEGERS), align=4
            )
            place = pointer(builder, add(builder, numbers, times(builder, index, 4)), INT32)
            number = builder.zext(builder.load(place, align=4), INT64)
            words = add(builder, x, times(builder, number, 4 * rows))
            for r in range(rows):
                word = builder.load(pointer(builder, words, INT32, 4 * r), align=4)
                slot = sums[r][turn]
                builder.store(_dot(builder, builder.load(slot), broadcast(builder, word), value), slot)

        rounds = builder.sdiv(count, ir.Constant(INT64, turns))
        with cgutils.for_range(builder, rounds) as loop:
            for turn in range(turns):
                block(builder.add(builder.mul(loop.index, ir.Constant(INT64, turns)), ir.Constant(INT64, turn)), turn)
        if turns > 1:
            done = builder.mul(rounds, ir.Constant(INT64, turns))
            with cgutils.for_range(builder, builder.sub(count, done)) as loop:
                block(builder.add(done, loop.index), 0)
        offset = builder.load(pointer(builder, where, INT64))
        scale = builder.load(pointer(builder, scales, VECTOR), align=4)
        for r in range(rows):
            total = builder.load(sums[r][0])
            for slot in sums[r][1:]:
                total = builder.add(total, builder.load(slot))
            spread = broadcast(builder, builder.load(pointer(builder, own, FLOAT, 4 * r), align=4))
            place = add(builder, start, times(builder, start_stride, r), offset)
            begin = builder.load(pointer(builder, place, VECTOR), align=4)
            place = add(builder, y, times(builder, y_stride, r), offset)
            value = _finish(builder, total, scale, spread, begin)
            builder.store(value, pointer(builder, place, VECTOR), align=4)

    return tile


@njit
def take_in(x, x_stride, rows, inputs, stride, scratch, own):
    """Quantise `rows` rows of x; their scales go to `own`. A row that is not finite gets the scale NaN."""
    for row in range(rows):
        most = largest(x + row * x_stride, inputs)
        if most > 1e-30 and most <= LARGEST:
            quantise(x + row * x_stride, scratch + row * stride, inputs, 127.0 / most)
            put_f32(own, row, most / 127.0)
        else:
            quantise(x + row * x_stride, scratch + row * stride, 0, 0.0)
            for n in range(stride // 4):
                put_f32(scratch + row * stride, n, 0.0)
            put_f32(own, row, 0.0 if most <= 1e-30 else most - most)
