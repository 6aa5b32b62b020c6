"""Dense panels: some blocks of rows side by side for each column, every weight multiplied."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..layout import Counts, Layout
from ..order import PANEL, WIDTH
from ..pack import Arrangement, Packed, blocks_of, from_panels, living

# Tiles of 4 x 6 accumulators, 4 weights and a broadcast fill the 32 registers of AVX-512 and NEON. AVX2 has 16, for
# 2 x 6; its panels of two blocks are one cache line a column.
TALL = 6
CHUNK = 384 // PANEL  # columns whose panel (12 to 24 KiB) stays in the L1 cache while all rows pass


class Panel(Layout):
    """A step is one column of one block of rows."""

    label, surest, density = "dense panel", True, 1.0

    def pack(self, weight: Tensor, arrangement: Arrangement) -> Packed:
        """Panels of PANEL blocks, left-over blocks one by one."""
        chosen = living(weight, arrangement)
        tall = blocks_of(weight, arrangement, chosen)
        whole = len(chosen) // PANEL * PANEL
        panels = tall[:whole].view(-1, PANEL, WIDTH, weight.shape[1]).permute(0, 3, 1, 2)
        values = torch.cat([panels.reshape(-1), tall[whole:].permute(0, 2, 1).reshape(-1)])
        return self.packed(values, chosen, weight.shape[1], arrangement)

    def unpack(self, values: Tensor, more: Sequence[Tensor], blocks: int, columns: int) -> Tensor:
        return from_panels(values, blocks, columns, PANEL)

    def steps(self, counts: Counts) -> float:
        return counts.block_rows * counts.columns

    def read(self, counts: Counts) -> float:
        return self.steps(counts) * WIDTH * self.size

    def moved(self, inputs: int) -> int:
        return 0

    def kernel(self) -> Callable[..., None]:
        return _kernel(self.weights == "bfloat16")


LAYOUTS = (
    Panel("panel", ("float32",), (0.7, 0.135) if WIDTH == 16 else (0.55, 0.135)),
    Panel("panel_bfloat16", ("bfloat16",), (0.34, 0.135), "bfloat16"),
)


def _kernel(half: bool) -> Callable[..., None]:
    """Of float32 or (`half`) bfloat16 weights."""
    from numba import njit

    from ..products import BIAS, BLOCKS, COLUMNS, WEIGHTS, WHERE, fill_absent
    from ..tiles import dense_tile
    from ..vector import BYTES, i64

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
