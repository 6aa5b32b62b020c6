"""Kernels that move numbers: strided copies, the memories of past steps, rows by number."""

from __future__ import annotations

from numba import njit

from ..vector import WIDTH, f32, i64, load, put_f32, put_i64, store, store_first
from .lanes import as_float, as_long, gather

AXES = 5  # of a strided copy


@njit
def _row(source, to, count, step, to_step):
    """`count` numbers, `step` and `to_step` bytes apart."""
    if to_step != 4:
        for n in range(count):
            put_f32(to + n * to_step, 0, f32(source + n * step, 0))
        return
    n = 0
    while n + WIDTH <= count:
        store(to + n * 4, load(source + n * 4) if step == 4 else gather(source + n * step, step, WIDTH))
        n += WIDTH
    if n < count:
        left = count - n
        store_first(to + n * 4, load(source + n * 4) if step == 4 else gather(source + n * step, step, left), left)


def strided(f):
    """Fields: from, to; the sizes of AXES axes; the bytes from one to the next of each, of from and of to."""
    source, to = i64(f, 0), i64(f, 1)
    sizes, steps, to_steps = f + 16, f + 16 + 8 * AXES, f + 16 + 16 * AXES
    for a in range(i64(sizes, 0)):
        for b in range(i64(sizes, 1)):
            x = source + a * i64(steps, 0) + b * i64(steps, 1)
            y = to + a * i64(to_steps, 0) + b * i64(to_steps, 1)
            for c in range(i64(sizes, 2)):
                for d in range(i64(sizes, 3)):
                    _row(
                        x + c * i64(steps, 2) + d * i64(steps, 3), y + c * i64(to_steps, 2) + d * i64(to_steps, 3),
                        i64(sizes, 4), i64(steps, 4), i64(to_steps, 4),
                    )  # fmt: skip


def longs(f):
    """The same of int64."""
    source, to = i64(f, 0), i64(f, 1)
    sizes, steps, to_steps = f + 16, f + 16 + 8 * AXES, f + 16 + 16 * AXES
    for a in range(i64(sizes, 0)):
        for b in range(i64(sizes, 1)):
            for c in range(i64(sizes, 2)):
                for d in range(i64(sizes, 3)):
                    x = source + a * i64(steps, 0) + b * i64(steps, 1) + c * i64(steps, 2) + d * i64(steps, 3)
                    y = to + a * i64(to_steps, 0) + b * i64(to_steps, 1) + c * i64(to_steps, 2) + d * i64(to_steps, 3)
                    for e in range(i64(sizes, 4)):
                        put_i64(y + e * i64(to_steps, 4), 0, i64(x + e * i64(steps, 4), 0))


def floats(f):
    """int64 to float32, side by side; fields: from, to, count."""
    for n in range(i64(f, 2)):
        put_f32(i64(f, 1), n, as_float(i64(i64(f, 0), n)))


def flat(f):
    """Fields: from, to, count of numbers side by side."""
    source, to, count = i64(f, 0), i64(f, 1), i64(f, 2)
    n = 0
    while n + WIDTH <= count:
        store(to + n * 4, load(source + n * 4))
        n += WIDTH
    if n < count:
        store_first(to + n * 4, load(source + n * 4), count - n)


def push(f):
    """Rows move one place to the front and a new one becomes the last. Fields: from, rows, their number, numbers in a
    row. What lies behind moves first, so overlapping vectors do no harm: they are read before they are written."""
    source, to, rows, width = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3)
    count, n = (rows - 1) * width, 0
    while n + WIDTH <= count:
        store(to + n * 4, load(to + (n + width) * 4))
        n += WIDTH
    if n < count:
        store_first(to + n * 4, load(to + (n + width) * 4), count - n)
    place, n = to + count * 4, 0
    while n + WIDTH <= width:
        store(place + n * 4, load(source + n * 4))
        n += WIDTH
    if n < width:
        store_first(place + n * 4, load(source + n * 4), width - n)


def push_longs(f):
    """The same of int64."""
    source, to, rows, width = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3)
    count = (rows - 1) * width
    for n in range(count):
        put_i64(to, n, i64(to, n + width))
    for n in range(width):
        put_i64(to, count + n, i64(source, n))


def ring(f):
    """The same without moving: rows stand twice, and the window over them moves on.

    Fields: from, memory of twice as many rows, their number, numbers in a row, the row that the window begins at, how
    many addresses look into the window, and where those stand: pairs of a place and the bytes from the window's
    begin.
    """
    source, memory, rows, width, first = i64(f, 0), i64(f, 1), i64(f, 2), i64(f, 3), i64(f, 4)
    place = memory + first * width * 4
    again = rows * width * 4
    n = 0
    while n < width:
        value = load(source + n * 4)
        store_first(place + n * 4, value, min(WIDTH, width - n))
        store_first(place + again + n * 4, value, min(WIDTH, width - n))
        n += WIDTH
    first += 1
    if first == rows:
        first = 0
    put_i64(f, 4, first)
    begin, lookers = memory + first * width * 4, i64(f, 6)
    for n in range(i64(f, 5)):
        put_i64(i64(lookers, 2 * n), 0, begin + i64(lookers, 2 * n + 1))


def pick(f):
    """Rows by number. Fields: from, to, rows to make, where each begins in bytes (address), numbers in a row."""
    source, to, width = i64(f, 0), i64(f, 1), i64(f, 4)
    for n in range(i64(f, 2)):
        _row(source + i64(i64(f, 3), n), to + n * width * 4, width, 4, 4)


def whole(f):
    """float32 to int64, side by side; fields: from, to, count."""
    for n in range(i64(f, 2)):
        put_i64(i64(f, 1), n, as_long(f32(i64(f, 0), n)))
