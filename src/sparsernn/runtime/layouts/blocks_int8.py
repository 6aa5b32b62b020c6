"""WIDTH x 4 blocks of int8: the words of WIDTH rows, of those columns that have any weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..held import Numbers
from ..layout import Counts
from ..order import WIDTH
from ..pack import Arrangement, Packed, lists_of, starts_of
from ..words import MOST, WordLayout, rows_of_words

SIDE = 12  # inputs of one tile


class BlocksInt8(WordLayout):
    """A step is one block."""

    label, tall = f"{WIDTH}x4 blocks", True

    def pack(self, weight: Numbers, arrangement: Arrangement) -> Packed:
        """Those with a non-zero weight, block row by block row."""
        chosen, words, scales, shifts = self.words(weight, arrangement)
        full = words.flatten(2).any(2)
        block, number = full.nonzero(as_tuple=True)
        values, starts = words[block, number].contiguous(), starts_of(full.sum(1))
        fields = (scales, shifts, number.to(torch.int32), starts)
        return self.of_words(values, chosen, weight.shape[1], arrangement, *fields)

    def unpack(self, values: Tensor, more: Sequence[Tensor], blocks: int, columns: int) -> Tensor:
        _, _, numbers, starts = more[:4]
        words = values.new_zeros(blocks, -(-columns // 4), WIDTH * 4)
        words[lists_of(starts), numbers.long()] = values.flatten(1)
        return rows_of_words(words, columns)

    def steps(self, counts: Counts) -> float:
        return counts.words

    def read(self, counts: Counts) -> float:
        return counts.words * (4 * WIDTH + 4)

    def kernel(self) -> Callable[..., None]:
        return _kernel()


LAYOUTS = (BlocksInt8("blocks_int8", ("int8",), (1.0, 0.27), "int8"),)


def _kernel() -> Callable[..., None]:
    from numba import njit

    from ..products import BIAS, BLOCKS, COLUMNS, WEIGHTS, WHERE, fill_absent
    from ..vector import BYTES, f32, i64, put_f32
    from ..word_tiles import INPUTS, MORE, SCALES, SHIFTS, block_tile, take_in

    NUMBERS, STARTS = range(MORE, MORE + 2)
    b1, b2, b3, b4, b5, b6 = (block_tile(n) for n in range(1, 7))
    b7, b8, b9, b10, b11, b12 = (block_tile(n) for n in range(7, 13))

    @njit
    def block(rows, w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift):
        if rows == 1:
            b1(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
        elif rows == 2:
            b2(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
        elif rows == 3:
            b3(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
        elif rows == 4:
            b4(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
        elif rows == 5:
            b5(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
        elif rows == 6:
            b6(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
        elif rows == 7:
            b7(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
        elif rows == 8:
            b8(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
        elif rows == 9:
            b9(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
        elif rows == 10:
            b10(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
        elif rows == 11:
            b11(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)
        else:
            b12(w, n, more, q, own, y, y_stride, at, begin, begin_stride, scale, shift)

    @njit
    def side_by_side(x, stride, rows, words, target):
        """Word n of row r goes to target + 4 (n rows + r)."""
        for r in range(rows):
            for n in range(words):
                put_f32(target + 4 * r, n * rows, f32(x + r * stride, n))

    def blocks(plan, x, x_stride, count, y, y_stride, scratch):
        """WIDTH x 4 blocks of int8. Scratch: MOST rows of bytes and MOST floats."""
        words, inputs, total = i64(plan, COLUMNS), i64(plan, INPUTS), i64(plan, BLOCKS)
        weights, where, bias = i64(plan, WEIGHTS), i64(plan, WHERE), i64(plan, BIAS)
        scales, shifts, numbers, starts = i64(plan, SCALES), i64(plan, SHIFTS), i64(plan, NUMBERS), i64(plan, STARTS)
        stride = (inputs + 63) // 64 * 64
        own = scratch + MOST * stride
        if bias != 0:
            fill_absent(plan, bias, count, y, y_stride)
        start = bias if bias != 0 else y
        start_stride = 0 if bias != 0 else y_stride
        tiles = (count + SIDE - 1) // SIDE
        done = 0
        for t in range(tiles):
            # Even shares: 13 inputs are 7 and 6, not 12 and a lonely one.
            rows = (count - done + tiles - t - 1) // (tiles - t)
            take_in(x + done * x_stride, x_stride, rows, inputs, stride, scratch, own)
            q = scratch
            if rows > 1:
                q = scratch + SIDE * stride
                side_by_side(scratch, stride, rows, words, q)
            place, begin = y + done * y_stride, start + done * start_stride
            for b in range(total):
                first = i64(starts, b)
                block(
                    rows, weights + first * BYTES, numbers + first * 4, i64(starts, b + 1) - first, q, own, place,
                    y_stride, where + b * 8, begin, start_stride, scales + b * BYTES, shifts + b * BYTES,
                )  # fmt: skip
            done += rows

    return blocks
