"""Single weights, row by row: the batch is the vector."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..layout import Counts, Layout, Pair
from ..order import WIDTH
from ..pack import BYTES, Arrangement, Packed, blocks_of, lists_of, living, starts_of


class Rows(Layout):
    """A step is one weight; its costs are for every 2 WIDTH and for every WIDTH inputs, added.

    Weights go by fours, of a row as many as are needed, and to begin and end a row takes as long as four more.
    """

    label = "sparse rows"

    def pack(self, weight: Tensor, arrangement: Arrangement) -> Packed:
        """Rows in groups of four weights: their column numbers, then the weights."""
        chosen = living(weight, arrangement)
        rows = blocks_of(weight, arrangement, chosen).reshape(-1, weight.shape[1])
        row, column = rows.nonzero(as_tuple=True)
        counts = torch.bincount(row, minlength=len(rows))
        groups = -(-counts // 4)
        starts, first = starts_of(groups), starts_of(counts)
        place = torch.arange(len(row), dtype=torch.int64, device="cpu") - first[row] + 4 * starts[row]
        numbers = torch.zeros(4 * int(starts[-1]), dtype=torch.int32, device="cpu")
        values = torch.zeros(4 * int(starts[-1]), dtype=torch.float32, device="cpu")
        # Padding multiplies the row's own first column by zero.
        own = torch.repeat_interleave(torch.arange(len(rows), dtype=torch.int64, device="cpu"), 4 * groups)
        if len(column):
            numbers.copy_(column[first[own].clamp(max=len(column) - 1)])
        numbers[place], values[place] = column.to(torch.int32), rows[row, column]
        mixed = torch.cat([numbers.view(-1, 4), values.view(torch.int32).view(-1, 4)], 1).contiguous()
        inputs = weight.shape[1]
        return self.packed(mixed, chosen, inputs, arrangement, starts, scratch=2 * BYTES * (inputs + WIDTH))

    def unpack(self, values: Tensor, more: Sequence[Tensor], blocks: int, columns: int) -> Tensor:
        rows = lists_of(4 * more[0])
        numbers, weights = values[:, :4].reshape(-1).long(), values[:, 4:].contiguous().view(torch.float32).view(-1)
        found = weights.new_zeros(blocks * WIDTH, columns)
        found.index_put_((rows, numbers), weights, accumulate=True)  # padding adds zeros
        return found.view(blocks, WIDTH, columns)

    def count(self, full: Tensor) -> tuple[int, ...]:
        each = full.sum(2)
        return (int((each + 3).div(4, rounding_mode="floor").sum()) + each.numel(),)

    def steps(self, counts: Counts) -> float:
        (fours,) = counts.own[Rows]
        return 4 * fours

    def read(self, counts: Counts) -> float:
        return 8 * counts.weights

    def compute(self, counts: Counts, inputs: int, costs: Pair) -> float:
        load, use = costs
        each = load * math.ceil(inputs / 2 / WIDTH) + use * math.ceil(inputs / WIDTH)
        return 1.05 * self.steps(counts) * each

    def fitted(self, counts: Counts, one: float, many: float, inputs: int) -> Pair:
        """One group of inputs costs load + use, 2 WIDTH in two groups load + 2 use."""
        groups, pairs = math.ceil(inputs / WIDTH), math.ceil(inputs / 2 / WIDTH)
        use = max(0.0, (many - pairs * one) / max(groups - pairs, 1)) / self.steps(counts)
        return max(0.0, one / self.steps(counts) - use), use

    def kernel(self) -> Callable[..., None]:
        return _kernel()


LAYOUTS = (Rows("rows", ("float32", "bfloat16", "int8"), (0.12, 0.30)),)


def _kernel() -> Callable[..., None]:
    from ..products import BIAS, BLOCKS, COLUMNS, MORE, WEIGHTS, WHERE, fill_absent, side_by_side
    from ..tiles import ENTRIES, row_tile, transpose
    from ..vector import i64, load, store

    STARTS = MORE
    one_vector, two_vectors = row_tile(1), row_tile(2)

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
            side_by_side(x + done * x_stride, x_stride, lanes, columns, scratch, vectors * WIDTH)
            for b in range(total):
                for n in range(WIDTH):
                    first = i64(starts, b * WIDTH + n)
                    more = i64(starts, b * WIDTH + n + 1) - first
                    place = groups + first * (8 * ENTRIES)
                    if vectors == 2:
                        two_vectors(place, more, scratch, square + n * BYTES, WIDTH * BYTES)
                    else:
                        one_vector(place, more, scratch, square + n * BYTES, WIDTH * BYTES)
                offset = i64(where, b)
                for v in range(vectors):
                    transpose(square + v * WIDTH * BYTES)
                for lane in range(lanes):
                    begin = load(start + (done + lane) * start_stride + offset)
                    store(y + (done + lane) * y_stride + offset, begin + load(square + lane * BYTES))
            done += lanes

    return rows
