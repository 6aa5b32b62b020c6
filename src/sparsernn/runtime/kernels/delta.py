"""The product of a delta stream: only columns whose input moved are multiplied, onto a running sum."""

from __future__ import annotations

from numba import float32, njit

from ..vector import BYTES, f32, fma, i32, i64, load, put_f32, put_i64, splat, store


@njit
def _begin(total, bias, vectors):
    """The sum of no column: the bias, or zeros."""
    for v in range(vectors):
        store(total + v * BYTES, load(bias + v * BYTES) if bias != 0 else splat(0.0))


@njit
def _chosen(x, last, thresholds, columns, anew, numbers, changes):
    """Write down the columns to multiply, and with what: those that moved with their change, or, where the sum is made
    `anew`, all that are not zero with their value. How many they are."""
    n = 0
    for c in range(columns):
        value, before = f32(x, c), f32(last, c)
        moved = not (abs(value - before) <= f32(thresholds, c))  # a NaN has moved
        now = value if moved else before
        put_f32(last, c, now)
        put_i64(numbers, n, c)  # without a branch: overwritten by the next one where this is none
        put_f32(changes, n, now if anew else value - before)
        n += 1 if (now != 0.0 if anew else moved) else 0
    return n


@njit
def _blocks(weights, starts, places, c, change, total):
    """Column c's blocks, wherever they stand, times `change`; how many they are."""
    first, end = i32(starts, c), i32(starts, c + 1)
    for b in range(first, end):
        place = total + i32(places, b)
        store(place, fma(splat(change), load(weights + b * BYTES), load(place)))
    return end - first


@njit
def _four(weights, tall, places, numbers, changes, total):
    """Four columns that have all blocks, at once: the sum is loaded and stored once."""
    a, b, c, d = (
        weights + i64(numbers, 0) * tall * BYTES,
        weights + i64(numbers, 1) * tall * BYTES,
        weights + i64(numbers, 2) * tall * BYTES,
        weights + i64(numbers, 3) * tall * BYTES,
    )
    by_a, by_b, by_c, by_d = (
        splat(f32(changes, 0)),
        splat(f32(changes, 1)),
        splat(f32(changes, 2)),
        splat(f32(changes, 3)),
    )
    for n in range(tall):
        place = total + i32(places, n)
        value = fma(by_b, load(b + n * BYTES), fma(by_a, load(a + n * BYTES), load(place)))
        store(place, fma(by_d, load(d + n * BYTES), fma(by_c, load(c + n * BYTES), value)))


def product(plan, x, x_stride, count, y, y_stride, scratch):
    """y = b + W x' where there is a bias b, else y += W x', of one row; x' are the inputs as last propagated.

    Plan: weights, WIDTH x 1 blocks column by column; number of the first block of each column, and of all (int32);
    bytes at which each block stands in y (int32); columns; vectors of y; bias (0: none); the running sum; x', and
    behind them the steps since the sum was made anew; thresholds (float32); steps after which it is made anew; room for
    a number (int64) and a change (float32) of each column; blocks of a column where all have all of them, else 0;
    counts of steps, and of columns and blocks that were read.
    """
    weights, starts, places = i64(plan, 0), i64(plan, 1), i64(plan, 2)
    columns, vectors, bias = i64(plan, 3), i64(plan, 4), i64(plan, 5)
    total, last, thresholds, period = i64(plan, 6), i64(plan, 7), i64(plan, 8), i64(plan, 9)
    numbers, changes, tall = i64(plan, 10), i64(plan, 11), i64(plan, 12)
    anew = f32(last, columns) >= period
    if anew:
        _begin(total, bias, vectors)
    put_f32(last, columns, float32(1) + (float32(0) if anew else f32(last, columns)))
    n = _chosen(x, last, thresholds, columns, anew, numbers, changes)
    k, blocks = 0, 0
    if tall != 0:
        while k + 4 <= n:
            _four(weights, tall, places, numbers + 8 * k, changes + 4 * k, total)
            k, blocks = k + 4, blocks + 4 * tall
    while k < n:
        blocks += _blocks(weights, starts, places, i64(numbers, k), f32(changes, k), total)
        k += 1
    for v in range(vectors):
        value = load(total + v * BYTES)
        store(y + v * BYTES, value if bias != 0 else value + load(y + v * BYTES))
    put_i64(plan, 13, i64(plan, 13) + 1)
    put_i64(plan, 14, i64(plan, 14) + n)
    put_i64(plan, 15, i64(plan, 15) + blocks)
