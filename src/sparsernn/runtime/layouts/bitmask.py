"""All columns, but only the weights that are there: of matrices of which a fifth to a half is left.

A vector of WIDTH rows and one column is a bit mask and its non-zero weights; these are read side by side and spread
over the lanes of the mask inside the registers. Four block rows share a column's mask word and one stream of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..layout import Counts, Layout
from ..order import WIDTH
from ..pack import Arrangement, Packed, blocks_of, from_panels, living, starts_of
from ..processor import Processor

SIDE = 4  # block rows that share a mask word


class Bitmask(Layout):
    """A step is one column of a block of rows with its mask."""

    label, density = "bit masks", 0.4

    def runs_on(self, processor: Processor) -> bool:
        return processor.expand

    def pack(self, weight: Tensor, arrangement: Arrangement) -> Packed:
        """Block rows in fours, then the rest."""
        chosen = living(weight, arrangement)
        tall = blocks_of(weight, arrangement, chosen)
        fours = len(chosen) // SIDE * SIDE
        masks, values, counts = [], [], []
        for cells in (tall[:fours].view(-1, SIDE, WIDTH, weight.shape[1]), tall[fours:].unsqueeze(1)):
            cells = cells.permute(0, 3, 1, 2).contiguous()  # (groups, columns, block rows side by side, lanes)
            full = cells != 0
            masks.append(torch.from_numpy(np.packbits(full.view(-1, 8).numpy(), axis=1, bitorder="little")).view(-1))
            values.append(cells[full])
            counts.append(full.flatten(1).sum(1))
        stream = torch.cat([*values, weight.new_zeros(WIDTH)])  # the last vector reads beyond the last weight
        starts = starts_of(torch.cat(counts)) * self.size
        return self.packed(stream, chosen, weight.shape[1], arrangement, torch.cat(masks), starts)

    def unpack(self, values: Tensor, more: Sequence[Tensor], blocks: int, columns: int) -> Tensor:
        full = torch.from_numpy(np.unpackbits(more[0].numpy(), bitorder="little").view(bool))
        found = values.new_zeros(len(full))
        found[full] = values[:-WIDTH]
        return from_panels(found, blocks, columns, SIDE)

    def steps(self, counts: Counts) -> float:
        return counts.block_rows * counts.columns

    def read(self, counts: Counts) -> float:
        return self.steps(counts) * (WIDTH // 8) + counts.weights * self.size

    def moved(self, inputs: int) -> int:
        return 0

    def kernel(self) -> Callable[..., None]:
        return _kernel(self.weights == "bfloat16")


LAYOUTS = (
    Bitmask("bitmask", ("float32",), (0.92, 0.43) if WIDTH == 16 else (0.95, 0.75)),
    Bitmask("bitmask_bfloat16", ("bfloat16", "int8"), (0.95, 0.44) if WIDTH == 16 else (0.95, 0.75), "bfloat16"),
)


def _kernel(half: bool) -> Callable[..., None]:
    """Of float32 or (`half`) bfloat16 weights."""
    from numba import njit

    from ..mask_tiles import mask_tile
    from ..products import BIAS, BLOCKS, COLUMNS, MORE, WEIGHTS, WHERE, fill_absent
    from ..vector import BYTES, i64

    MASKS, STARTS = range(MORE, MORE + 2)
    four_one, four_two = mask_tile(1, SIDE, half), mask_tile(2, SIDE, half)
    # Four inputs fill the registers of AVX-512; AVX2 has half as many.
    four_most = mask_tile(4, SIDE, half) if WIDTH == 16 else four_two
    most = 4 if WIDTH == 16 else 2
    one_one, one_two = mask_tile(1, 1, half), mask_tile(2, 1, half)

    @njit
    def left_over(values, masks, columns, x, x_stride, count, y, y_stride, where, start, start_stride):
        row = 0
        while row + 2 <= count:
            one_two(
                values, masks, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip
            row += 2
        if row < count:
            one_one(
                values, masks, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip

    @njit
    def group(values, masks, columns, x, x_stride, count, y, y_stride, where, start, start_stride):
        row = 0
        while row + most <= count:
            four_most(
                values, masks, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip
            row += most
        while row + 2 <= count:
            four_two(
                values, masks, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip
            row += 2
        if row < count:
            four_one(
                values, masks, columns, x + row * x_stride, x_stride, y + row * y_stride, y_stride, where,
                start + row * start_stride, start_stride,
            )  # fmt: skip

    def bitmask(plan, x, x_stride, count, y, y_stride, scratch):
        """Bit masks and the weights that are there."""
        values, masks, starts = i64(plan, WEIGHTS), i64(plan, MASKS), i64(plan, STARTS)
        total, columns, where, bias = i64(plan, BLOCKS), i64(plan, COLUMNS), i64(plan, WHERE), i64(plan, BIAS)
        if bias != 0:
            fill_absent(plan, bias, count, y, y_stride)
        start = bias if bias != 0 else y
        start_stride = 0 if bias != 0 else y_stride
        groups = total // SIDE
        for n in range(groups):
            group(
                values + i64(starts, n), masks + n * columns * (BYTES // 8), columns, x, x_stride, count, y, y_stride,
                where + n * (8 * SIDE), start, start_stride,
            )  # fmt: skip
        for n in range(total - groups * SIDE):
            left_over(
                values + i64(starts, groups + n),
                masks + groups * columns * (BYTES // 8) + n * columns * (BYTES // 32), columns, x, x_stride, count,
                y, y_stride, where + (groups * SIDE + n) * 8, start, start_stride,
            )  # fmt: skip

    return bitmask
