"""Elementwise kernels: rows of numbers in, rows of numbers out.

Fields of a function of k inputs: rows, numbers in a row, to, its bytes from row to row; then for each input its
address, its bytes from row to row and from vector to vector (0: one number for the whole row); then the function's own
numbers, float32 each. Vectors are read whole, up to WIDTH - 1 numbers past the end of a row, which only has to be
memory of ours; nothing is written there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from ..vector import BYTES, WIDTH, i64, load, store, store_first
from . import functions, turns
from .lanes import fetch
from .wide import larger, smaller, where_nonzero


def _of_one(function: Any) -> Callable[..., None]:
    def kernel(f):
        rows, count, to, to_row = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3)
        x, x_row, numbers = i64(f, 4), i64(f, 5), f + 48
        for _ in range(rows):
            whole = count - WIDTH
            place, source, n = to, x, 0
            while n <= whole:
                store(place, function(load(source), numbers))
                place += BYTES
                source += BYTES
                n += WIDTH
            if n < count:
                store_first(place, function(load(source), numbers), count - n)
            to += to_row
            x += x_row

    return kernel


def _of_two(function: Any) -> Callable[..., None]:
    def kernel(f):
        rows, count, to, to_row = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3)
        x, x_row, x_step, y, y_row, y_step = i64(f, 4), i64(f, 5), i64(f, 6), i64(f, 7), i64(f, 8), i64(f, 9)
        numbers = f + 80
        for _ in range(rows):
            whole = count - WIDTH
            place, a, b, n = to, x, y, 0
            while n <= whole:
                store(place, function(fetch(a, x_step), fetch(b, y_step), numbers))
                place += BYTES
                a += x_step
                b += y_step
                n += WIDTH
            if n < count:
                store_first(place, function(fetch(a, x_step), fetch(b, y_step), numbers), count - n)
            to += to_row
            x += x_row
            y += y_row

    return kernel


def where(f):
    """Of three inputs: the second where the first is not 0, else the third."""
    rows, count, to, to_row = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3)
    c, c_row, c_step, x, x_row, x_step = i64(f, 4), i64(f, 5), i64(f, 6), i64(f, 7), i64(f, 8), i64(f, 9)
    y, y_row, y_step = i64(f, 10), i64(f, 11), i64(f, 12)
    for r in range(rows):
        n = 0
        while n < count:
            v = n // WIDTH
            chosen = fetch(c + r * c_row + v * c_step, c_step)
            a, b = (
                fetch(x + r * x_row + v * x_step, x_step),
                fetch(y + r * y_row + v * y_step, y_step),
            )
            store_first(to + r * to_row + n * 4, where_nonzero(chosen, a, b), min(WIDTH, count - n))
            n += WIDTH


def multiply_add(f):
    """Of three inputs: x y + z, what a folded norm does."""
    rows, count, to, to_row = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3)
    x, x_row, x_step, y, y_row, y_step = i64(f, 4), i64(f, 5), i64(f, 6), i64(f, 7), i64(f, 8), i64(f, 9)
    z, z_row, z_step = i64(f, 10), i64(f, 11), i64(f, 12)
    for r in range(rows):
        n = 0
        while n < count:
            v = n // WIDTH
            a, b = (
                fetch(x + r * x_row + v * x_step, x_step),
                fetch(y + r * y_row + v * y_step, y_step),
            )
            c = fetch(z + r * z_row + v * z_step, z_step)
            store_first(to + r * to_row + n * 4, a * b + c, min(WIDTH, count - n))
            n += WIDTH


@njit
def _add(x, y, f):
    return x + y


@njit
def _sub(x, y, f):
    return x - y


@njit
def _mul(x, y, f):
    return x * y


@njit
def _div(x, y, f):
    return x / y


@njit
def _maximum(x, y, f):
    return larger(x, y)


@njit
def _minimum(x, y, f):
    return smaller(x, y)


copy, truth, logical_not = _of_one(functions.copy), _of_one(functions.truth), _of_one(functions.logical_not)
relu, tanh, sigmoid = _of_one(functions.relu), _of_one(functions.tanh), _of_one(functions.sigmoid)
exp, expm1, log, log1p = (_of_one(x) for x in (functions.exp, functions.expm1, functions.log, functions.log1p))
sqrt, rsqrt, reciprocal = _of_one(functions.sqrt), _of_one(functions.rsqrt), _of_one(functions.reciprocal)
absolute, neg, sign = _of_one(functions.absolute), _of_one(functions.neg), _of_one(functions.sign)
floor, ceil, nearest = _of_one(functions.floor), _of_one(functions.ceil), _of_one(functions.nearest)
sin, cos, erf = _of_one(turns.sin), _of_one(turns.cos), _of_one(functions.erf)
silu, mish, gelu, gelu_tanh = (
    _of_one(x) for x in (functions.silu, functions.mish, functions.gelu, functions.gelu_tanh)
)
elu, leaky_relu, clamp = _of_one(functions.elu), _of_one(functions.leaky_relu), _of_one(functions.clamp)
hardsigmoid, hardswish = _of_one(functions.hardsigmoid), _of_one(functions.hardswish)
softplus, log_sigmoid = _of_one(functions.softplus), _of_one(functions.log_sigmoid)
add, sub, mul, div = _of_two(_add), _of_two(_sub), _of_two(_mul), _of_two(_div)
maximum, minimum = _of_two(_maximum), _of_two(_minimum)
power, prelu = _of_two(functions.power), _of_two(functions.prelu)
gt, ge, eq, ne = _of_two(functions.gt), _of_two(functions.ge), _of_two(functions.eq), _of_two(functions.ne)
logical_and, logical_or = _of_two(functions.logical_and), _of_two(functions.logical_or)
