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

from .order import PANEL
from .tiles import dense_tile
from .vector import BYTES, call7, f32, i64, load, put_f32, store, store_first

# Fields of a plan, in this order.
WEIGHTS, BLOCKS, COLUMNS, WHERE, BIAS, ABSENT, ABSENT_COUNT, MORE = range(8)

# Tiles of 4 x 6 accumulators, 4 weights and a broadcast fill the 32 registers of AVX-512 and NEON. AVX2 has 16, for
# 2 x 6; its panels of two blocks are one cache line a column.
TALL = 6
CHUNK = 384 // PANEL  # columns whose panel (12 to 24 KiB) stays in the L1 cache while all rows pass


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
    one, two, three, four, five, six = (dense_tile(rows, PANEL, PANEL, half) for rows in range(1, TALL + 1))
    # Several panels at once: eight sums hide the latency that fewer would wait for.
    one_wide, two_wide = dense_tile(1, 8, PANEL, half), dense_tile(2, 4, PANEL, half)
    narrow_tall, narrow_two, narrow_one = (dense_tile(rows, 1, 1, half) for rows in (TALL, 2, 1))

    @njit
    def panel_rows(weights, columns, x, x_stride, count, y, y_stride, where, start, start_stride):
        """One panel, `columns` columns, all rows: sixes, and at the end what has the most sums at once."""
        row = 0
        while count - row >= TALL + 3 or count - row == TALL:
            six(
                weights, 0, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip
            row += TALL
        if count - row > TALL:
            four(
                weights, 0, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip
            row += 4
        left = count - row
        x, y, start = x + row * x_stride, y + row * y_stride, start + row * start_stride
        if left == 5:
            five(weights, 0, columns, x, x_stride, y, y_stride, where, start, start_stride)
        elif left == 4:
            four(weights, 0, columns, x, x_stride, y, y_stride, where, start, start_stride)
        elif left == 3:
            three(weights, 0, columns, x, x_stride, y, y_stride, where, start, start_stride)
        elif left == 2:
            two(weights, 0, columns, x, x_stride, y, y_stride, where, start, start_stride)
        elif left == 1:
            one(weights, 0, columns, x, x_stride, y, y_stride, where, start, start_stride)

    @njit
    def block_rows(weights, columns, x, x_stride, count, y, y_stride, where, start, start_stride):
        """One single block, all columns and rows: what is left over after the panels."""
        row = 0
        while row + TALL <= count:
            narrow_tall(
                weights, 0, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip
            row += TALL
        while row + 2 <= count:
            narrow_two(
                weights, 0, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip
            row += 2
        if row < count:
            narrow_one(
                weights, 0, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip

    def panel(plan, x, x_stride, count, y, y_stride, scratch):
        """Dense float32 panels: PANEL blocks side by side for each column; left-over blocks one by one."""
        weights = i64(plan, WEIGHTS)
        blocks = i64(plan, BLOCKS)
        columns = i64(plan, COLUMNS)
        where = i64(plan, WHERE)
        bias = i64(plan, BIAS)
        start = bias if bias != 0 else y
        start_stride = 0 if bias != 0 else y_stride
        block_bytes = columns * size
        panel_bytes = PANEL * block_bytes
        if bias != 0:
            fill_absent(plan, bias, count, y, y_stride)
        block = 0
        if count == 1:
            while block + 8 <= blocks:
                one_wide(
                    weights + block * block_bytes, panel_bytes, columns, x, x_stride, y, y_stride, where + block * 8,
                    start, start_stride,
                )  # fmt: skip
                block += 8
        if count == 2:
            while block + 4 <= blocks:
                two_wide(
                    weights + block * block_bytes, panel_bytes, columns, x, x_stride, y, y_stride, where + block * 8,
                    start, start_stride,
                )  # fmt: skip
                block += 4
        while block + PANEL <= blocks:
            step = columns if count <= TALL else CHUNK
            done = 0
            while done == 0 or done < columns:
                width = min(step, columns - done)
                panel_rows(
                    weights + block * block_bytes + done * PANEL * size, width, x + done * 4, x_stride, count,
                    y, y_stride, where + block * 8, start if done == 0 else y,
                    start_stride if done == 0 else y_stride,
                )  # fmt: skip
                done += max(width, 1)
            block += PANEL
        while block < blocks:
            block_rows(
                weights + block * block_bytes, columns, x, x_stride, count, y, y_stride, where + block * 8,
                start, start_stride,
            )  # fmt: skip
            block += 1

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
