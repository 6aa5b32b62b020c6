"""Dense products y = W x for many rows x at once, from weights packed in panels.

Every product kernel has the same seven int64 arguments: `plan` (address of the packed matrix: int64 fields, below),
`x` and `x_stride` (address and bytes from row to row), `count` (rows of x), `y` and `y_stride`, and `scratch` (address
of as many bytes as the packing asks for; a thread needs its own). The output row is
made of blocks of WIDTH numbers; `where` tells at which byte of a row of y each block of the matrix belongs. With a
`bias` the sums start from it and whole rows of y are written (blocks that the matrix lacks get their bias); without
one they start from y itself, which is how the recurrent product adds to the input product.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from .tiles import dense_tile
from .vector import BYTES, WIDTH, call7, f32, i64, load, put_f32, store, store_first

# Fields of a plan, in this order.
WEIGHTS, BLOCKS, COLUMNS, WHERE, BIAS, ABSENT, ABSENT_COUNT, MORE = range(8)

# Tiles of 4 x 6 accumulators, 4 weights and a broadcast fill the 32 registers of AVX-512 and NEON; AVX2 has 16.
TALL = 6 if WIDTH != 8 else 2
PANEL = 4
CHUNK = 96  # columns whose panel (24 KiB) stays in the L1 cache while all rows pass


@njit
def fill_absent(plan, bias, count, y, y_stride):
    """Blocks of y that the matrix does not have get their bias."""
    absent = i64(plan, ABSENT)
    for a in range(i64(plan, ABSENT_COUNT)):
        offset = i64(absent, a)
        value = load(bias + offset)
        for row in range(count):
            store(y + row * y_stride + offset, value)


def _panels(half: bool) -> Callable[..., None]:
    """The kernel of dense panels, of float32 or (`half`) bfloat16 weights."""
    size = BYTES // 2 if half else BYTES
    tall = dense_tile(TALL, 4, 4, half)
    four = dense_tile(min(4, TALL), 4, 4, half)
    two = dense_tile(2, 4, 4, half)
    one = dense_tile(1, 4, 4, half)
    one_twice = dense_tile(1, 8, 4, half)
    narrow_tall = dense_tile(TALL, 1, 1, half)
    narrow_one = dense_tile(1, 1, 1, half)

    @njit
    def panel_rows(weights, columns, x, x_stride, count, y, y_stride, where, start, start_stride):
        """One panel of four blocks, `columns` columns, all rows."""
        row = 0
        while row + TALL <= count:
            tall(
                weights, 0, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip
            row += TALL
        while row + 4 <= count:
            four(
                weights, 0, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip
            row += 4
        while row + 2 <= count:
            two(
                weights, 0, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip
            row += 2
        if row < count:
            one(
                weights, 0, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip

    @njit
    def block_rows(weights, columns, x, x_stride, count, y, y_stride, where, start, start_stride):
        """One single block, all columns and rows: what is left over after the panels of four."""
        row = 0
        while row + TALL <= count:
            narrow_tall(
                weights, 0, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip
            row += TALL
        while row < count:
            narrow_one(
                weights, 0, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip
            row += 1

    def panel(plan, x, x_stride, count, y, y_stride, scratch):
        """Dense float32 panels: blocks in fours, for each column 4 x WIDTH weights; left-over blocks one by one."""
        weights = i64(plan, WEIGHTS)
        blocks = i64(plan, BLOCKS)
        columns = i64(plan, COLUMNS)
        where = i64(plan, WHERE)
        bias = i64(plan, BIAS)
        start = bias if bias != 0 else y
        start_stride = 0 if bias != 0 else y_stride
        fours = blocks // PANEL
        block_bytes = columns * size
        four_bytes = PANEL * block_bytes
        if bias != 0:
            fill_absent(plan, bias, count, y, y_stride)
        number = 0
        if count == 1:
            # Two panels at once: eight sums hide the latency that four would wait for.
            while number + 2 <= fours:
                one_twice(
                    weights + number * four_bytes, four_bytes, columns, x, x_stride, y, y_stride,
                    where + number * PANEL * 8, start, start_stride,
                )  # fmt: skip
                number += 2
        while number < fours:
            step = columns if count <= TALL else CHUNK
            done = 0
            while done == 0 or done < columns:
                width = min(step, columns - done)
                panel_rows(
                    weights + number * four_bytes + done * PANEL * size, width, x + done * 4, x_stride, count,
                    y, y_stride, where + number * PANEL * 8, start if done == 0 else y,
                    start_stride if done == 0 else y_stride,
                )  # fmt: skip
                done += max(width, 1)
            number += 1
        for block in range(fours * PANEL, blocks):
            block_rows(
                weights + block * block_bytes, columns, x, x_stride, count, y, y_stride, where + block * 8,
                start, start_stride,
            )  # fmt: skip

    return panel


panel = _panels(False)
panel_bfloat16 = _panels(True)


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
