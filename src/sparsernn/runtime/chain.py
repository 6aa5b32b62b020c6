"""Kernels of streaming: a whole chain of modules, one time step, in one compiled call."""

from __future__ import annotations

from numba import njit

from .vector import (
    BYTES,
    WIDTH,
    at_least,
    call1,
    call7,
    i64,
    load,
    load_first,
    put_i64,
    sigmoid,
    splat,
    store,
    store_first,
    tanh,
)


def chain(f):
    """Run operations: pairs of int64, the address of a kernel and the address of its fields.

    Fields: operations, their count, stop: an operation that sets the number at that address is the last one.
    """
    operations, count, stop = i64(f, 0), i64(f, 1), i64(f, 2)
    for n in range(count):
        call1(i64(operations, 2 * n), i64(operations, 2 * n + 1))
        if i64(stop, 0) != 0:
            return


def tokens(f):
    """Copy row numbers that are all inside the table; fields: from, to, count, rows of the table, address of stop."""
    for n in range(i64(f, 2)):
        number = i64(i64(f, 0), n)
        if number < 0 or number >= i64(f, 3):
            put_i64(i64(f, 4), 0, 1)
        put_i64(i64(f, 1), n, number)


def product(f):
    """Fields: product kernel, plan, x, x_stride, rows, y, y_stride, scratch."""
    call7(i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3), i64(f, 4), i64(f, 5), i64(f, 6), i64(f, 7))


def table(plan, x, x_stride, count, y, y_stride, scratch):
    """A product kernel whose x are row numbers: row x of a ready-made table goes to y.

    Plan: table (address), row width (vectors).
    """
    rows, width = i64(plan, 0), i64(plan, 1)
    for row in range(count):
        number = i64(x + row * x_stride, 0)
        for n in range(width):
            store(y + row * y_stride + n * BYTES, load(rows + (number * width + n) * BYTES))


def lookup(f):
    """Copy rows of an embedding; fields: row numbers, count, embedding, numbers in a row, to, bytes from row to row."""
    width = i64(f, 3)
    for n in range(i64(f, 1)):
        source = i64(f, 2) + i64(i64(f, 0), n) * width * 4
        target = i64(f, 4) + n * i64(f, 5)
        for k in range(width // WIDTH):
            store(target + k * BYTES, load(source + k * BYTES))
        rest = width % WIDTH
        if rest != 0:
            behind = (width - rest) * 4
            store_first(target + behind, load_first(source + behind, rest), rest)


@njit
def _fields(f):
    return i64(f, 0), i64(f, 1), i64(f, 2)


def relu(f):
    """Fields: from, to, vectors."""
    source, target, count = _fields(f)
    for n in range(count):
        store(target + n * BYTES, at_least(load(source + n * BYTES), splat(0.0)))


def logistic(f):
    source, target, count = _fields(f)
    for n in range(count):
        store(target + n * BYTES, sigmoid(load(source + n * BYTES)))


def hyperbolic(f):
    source, target, count = _fields(f)
    for n in range(count):
        store(target + n * BYTES, tanh(load(source + n * BYTES)))
