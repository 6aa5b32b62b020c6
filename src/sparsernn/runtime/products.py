"""What the kernels of all layouts share, and products made of others.

Every product kernel has the same seven int64 arguments: `plan` (address of the packed matrix: int64 fields, below),
`x` and `x_stride` (address and bytes from row to row), `count` (rows of x), `y` and `y_stride`, and `scratch` (address
of as many bytes as the packing asks for; a thread needs its own). The output row is
made of blocks of WIDTH numbers; `where` tells at which byte of a row of y each block of the matrix belongs. With a
`bias` the sums start from it and whole rows of y are written (blocks that the matrix lacks get their bias); without
one they start from y itself, which is how the recurrent product adds to the input product.
"""

from __future__ import annotations

from numba import njit

from .vector import BYTES, call7, f32, i64, load, put_f32, store, store_first

# Fields of a plan, in this order; those of a layout of its own follow.
WEIGHTS, BLOCKS, COLUMNS, WHERE, BIAS, ABSENT, ABSENT_COUNT, MORE = range(8)


@njit
def fill_absent(plan, bias, count, y, y_stride):
    """Blocks of y that the matrix does not have get their bias."""
    absent = i64(plan, ABSENT)
    for a in range(i64(plan, ABSENT_COUNT)):
        offset = i64(absent, a)
        value = load(bias + offset)
        for row in range(count):
            store(y + row * y_stride + offset, value)


@njit
def side_by_side(x, x_stride, rows, columns, target, width):
    """Input n's number of column c goes to target[c * width + n]."""
    for n in range(rows):
        for c in range(columns):
            put_f32(target + n * 4, c * width, f32(x + n * x_stride, c))


def copy_part(plan, x, x_stride, count, y, y_stride):
    """The first `plan` numbers of each row of x go to y: rows without the padding."""
    for row in range(count):
        for n in range(plan):
            put_f32(y + row * y_stride, n, f32(x + row * x_stride, n))


def pick(plan, x, x_stride, count, y, y_stride, scratch):
    """y[k] = x[places[k]] for each row: units back in their own order. Plan: places (int64), their number."""
    places, width = i64(plan, 0), i64(plan, 1)
    for row in range(count):
        for n in range(width):
            put_f32(y + row * y_stride, n, f32(x + row * x_stride, i64(places, n)))


def thin(plan, x, x_stride, count, y, y_stride, scratch):
    """The product with a matrix of two factors: rows of the inner product come to lie behind the scratch of both, where
    the outer one reads them.

    Plan: kernel and plan of the inner product, kernel and plan of the outer one, bytes of a row between them, bytes of
    scratch that the two need.
    """
    stride, place = i64(plan, 4), scratch + i64(plan, 5)
    done = 0
    while done < count:
        rows = min(64, count - done)
        call7(i64(plan, 0), i64(plan, 1), x + done * x_stride, x_stride, rows, place, stride, scratch)
        call7(i64(plan, 2), i64(plan, 3), place, stride, rows, y + done * y_stride, y_stride, scratch)
        done += rows


def narrow(plan, x, x_stride, count, y, y_stride, scratch):
    """Rows of y without padding: whole blocks by one product, the rest of the row by another one through the scratch.

    Plan: kernel and plan of the whole blocks (0: none), kernel and plan of the rest, bytes of the whole blocks, numbers
    of the rest, bytes of scratch that the two need.
    """
    if i64(plan, 0) != 0:
        call7(i64(plan, 0), i64(plan, 1), x, x_stride, count, y, y_stride, scratch)
    place = scratch + i64(plan, 6)
    done = 0
    while done < count:
        rows = min(64, count - done)
        call7(i64(plan, 2), i64(plan, 3), x + done * x_stride, x_stride, rows, place, BYTES, scratch)
        for row in range(rows):
            store_first(y + (done + row) * y_stride + i64(plan, 4), load(place + row * BYTES), i64(plan, 5))
        done += rows
