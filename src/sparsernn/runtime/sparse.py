"""Products with sparse matrices; arguments and plans as in products.py.

`blocks`: WIDTH x 1 blocks, the weights of one column for WIDTH rows, the column's number broadcast. `rows`: single
weights, row by row, the batch as the vector. `permuted`: single weights at small batches, where two registers hold
the numbers of TABLE columns and a permute fetches for each lane its own.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from .processor import processor
from .products import BIAS, BLOCKS, COLUMNS, MORE, WEIGHTS, WHERE, fill_absent
from .tiles import ENTRIES, TABLE, block_tile, permuted_tile, row_tile, transpose
from .vector import BYTES, WIDTH, f32, i32, i64, load, put_f32, store

# Further fields of a plan.
NUMBERS, STARTS, SLOTS, LEFT_STARTS, LEFT_ROWS, LEFT_COLUMNS, LEFT_VALUES = range(MORE, MORE + 7)

MOST = 12 if WIDTH != 8 else 6  # inputs of one tile: two sums each must fit into the registers

_one_vector = row_tile(1)
_two_vectors = row_tile(2)


@njit
def _side_by_side(x, x_stride, rows, columns, target, width):
    """Input n's number of column c goes to target[c * width + n]."""
    for n in range(rows):
        for c in range(columns):
            put_f32(target + n * 4, c * width, f32(x + n * x_stride, c))


def _blocks(half: bool) -> Callable[..., None]:
    """The kernel of WIDTH x 1 blocks, of float32 or (`half`) bfloat16 weights."""
    b1, b2, b3, b4, b5, b6 = (block_tile(n, 1, half) for n in range(1, 7))
    b7, b8, b9, b10, b11, b12 = (block_tile(n, 1, half) for n in range(7, 13)) if MOST == 12 else (b6,) * 6
    b1_four = block_tile(1, 4, half)

    @njit
    def block(rows, values, numbers, starts, x, y, y_stride, where, start, start_stride):
        if rows == 1:
            b1(values, numbers, starts, x, y, y_stride, where, start, start_stride)
        elif rows == 2:
            b2(values, numbers, starts, x, y, y_stride, where, start, start_stride)
        elif rows == 3:
            b3(values, numbers, starts, x, y, y_stride, where, start, start_stride)
        elif rows == 4:
            b4(values, numbers, starts, x, y, y_stride, where, start, start_stride)
        elif rows == 5:
            b5(values, numbers, starts, x, y, y_stride, where, start, start_stride)
        elif rows == 6:
            b6(values, numbers, starts, x, y, y_stride, where, start, start_stride)
        elif rows == 7:
            b7(values, numbers, starts, x, y, y_stride, where, start, start_stride)
        elif rows == 8:
            b8(values, numbers, starts, x, y, y_stride, where, start, start_stride)
        elif rows == 9:
            b9(values, numbers, starts, x, y, y_stride, where, start, start_stride)
        elif rows == 10:
            b10(values, numbers, starts, x, y, y_stride, where, start, start_stride)
        elif rows == 11:
            b11(values, numbers, starts, x, y, y_stride, where, start, start_stride)
        else:
            b12(values, numbers, starts, x, y, y_stride, where, start, start_stride)

    def blocks(plan, x, x_stride, count, y, y_stride, scratch):
        """WIDTH x 1 blocks. Scratch: columns x MOST floats."""
        values, numbers, starts = i64(plan, WEIGHTS), i64(plan, NUMBERS), i64(plan, STARTS)
        total, columns, where, bias = i64(plan, BLOCKS), i64(plan, COLUMNS), i64(plan, WHERE), i64(plan, BIAS)
        if bias != 0:
            fill_absent(plan, bias, count, y, y_stride)
        start = bias if bias != 0 else y
        start_stride = 0 if bias != 0 else y_stride
        if count == 1:
            # Four block rows at once: eight sums hide the latency that two would wait for.
            b = 0
            while b + 4 <= total:
                b1_four(values, numbers, starts + b * 8, x, y, y_stride, where + b * 8, start, start_stride)
                b += 4
            while b < total:
                b1(values, numbers, starts + b * 8, x, y, y_stride, where + b * 8, start, start_stride)
                b += 1
            return
        tiles = (count + MOST - 1) // MOST
        done = 0
        for t in range(tiles):
            # Even shares: 13 inputs are 7 and 6, not 12 and a lonely one.
            rows = (count - done + tiles - t - 1) // (tiles - t)
            _side_by_side(x + done * x_stride, x_stride, rows, columns, scratch, rows)
            for b in range(total):
                block(
                    rows, values, numbers, starts + b * 8, scratch, y + done * y_stride, y_stride, where + b * 8,
                    start + done * start_stride, start_stride,
                )  # fmt: skip
            done += rows

    return blocks


blocks = _blocks(False)
blocks_bfloat16 = _blocks(True)


def rows(plan, x, x_stride, count, y, y_stride, scratch):
    """Single weights, row by row. Scratch: 2 x (columns + WIDTH) vectors."""
    groups, starts = i64(plan, WEIGHTS), i64(plan, STARTS)
    total, columns, where, bias = i64(plan, BLOCKS), i64(plan, COLUMNS), i64(plan, WHERE), i64(plan, BIAS)
    if bias != 0:
        fill_absent(plan, bias, count, y, y_stride)
    start = bias if bias != 0 else y
    start_stride = 0 if bias != 0 else y_stride
    square = scratch + 2 * BYTES * columns
    done = 0
    while done < count:
        vectors = 2 if count - done > WIDTH else 1
        lanes = min(vectors * WIDTH, count - done)
        _side_by_side(x + done * x_stride, x_stride, lanes, columns, scratch, vectors * WIDTH)
        for b in range(total):
            for n in range(WIDTH):
                first = i64(starts, b * WIDTH + n)
                more = i64(starts, b * WIDTH + n + 1) - first
                place = groups + first * (8 * ENTRIES)
                if vectors == 2:
                    _two_vectors(place, more, scratch, square + n * BYTES, WIDTH * BYTES)
                else:
                    _one_vector(place, more, scratch, square + n * BYTES, WIDTH * BYTES)
            offset = i64(where, b)
            for v in range(vectors):
                transpose(square + v * WIDTH * BYTES)
            for lane in range(lanes):
                begin = load(start + (done + lane) * start_stride + offset)
                store(y + (done + lane) * y_stride + offset, begin + load(square + lane * BYTES))
        done += lanes


if processor().permute:

    @njit
    def _left_over(plan, block, x, x_stride, rows, y, y_stride):
        """Weights beyond a table's slots, one by one."""
        lanes, numbers, values = i64(plan, LEFT_ROWS), i64(plan, LEFT_COLUMNS), i64(plan, LEFT_VALUES)
        starts = i64(plan, LEFT_STARTS)
        for e in range(i64(starts, block), i64(starts, block + 1)):
            lane, column, value = i32(lanes, e), i32(numbers, e), f32(values, e)
            for r in range(rows):
                put_f32(y + r * y_stride, lane, f32(y + r * y_stride, lane) + value * f32(x + r * x_stride, column))

    def _permuted(half: bool) -> Callable[..., None]:
        """The kernel of permuted weights, float32 or (`half`) bfloat16; left-over weights are float32."""
        size = BYTES // 2 if half else BYTES
        p1, p2, p4, p8 = (permuted_tile(n, 1, half) for n in (1, 2, 4, 8))
        p1_four, p2_two = permuted_tile(1, 4, half), permuted_tile(2, 2, half)

        def permuted(plan, x, x_stride, count, y, y_stride, scratch):
            """Single weights by permutes. x is read up to a multiple of TABLE columns; scratch: 8 rows of that."""
            values, lanes, slots = i64(plan, WEIGHTS), i64(plan, NUMBERS), i64(plan, SLOTS)
            total, columns, where, bias = i64(plan, BLOCKS), i64(plan, COLUMNS), i64(plan, WHERE), i64(plan, BIAS)
            if bias != 0:
                fill_absent(plan, bias, count, y, y_stride)
            start = bias if bias != 0 else y
            start_stride = 0 if bias != 0 else y_stride
            tables = (columns + TABLE - 1) // TABLE
            width = tables * TABLE * 4
            done = 0
            while done < count:
                left = count - done
                rows = 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1
                # A copy, because the last table reads beyond the row's end.
                for r in range(rows):
                    for c in range(columns):
                        put_f32(scratch + r * width, c, f32(x + (done + r) * x_stride, c))
                    for c in range(columns, tables * TABLE):
                        put_f32(scratch + r * width, c, 0.0)
                place, base = y + done * y_stride, start + done * start_stride
                b = 0
                while b < total:
                    first = b * tables * slots
                    v, n, at = values + first * size, lanes + first * WIDTH, where + b * 8
                    side = 1
                    if rows == 8:
                        p8(v, n, tables, slots, scratch, width, place, y_stride, at, base, start_stride)
                    elif rows == 4:
                        p4(v, n, tables, slots, scratch, width, place, y_stride, at, base, start_stride)
                    elif rows == 2:
                        if b + 2 <= total:
                            p2_two(v, n, tables, slots, scratch, width, place, y_stride, at, base, start_stride)
                            side = 2
                        else:
                            p2(v, n, tables, slots, scratch, width, place, y_stride, at, base, start_stride)
                    elif b + 4 <= total:
                        p1_four(v, n, tables, slots, scratch, width, place, y_stride, at, base, start_stride)
                        side = 4
                    else:
                        p1(v, n, tables, slots, scratch, width, place, y_stride, at, base, start_stride)
                    for q in range(side):
                        _left_over(plan, b + q, scratch, width, rows, place + i64(where, b + q), y_stride)
                    b += side
                done += rows

        return permuted

    permuted = _permuted(False)
    permuted_bfloat16 = _permuted(True)
