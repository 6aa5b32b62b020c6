"""int8 products: weights with one scale a row, inputs quantised row by row at each call, sums exact in int32.

A row of x becomes round(x / s) + 128 as unsigned bytes, s = max |x| / 127; a row of W becomes round(w / t), t its
largest weight over 127. Four columns make one 32-bit word, and one instruction (VNNI) multiplies four bytes of 16 rows
with the word and adds. What the 128 adds, 128 times the sum of the row of W, is known beforehand and taken away.
Plans as in products.py; COLUMNS counts words.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import cgutils

from .products import BIAS, BLOCKS, COLUMNS, MORE, WEIGHTS, WHERE, fill_absent
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
    f32,
    fused,
    i64,
    instruction,
    pointer,
    put_f32,
    types,
)

# Further fields of a plan.
SCALES, SHIFTS, INPUTS, NUMBERS, STARTS = range(MORE, MORE + 5)

MOST = 48  # rows of x that are quantised together
TALL, PANEL = 6, 4


def _dot(builder: Any, total: Any, word: Any, weights: Any) -> Any:
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", INTEGERS, total, word, weights)


def _finish(builder: Any, total: Any, scale: Any, spread: Any, start: Any) -> Any:
    """start + total * (scale of the row of W * scale of the row of x)."""
    return fused(builder, builder.sitofp(total, VECTOR), builder.fmul(scale, spread), start)


def _less(builder: Any, shifts: Any, vector: int = 0) -> Any:
    """What sums start from: minus what the 128 added to each byte of x will add."""
    shift = builder.load(pointer(builder, shifts, INTEGERS, BYTES * vector), align=4)
    return builder.sub(ir.Constant(INTEGERS, [0] * WIDTH), shift)


def _tile(rows: int, vectors: int) -> Any:
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


def _block_tile(rows: int) -> Any:
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


_tall, _two, _one = _tile(TALL, PANEL), _tile(2, PANEL), _tile(1, PANEL)
_narrow_tall, _narrow_one = _tile(TALL, 1), _tile(1, 1)
_b1, _b2, _b3, _b4, _b5, _b6 = (_block_tile(n) for n in range(1, 7))
_b7, _b8, _b9, _b10, _b11, _b12 = (_block_tile(n) for n in range(7, 13))
SIDE = 12  # inputs of one tile of blocks


@njit
def _take_in(x, x_stride, rows, inputs, stride, scratch, own):
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


def panel(plan, x, x_stride, count, y, y_stride, scratch):
    """Dense int8 panels. Scratch: MOST rows of bytes and MOST floats."""
    words, inputs, blocks = i64(plan, COLUMNS), i64(plan, INPUTS), i64(plan, BLOCKS)
    weights, where, bias = i64(plan, WEIGHTS), i64(plan, WHERE), i64(plan, BIAS)
    scales, shifts = i64(plan, SCALES), i64(plan, SHIFTS)
    stride = (inputs + 63) // 64 * 64
    own = scratch + MOST * stride
    if bias != 0:
        fill_absent(plan, bias, count, y, y_stride)
    start = bias if bias != 0 else y
    start_stride = 0 if bias != 0 else y_stride
    done = 0
    while done < count:
        rows = min(MOST, count - done)
        _take_in(x + done * x_stride, x_stride, rows, inputs, stride, scratch, own)
        place, begin = y + done * y_stride, start + done * start_stride
        block = 0
        while block < blocks:
            four = block + PANEL <= blocks
            w = weights + block * words * BYTES
            at, scale, shift = where + block * 8, scales + block * BYTES, shifts + block * BYTES
            r = 0
            while r < rows:
                q, o, yr, sr = scratch + r * stride, own + r * 4, place + r * y_stride, begin + r * start_stride
                if four:
                    if rows - r >= TALL:
                        _tall(w, words, q, stride, o, yr, y_stride, at, sr, start_stride, scale, shift)
                        r += TALL
                    elif rows - r >= 2:
                        _two(w, words, q, stride, o, yr, y_stride, at, sr, start_stride, scale, shift)
                        r += 2
                    else:
                        _one(w, words, q, stride, o, yr, y_stride, at, sr, start_stride, scale, shift)
                        r += 1
                elif rows - r >= TALL:
                    _narrow_tall(w, words, q, stride, o, yr, y_stride, at, sr, start_stride, scale, shift)
                    r += TALL
                else:
                    _narrow_one(w, words, q, stride, o, yr, y_stride, at, sr, start_stride, scale, shift)
                    r += 1
            block += PANEL if four else 1
        done += rows


@njit
def _block(rows, w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift):
    if rows == 1:
        _b1(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
    elif rows == 2:
        _b2(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
    elif rows == 3:
        _b3(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
    elif rows == 4:
        _b4(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
    elif rows == 5:
        _b5(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
    elif rows == 6:
        _b6(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
    elif rows == 7:
        _b7(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
    elif rows == 8:
        _b8(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
    elif rows == 9:
        _b9(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
    elif rows == 10:
        _b10(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
    elif rows == 11:
        _b11(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
    else:
        _b12(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)


@njit
def _side_by_side(x, stride, rows, words, target):
    """Word n of row r goes to target + 4 (n rows + r)."""
    for r in range(rows):
        for n in range(words):
            put_f32(target + 4 * r, n * rows, f32(x + r * stride, n))


def blocks(plan, x, x_stride, count, y, y_stride, scratch):
    """WIDTH x 4 blocks of int8. Scratch as for `panel`."""
    words, inputs, total = i64(plan, COLUMNS), i64(plan, INPUTS), i64(plan, BLOCKS)
    weights, where, bias = i64(plan, WEIGHTS), i64(plan, WHERE), i64(plan, BIAS)
    scales, shifts, numbers, starts = i64(plan, SCALES), i64(plan, SHIFTS), i64(plan, NUMBERS), i64(plan, STARTS)
    stride = (inputs + 63) // 64 * 64
    own = scratch + MOST * stride
    if bias != 0:
        fill_absent(plan, bias, count, y, y_stride)
    start = bias if bias != 0 else y
    start_stride = 0 if bias != 0 else y_stride
    tiles = (count + SIDE - 1) // SIDE
    done = 0
    for t in range(tiles):
        # Even shares: 13 inputs are 7 and 6, not 12 and a lonely one.
        rows = (count - done + tiles - t - 1) // (tiles - t)
        _take_in(x + done * x_stride, x_stride, rows, inputs, stride, scratch, own)
        q = scratch
        if rows > 1:
            q = scratch + SIDE * stride
            _side_by_side(scratch, stride, rows, words, q)
        place, begin = y + done * y_stride, start + done * start_stride
        for b in range(total):
            first = i64(starts, b)
            _block(
                rows, weights + first * BYTES, numbers + first * 4, i64(starts, b + 1) - first, q, own, place, y_stride,
                where + b * 8, begin, start_stride, scales + b * BYTES, shifts + b * BYTES,
            )  # fmt: skip
        done += rows
