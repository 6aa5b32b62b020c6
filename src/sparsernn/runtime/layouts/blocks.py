"""WIDTH x 1 blocks: the weights of one column for WIDTH rows, of those columns that have any; the column's number is
broadcast."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..layout import Counts, Layout
from ..order import WIDTH
from ..pack import Arrangement, Packed, blocks_of, lists_of, living, starts_of

MOST = 12 if WIDTH != 8 else 6  # inputs of one tile: two sums each must fit into the registers


class Blocks(Layout):
    """A step is one block."""

    label, tall = f"{WIDTH}x1 blocks", True

    def pack(self, weight: Tensor, arrangement: Arrangement) -> Packed:
        """Those with a non-zero weight, block row by block row, each list of even length."""
        chosen = living(weight, arrangement)
        tall = blocks_of(weight, arrangement, chosen)  # (blocks, WIDTH, columns)
        full = (tall != 0).any(1)
        # A list of odd length gets one block of zeros, at a column that it has anyway.
        counts = full.sum(1)
        odd = (counts % 2 == 1).nonzero().view(-1)
        block, column = full.nonzero(as_tuple=True)
        last = counts.cumsum(0) - 1
        order = torch.cat([block * 2, odd * 2 + 1]).argsort(stable=True)
        columns = torch.cat([column, column[last[odd]]])[order].to(torch.int32).contiguous()
        values = torch.cat([tall[block, :, column], tall.new_zeros(len(odd), WIDTH)])[order].contiguous()
        starts, inputs = starts_of(counts + counts % 2), weight.shape[1]
        return self.packed(values, chosen, inputs, arrangement, columns, starts, scratch=4 * 12 * inputs)

    def unpack(self, values: Tensor, more: Sequence[Tensor], blocks: int, columns: int) -> Tensor:
        numbers, starts = more[:2]
        found = values.new_zeros(blocks, columns, WIDTH)
        found.index_put_((lists_of(starts), numbers.long()), values, accumulate=True)  # the odd ones add zeros
        return found.transpose(1, 2)

    def steps(self, counts: Counts) -> float:
        return counts.blocks

    def read(self, counts: Counts) -> float:
        return counts.blocks * (WIDTH * self.size + 4)

    def moved(self, inputs: int) -> int:
        return inputs if inputs > 1 else 0

    def kernel(self) -> Callable[..., None]:
        return _kernel(self.weights == "bfloat16")


LAYOUTS = (
    Blocks("blocks", ("float32",), (0.85, 0.31) if WIDTH == 16 else (1.15, 0.31)),
    Blocks("blocks_bfloat16", ("bfloat16",), (0.77, 0.31), "bfloat16"),
)


def _kernel(half: bool) -> Callable[..., None]:
    """Of float32 or (`half`) bfloat16 weights."""
    from numba import njit

    from ..products import BIAS, BLOCKS, COLUMNS, MORE, WEIGHTS, WHERE, fill_absent, side_by_side
    from ..tiles import block_tile
    from ..vector import i64

    NUMBERS, STARTS = range(MORE, MORE + 2)
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
            side_by_side(x + done * x_stride, x_stride, rows, columns, scratch, rows)
            for b in range(total):
                block(
                    rows, values, numbers, starts + b * 8, scratch, y + done * y_stride, y_stride, where + b * 8,
                    start + done * start_stride, start_stride,
                )  # fmt: skip
            done += rows

    return blocks
