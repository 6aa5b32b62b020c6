"""Kernels that gather from many places: convolutions, pools, small matrix products.

A tap is an offset in bytes from where an output's input begins. Which ones there are is worked out beforehand, so a
kernel knows of no axes beyond the ones that it walks: outer ones, and an inner one that goes in vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from ..vector import BYTES, WIDTH, f32, fma, i64, load, load_first, put_f32, splat, store_first, total
from .lanes import gather
from .wide import larger

OUTER = 4  # axes that are walked one by one: sizes, bytes of from, bytes of to


@njit
def _fetch(place, step, left):
    return load(place) if step == 4 else gather(place, step, left)


@njit
def _four(x, step, left, taps, count, weights, row, start):
    """Sums of four rows of weights over the taps."""
    a, b = splat(f32(start, 0)), splat(f32(start, 1))
    c, d = splat(f32(start, 2)), splat(f32(start, 3))
    for t in range(count):
        v = _fetch(x + i64(taps, t), step, left)
        w = weights + t * 4
        a = fma(splat(f32(w, 0)), v, a)
        b = fma(splat(f32(w + row, 0)), v, b)
        c = fma(splat(f32(w + 2 * row, 0)), v, c)
        d = fma(splat(f32(w + 3 * row, 0)), v, d)
    return a, b, c, d


@njit
def _one(x, step, left, taps, count, weights, start):
    a, b = splat(f32(start, 0)), splat(0.0)
    t = 0
    while t + 2 <= count:
        a = fma(splat(f32(weights, t)), _fetch(x + i64(taps, t), step, left), a)
        b = fma(splat(f32(weights, t + 1)), _fetch(x + i64(taps, t + 1), step, left), b)
        t += 2
    if t < count:
        a = fma(splat(f32(weights, t)), _fetch(x + i64(taps, t), step, left), a)
    return a + b


@njit
def _outer(f, number):
    """Bytes of from and of to at place `number` of the outer axes."""
    if number == 0:
        return 0, 0
    x, y = 0, 0
    for axis in range(OUTER):
        a = OUTER - 1 - axis
        size = i64(f, a)
        at = number % size
        number //= size
        x += at * i64(f, OUTER + a)
        y += at * i64(f, 2 * OUTER + a)
    return x, y


def conv(f):
    """Each output channel of a group: bias + the weighted sum of the taps, along a vector of places.

    Fields: from, to, places in the inner axis, their bytes of from (to: side by side); taps (address), their number,
    weights (groups, channels, taps), channels of a group, bytes from channel to channel of to, bias (groups,
    channels); groups, bytes from group to group of from; outer places, then sizes and bytes of the outer axes.
    """
    x, y, count, step = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3)
    taps, tap_count, weights, channels = i64(f, 4), i64(f, 5), i64(f, 6), i64(f, 7)
    to_channel, bias, groups, group_step = i64(f, 8), i64(f, 9), i64(f, 10), i64(f, 11)
    row = tap_count * 4
    for number in range(i64(f, 12)):
        x_more, y_more = _outer(f + 104, number)
        for group in range(groups):
            n = 0
            while n < count:
                left = min(WIDTH, count - n)
                source = x + x_more + group * group_step + n * step
                o = 0
                while o < channels:
                    own = group * channels + o
                    to = y + y_more + own * to_channel + n * 4
                    w, start = weights + own * row, bias + own * 4
                    if o + 4 <= channels:
                        p, q, r, s = _four(source, step, left, taps, tap_count, w, row, start)
                        store_first(to, p, left)
                        store_first(to + to_channel, q, left)
                        store_first(to + 2 * to_channel, r, left)
                        store_first(to + 3 * to_channel, s, left)
                        o += 4
                    else:
                        store_first(to, _one(source, step, left, taps, tap_count, w, start), left)
                        o += 1
                n += WIDTH


def depthwise(f):
    """Channels side by side, each with weights of its own: fields: from, to, channels, taps (address), their number,
    weights (taps, channels in whole vectors), bias (channels), outer places, sizes and bytes of the outer axes."""
    x, y, count, taps, tap_count = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3), i64(f, 4)
    weights, bias = i64(f, 5), i64(f, 6)
    row = (count + WIDTH - 1) // WIDTH * BYTES
    for number in range(i64(f, 7)):
        x_more, y_more = _outer(f + 64, number)
        n = 0
        while n < count:
            value = load(bias + n * 4)
            for t in range(tap_count):
                value = fma(load(weights + t * row + n * 4), load(x + x_more + i64(taps, t) + n * 4), value)
            store_first(y + y_more + n * 4, value, min(WIDTH, count - n))
            n += WIDTH


@njit
def _add(a, b):
    return a + b


def _pool(join: Any) -> Callable[..., None]:
    def kernel(f):
        """Fields: from, to, places in the inner axis, their bytes of from, taps, their number, a factor (float32),
        outer places, sizes and bytes of the outer axes."""
        x, y, count, step = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3)
        taps, tap_count, factor = i64(f, 4), i64(f, 5), splat(f32(f, 12))
        for number in range(i64(f, 7)):
            x_more, y_more = _outer(f + 64, number)
            n = 0
            while n < count:
                left = min(WIDTH, count - n)
                source = x + x_more + n * step
                value = _fetch(source + i64(taps, 0), step, left)
                for t in range(1, tap_count):
                    value = join(value, _fetch(source + i64(taps, t), step, left))
                store_first(y + y_more + n * 4, value * factor, left)
                n += WIDTH

    return kernel


add_pool, max_pool = _pool(_add), _pool(larger)


def matmul(f):
    """Fields: from (matrices, rows, inner), its bytes of each; the other (matrices, inner, columns side by side), its
    bytes of the first two; to (matrices, rows, columns side by side), its bytes of the first two; matrices, rows,
    inner, columns."""
    x, x_more, x_row, x_step = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3)
    y, y_more, y_row = i64(f, 4), i64(f, 5), i64(f, 6)
    to, to_more, to_row = i64(f, 7), i64(f, 8), i64(f, 9)
    matrices, rows, inner, columns = i64(f, 10), i64(f, 11), i64(f, 12), i64(f, 13)
    for m in range(matrices):
        n = 0
        while n < columns:
            left = min(WIDTH, columns - n)
            source = y + m * y_more + n * 4
            row = 0
            while row < rows:
                place, own = to + m * to_more + row * to_row + n * 4, x + m * x_more + row * x_row
                if row + 4 <= rows:
                    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
                    for k in range(inner):
                        v, w = load(source + k * y_row), own + k * x_step
                        a = fma(splat(f32(w, 0)), v, a)
                        b = fma(splat(f32(w + x_row, 0)), v, b)
                        c = fma(splat(f32(w + 2 * x_row, 0)), v, c)
                        d = fma(splat(f32(w + 3 * x_row, 0)), v, d)
                    store_first(place, a, left)
                    store_first(place + to_row, b, left)
                    store_first(place + 2 * to_row, c, left)
                    store_first(place + 3 * to_row, d, left)
                    row += 4
                else:
                    a, b, k = splat(0.0), splat(0.0), 0
                    while k + 2 <= inner:
                        a = fma(splat(f32(own + k * x_step, 0)), load(source + k * y_row), a)
                        b = fma(splat(f32(own + (k + 1) * x_step, 0)), load(source + (k + 1) * y_row), b)
                        k += 2
                    if k < inner:
                        a = fma(splat(f32(own + k * x_step, 0)), load(source + k * y_row), a)
                    store_first(place, a + b, left)
                    row += 1
            n += WIDTH


def dots(f):
    """The same where the inner axis is side by side in both; y_row: bytes from column to column of the other."""
    x, x_more, x_row = i64(f, 0), i64(f, 1), i64(f, 2)
    y, y_more, y_row = i64(f, 4), i64(f, 5), i64(f, 6)
    to, to_more, to_row = i64(f, 7), i64(f, 8), i64(f, 9)
    matrices, rows, inner, columns = i64(f, 10), i64(f, 11), i64(f, 12), i64(f, 13)
    for m in range(matrices):
        for row in range(rows):
            for column in range(columns):
                a, b = x + m * x_more + row * x_row, y + m * y_more + column * y_row
                value, n = splat(0.0), 0
                while n + WIDTH <= inner:
                    value = fma(load(a + n * 4), load(b + n * 4), value)
                    n += WIDTH
                if n < inner:
                    left = inner - n
                    value = fma(load_first(a + n * 4, left), load_first(b + n * 4, left), value)
                put_f32(to + m * to_more + row * to_row, column, total(value))
