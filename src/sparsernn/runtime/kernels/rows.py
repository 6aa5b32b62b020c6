"""Kernels over the rows of a matrix: softmax, sums, norms.

Fields: rows, numbers in a row (side by side), from and its bytes from row to row, to and its bytes from row to row;
then what the operation has of its own. Outputs of reductions are single numbers, `to` bytes apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from ..vector import WIDTH, f32, fma, i64, load, load_first, put_f32, splat, store_first, total
from .exponentials import exp64, log64
from .lanes import first_lanes, largest, load_filled, product, smallest, total64
from .wide import each, larger, narrow, smaller, sqrt32, wide

INFINITY = float("inf")


@njit
def _add(a, b):
    return a + b


@njit
def _mul(a, b):
    return a * b


@njit
def _plain(value, count):
    return value


@njit
def _share(value, count):
    return value / count


def _reduction(join: Any, across: Any, empty: float, end: Any = _plain) -> Callable[..., None]:
    def kernel(f):
        rows, count, x, x_row, y, y_row = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3), i64(f, 4), i64(f, 5)
        for row in range(rows):
            value = load_filled(x + row * x_row, min(count, WIDTH), empty)
            n = WIDTH
            while n + WIDTH <= count:
                value = join(value, load(x + row * x_row + n * 4))
                n += WIDTH
            if n < count:
                value = join(value, load_filled(x + row * x_row + n * 4, count - n, empty))
            put_f32(y + row * y_row, 0, end(across(value), count))

    return kernel


sum_, mean = _reduction(_add, total, 0.0), _reduction(_add, total, 0.0, _share)
amax, amin = _reduction(larger, largest, -INFINITY), _reduction(smaller, smallest, INFINITY)
prod = _reduction(_mul, product, 1.0)


@njit
def _largest_of(x, count):
    value = load_filled(x, min(count, WIDTH), -INFINITY)
    n = WIDTH
    while n < count:
        value = larger(value, load_filled(x + n * 4, min(WIDTH, count - n), -INFINITY))
        n += WIDTH
    return largest(value)


def softmax(f):
    """Exponentials are kept in `to` until their sum is known."""
    rows, count, x, x_row, y, y_row = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3), i64(f, 4), i64(f, 5)
    for row in range(rows):
        source, to = x + row * x_row, y + row * y_row
        top, whole, n = splat(_largest_of(source, count)), splat(0.0), 0
        while n < count:
            left = min(WIDTH, count - n)
            value = narrow(exp64(wide(load_filled(source + n * 4, left, -INFINITY) - top)))
            store_first(to + n * 4, value, left)
            whole = whole + load_first(to + n * 4, left)
            n += WIDTH
        share, n = splat(total(whole)), 0
        while n < count:
            store_first(to + n * 4, load(to + n * 4) / share, min(WIDTH, count - n))
            n += WIDTH


def log_softmax(f):
    rows, count, x, x_row, y, y_row = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3), i64(f, 4), i64(f, 5)
    for row in range(rows):
        source, to = x + row * x_row, y + row * y_row
        top, whole, n = splat(_largest_of(source, count)), splat(0.0), 0
        while n < count:
            left = min(WIDTH, count - n)
            store_first(to + n * 4, narrow(exp64(wide(load(source + n * 4) - top))), left)
            whole = whole + load_first(to + n * 4, left)
            n += WIDTH
        less, n = narrow(log64(wide(splat(total(whole))))), 0
        while n < count:
            store_first(to + n * 4, load(source + n * 4) - top - less, min(WIDTH, count - n))
            n += WIDTH


@njit
def _mean(source, count):
    """In float64: rows of equal numbers are exactly their mean, whatever the epsilon."""
    sums, n = each(0.0), 0
    while n < count:
        sums = sums + wide(load_first(source + n * 4, min(WIDTH, count - n)))
        n += WIDTH
    return total64(sums) / count


def normalise(f):
    """Own fields: weight and bias (0: none), 1 where the mean stays, epsilon."""
    rows, count, x, x_row, y, y_row = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3), i64(f, 4), i64(f, 5)
    weight, bias, keeps, epsilon = i64(f, 6), i64(f, 7), i64(f, 8), f32(f, 18)
    for row in range(rows):
        source, to = x + row * x_row, y + row * y_row
        middle = each(0.0)
        if keeps == 0:
            middle = each(_mean(source, count))
        spread, n = splat(0.0), 0
        while n < count:
            left = min(WIDTH, count - n)
            away = first_lanes(narrow(wide(load(source + n * 4)) - middle), left)
            spread = fma(away, away, spread)
            n += WIDTH
        scale, n = splat(1.0) / sqrt32(splat(total(spread) / count + epsilon)), 0
        while n < count:
            value = narrow(wide(load(source + n * 4)) - middle) * scale
            if weight != 0:
                value = value * load(weight + n * 4)
            if bias != 0:
                value = value + load(bias + n * 4)
            store_first(to + n * 4, value, min(WIDTH, count - n))
            n += WIDTH
