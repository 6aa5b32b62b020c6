"""Single weights at small batches: two registers hold the numbers of a table of columns, and a permute fetches for each
lane its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..layout import Counts, Layout, Pair
from ..order import TABLE, WIDTH
from ..pack import Arrangement, Number, Packed, blocks_of, lists_of, living, starts_of
from ..processor import Processor

LEFT = 0.8  # nanoseconds of a weight that found no slot, for each input


class Permuted(Layout):
    """A step is one slot of a table; its own counts are the slots of a table and the weights that found none."""

    label = "permuted weights"

    def runs_on(self, processor: Processor) -> bool:
        return processor.permute

    def pack(self, weight: Tensor, arrangement: Arrangement) -> Packed:
        """Tables with as many slots a lane as cost least, and what is left over."""
        chosen = living(weight, arrangement)
        tall = blocks_of(weight, arrangement, chosen)
        cells = _cells(tall)
        tables, full = cells.shape[1], cells != 0
        place = full.cumsum(-1) - 1  # the slot of each weight
        slots = _best_slots(torch.bincount(full.sum(-1).flatten(), minlength=1), len(chosen) * tables)
        values = torch.zeros(len(chosen), tables, slots, WIDTH, dtype=torch.float32, device="cpu")
        lanes = torch.zeros(len(chosen), tables, slots, WIDTH, dtype=torch.uint8, device="cpu")
        block, number, lane, column = (full & (place < slots)).nonzero(as_tuple=True)
        slot = place[block, number, lane, column]
        values[block, number, slot, lane] = cells[block, number, lane, column]
        lanes[block, number, slot, lane] = column.to(torch.uint8)
        block, number, lane, column = (full & (place >= slots)).nonzero(as_tuple=True)
        left = cells[block, number, lane, column].contiguous()
        starts = starts_of(torch.bincount(block, minlength=len(chosen)))
        return self.packed(
            values, chosen, weight.shape[1], arrangement, lanes, Number(slots), starts, lane.to(torch.int32),
            (number * TABLE + column).to(torch.int32), left, scratch=8 * 4 * tables * TABLE,
        )  # fmt: skip

    def unpack(self, values: Tensor, more: Sequence[Tensor], blocks: int, columns: int) -> Tensor:
        lanes, starts, rows, numbers, left = more[:5]
        found = values.new_zeros(blocks, values.shape[1], WIDTH, TABLE)
        found.scatter_add_(3, lanes.transpose(2, 3).long(), values.transpose(2, 3))  # empty slots add zeros
        found = found.transpose(1, 2).reshape(blocks, WIDTH, values.shape[1] * TABLE)
        found[lists_of(starts), rows.long(), numbers.long()] = left
        return found[..., :columns]

    def count(self, full: Tensor) -> tuple[int, ...]:
        cells = _cells(full)
        histogram = torch.bincount(cells.sum(-1).flatten(), minlength=1)
        slots = _best_slots(histogram, len(full) * cells.shape[1])
        more = (torch.arange(len(histogram), dtype=torch.int64, device="cpu") - slots).clamp(min=0)
        return slots, int((more * histogram).sum())

    def steps(self, counts: Counts) -> float:
        slots, _ = counts.own[Permuted]
        return counts.block_rows * -(-counts.columns // TABLE) * slots

    def read(self, counts: Counts) -> float:
        _, left = counts.own[Permuted]
        return self.steps(counts) * (WIDTH * self.size + WIDTH) + 12 * left

    def compute(self, counts: Counts, inputs: int, costs: Pair) -> float:
        _, left = counts.own[Permuted]
        return super().compute(counts, inputs, costs) + left * LEFT * inputs

    def kernel(self) -> Callable[..., None]:
        return _kernel(self.weights == "bfloat16")


LAYOUTS = (
    Permuted("permuted", ("float32",), (1.1, 0.42)),
    Permuted("permuted_bfloat16", ("bfloat16", "int8"), (0.9, 0.42), "bfloat16"),
)


def _cells(tall: Tensor) -> Tensor:
    """(blocks, WIDTH, columns) -> (blocks, tables, WIDTH, TABLE), zeros in the padding."""
    padded = torch.nn.functional.pad(tall, (0, -tall.shape[2] % TABLE))
    return padded.view(len(tall), WIDTH, padded.shape[2] // TABLE, TABLE).permute(0, 2, 1, 3)


def _best_slots(counts: Tensor, tables: int) -> int:
    """How many weights a lane of a table has room for, so that slots and what is left over cost least together.

    counts[n]: lanes of tables with n weights. A slot costs about 1.6 cycles a table, a left-over weight 2.5.
    """
    n = torch.arange(len(counts), dtype=torch.int64, device="cpu")
    costs = [1.6 * s * tables + 2.5 * float(((n - s).clamp(min=0) * counts).sum()) for s in range(1, len(counts) + 1)]
    return 1 + min(range(len(costs)), key=costs.__getitem__)


def _kernel(half: bool) -> Callable[..., None]:
    """Of float32 or (`half`) bfloat16 weights; left-over weights are float32."""
    from numba import njit

    from ..products import BIAS, BLOCKS, COLUMNS, MORE, WEIGHTS, WHERE, fill_absent
    from ..tiles import permuted_tile
    from ..vector import BYTES, f32, i32, i64, put_f32

    LANES, SLOTS, LEFT_STARTS, LEFT_ROWS, LEFT_COLUMNS, LEFT_VALUES = range(MORE, MORE + 6)
    size = BYTES // 2 if half else BYTES
    p1, p2, p4, p8 = (permuted_tile(n, 1, half) for n in (1, 2, 4, 8))
    p1_four, p2_two = permuted_tile(1, 4, half), permuted_tile(2, 2, half)

    @njit
    def left_over(plan, block, x, x_stride, rows, y, y_stride):
        """Weights beyond a table's slots, one by one."""
        lanes, numbers, values = i64(plan, LEFT_ROWS), i64(plan, LEFT_COLUMNS), i64(plan, LEFT_VALUES)
        starts = i64(plan, LEFT_STARTS)
        for e in range(i64(starts, block), i64(starts, block + 1)):
            lane, column, value = i32(lanes, e), i32(numbers, e), f32(values, e)
            for r in range(rows):
                put_f32(y + r * y_stride, lane, f32(y + r * y_stride, lane) + value * f32(x + r * x_stride, column))

    def permuted(plan, x, x_stride, count, y, y_stride, scratch):
        """Single weights by permutes. x is read up to a multiple of TABLE columns; scratch: 8 rows of that."""
        values, lanes, slots = i64(plan, WEIGHTS), i64(plan, LANES), i64(plan, SLOTS)
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
                    left_over(plan, b + q, scratch, width, rows, place + i64(where, b + q), y_stride)
                b += side
            done += rows

    return permuted
