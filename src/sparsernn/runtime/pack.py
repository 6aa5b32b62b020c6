"""Packing: from a weight matrix to the memory that a product kernel walks through."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..structure.coded import CodedMatrix
from ..structure.grids import integers
from .compiled import address
from .order import PANEL, WIDTH, plain_order

BYTES = 4 * WIDTH


@dataclass(frozen=True)
class Arrangement:
    """Which rows of a matrix stand in which block of the output row.

    rows: (blocks, WIDTH) row numbers, -1 for padding; where: (blocks,) byte offsets in a row of the output;
    bias: the whole output row (floats) to start from, or None to add to what is there.
    """

    rows: Tensor
    where: Tensor
    bias: Tensor | None
    width: int  # floats in an output row


@dataclass(frozen=True)
class Packed:
    """A packed matrix: the name of the kernel that multiplies with it and the address of its plan."""

    layout: str
    name: str
    plan: int
    bytes: int
    scratch: int  # bytes that the kernel needs beside
    kept: tuple[Tensor, ...] = field(repr=False)

    @property
    def kernel(self) -> int:
        """Address of the kernel."""
        return address(self.name)


def unit_rows(
    hidden: int, gates: int, slots: tuple[int, ...], count: int, order: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Rows and places of a gate-stacked matrix (gates x hidden rows): block of units by block, slot by slot.

    order: (blocks x WIDTH,) unit numbers, -1 for padding; None: 0, 1, ...
    """
    blocks = -(-hidden // WIDTH)
    units = torch.from_numpy(plain_order(hidden)) if order is None else order
    units = units.view(blocks, 1, WIDTH)
    rows = units + hidden * torch.arange(gates, dtype=torch.int64, device="cpu").view(1, gates, 1)
    rows = torch.where(units >= 0, rows, -1)
    where = (
        torch.arange(blocks, dtype=torch.int64, device="cpu").view(-1, 1) * count
        + torch.tensor(slots, dtype=torch.int64, device="cpu").view(1, -1)
    ) * BYTES
    return rows.reshape(-1, WIDTH), where.reshape(-1)


def slot_row(values: Tensor, order: Tensor | None = None) -> Tensor:
    """(slots, H) -> one output row: for each block of units its slots side by side, zeros in the padding."""
    slots, hidden = values.shape
    blocks = -(-hidden // WIDTH)
    padded = torch.cat([values, values.new_zeros(slots, 1)], 1)
    padded = padded[:, torch.from_numpy(plain_order(hidden)) if order is None else order]
    return padded.view(slots, blocks, WIDTH).transpose(0, 1).reshape(-1).contiguous()


def living(weight: Tensor, arrangement: Arrangement) -> Tensor:
    """Numbers of the blocks that have a non-zero weight: the others cost nothing."""
    alive = torch.cat([(weight != 0).any(1), torch.zeros(1, dtype=torch.bool, device="cpu")])
    return alive[arrangement.rows].any(1).nonzero().view(-1)


def halves(values: Tensor) -> Tensor:
    """float32 -> the bits of the nearest bfloat16, int16."""
    return values.to(torch.bfloat16).view(torch.int16)


def pack_panels(weight: Tensor, arrangement: Arrangement, half: bool = False) -> Packed:
    """Dense panels: blocks side by side for each column, left-over blocks one by one; `half`: in bfloat16."""
    blocks = living(weight, arrangement)
    padded = torch.cat([weight, weight.new_zeros(1, weight.shape[1])])
    rows = arrangement.rows[blocks]
    whole = len(blocks) // PANEL * PANEL
    parts = [
        padded[rows[:whole]].view(-1, PANEL, WIDTH, weight.shape[1]).permute(0, 3, 1, 2).reshape(-1),
        padded[rows[whole:]].permute(0, 2, 1).reshape(-1),
    ]
    packed = torch.cat(parts)
    layout, kernel = ("dense panel", "products.panel")
    if half:
        layout, kernel, packed = f"{layout} bfloat16", f"{kernel}_bfloat16", halves(packed)
    return finish(layout, kernel, packed, len(blocks), weight.shape[1], blocks, arrangement)


def pack_blocks(weight: Tensor, arrangement: Arrangement, half: bool = False) -> Packed:
    """WIDTH x 1 blocks: those with a non-zero weight, block row by block row, each list of even length."""
    chosen = living(weight, arrangement)
    tall = _blocks_of(weight, arrangement)[chosen]  # (blocks, WIDTH, columns)
    full = (tall != 0).any(1)
    # A list of odd length gets one block of zeros, at a column that it has anyway.
    counts = full.sum(1)
    odd = (counts % 2 == 1).nonzero().view(-1)
    block, column = full.nonzero(as_tuple=True)
    last = counts.cumsum(0) - 1
    order = torch.cat([block * 2, odd * 2 + 1]).argsort(stable=True)
    columns = torch.cat([column, column[last[odd]]])[order].to(torch.int32).contiguous()
    values = torch.cat([tall[block, :, column], tall.new_zeros(len(odd), WIDTH)])[order].contiguous()
    starts = _starts(counts + counts % 2)
    layout, kernel = f"{WIDTH}x1 blocks", "sparse.blocks"
    if half:
        layout, kernel, values = f"{layout} bfloat16", f"{kernel}_bfloat16", halves(values)
    return finish(
        layout, kernel, values, len(chosen), weight.shape[1], chosen, arrangement,
        columns, starts, scratch=4 * 12 * weight.shape[1],
    )  # fmt: skip


def pack_rows(weight: Tensor, arrangement: Arrangement) -> Packed:
    """Single weights, row by row, in groups of four: column numbers, then weights."""
    chosen = living(weight, arrangement)
    rows = _blocks_of(weight, arrangement)[chosen].reshape(-1, weight.shape[1])
    row, column = rows.nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(rows))
    groups = -(-counts // 4)
    starts = _starts(groups)
    place = torch.arange(len(row), dtype=torch.int64, device="cpu") - _starts(counts)[row] + 4 * starts[row]
    numbers = torch.zeros(4 * int(starts[-1]), dtype=torch.int32, device="cpu")
    values = torch.zeros(4 * int(starts[-1]), dtype=torch.float32, device="cpu")
    # Padding multiplies the row's own first column by zero.
    own = torch.repeat_interleave(torch.arange(len(rows), dtype=torch.int64, device="cpu"), 4 * groups)
    if len(column):
        numbers.copy_(column[_starts(counts)[own].clamp(max=len(column) - 1)])
    numbers[place], values[place] = column.to(torch.int32), rows[row, column]
    mixed = torch.cat([numbers.view(-1, 4), values.view(torch.int32).view(-1, 4)], 1).contiguous()
    return finish(
        "sparse rows", "sparse.rows", mixed, len(chosen), weight.shape[1], chosen, arrangement,
        weight.new_zeros(0), starts, scratch=2 * BYTES * (weight.shape[1] + WIDTH),
    )  # fmt: skip


def pack_permuted(weight: Tensor, arrangement: Arrangement, half: bool = False) -> Packed:
    """Single weights in tables of 2 WIDTH columns, the slots that cost least, and what is left over."""
    table = 2 * WIDTH
    chosen = living(weight, arrangement)
    tall = _blocks_of(weight, arrangement)[chosen]
    tables = -(-weight.shape[1] // table)
    padded = tall.new_zeros(len(chosen), WIDTH, tables * table)
    padded[:, :, : weight.shape[1]] = tall
    cells = padded.view(len(chosen), WIDTH, tables, table).permute(0, 2, 1, 3)  # (blocks, tables, lanes, columns)
    full = cells != 0
    place = full.cumsum(-1) - 1  # the slot of each weight
    slots = best_slots(torch.bincount(full.sum(-1).view(-1), minlength=1), len(chosen) * tables)
    values = torch.zeros(len(chosen), tables, slots, WIDTH, dtype=torch.float32, device="cpu")
    lanes = torch.zeros(len(chosen), tables, slots, WIDTH, dtype=torch.uint8, device="cpu")
    block, number, lane, column = (full & (place < slots)).nonzero(as_tuple=True)
    slot = place[block, number, lane, column]
    values[block, number, slot, lane] = cells[block, number, lane, column]
    lanes[block, number, slot, lane] = column.to(torch.uint8)
    block, number, lane, column = (full & (place >= slots)).nonzero(as_tuple=True)
    left = cells[block, number, lane, column].contiguous()
    more = [
        lanes, weight.new_zeros(0), _Number(slots), _starts(torch.bincount(block, minlength=len(chosen))),
        lane.to(torch.int32), (number * table + column).to(torch.int32), left,
    ]  # fmt: skip
    layout, kernel = "permuted weights", "sparse.permuted"
    if half:
        layout, kernel, values = f"{layout} bfloat16", f"{kernel}_bfloat16", halves(values)
    return finish(
        layout, kernel, values, len(chosen), weight.shape[1], chosen, arrangement, *more,
        scratch=8 * 4 * tables * table,
    )  # fmt: skip


def pack_bitmask(weight: Tensor, arrangement: Arrangement, half: bool = False) -> Packed:
    """For every column of a block row a bit mask and the weights that are there: block rows in fours, then the rest."""
    chosen = living(weight, arrangement)
    tall = _blocks_of(weight, arrangement)[chosen]
    fours = len(chosen) // 4 * 4
    masks, values, counts = [], [], []
    for cells in (tall[:fours].view(-1, 4, WIDTH, weight.shape[1]), tall[fours:].unsqueeze(1)):
        cells = cells.permute(0, 3, 1, 2).contiguous()  # (groups, columns, block rows side by side, lanes)
        full = cells != 0
        masks.append(torch.from_numpy(np.packbits(full.view(-1, 8).numpy(), axis=1, bitorder="little")).view(-1))
        values.append(cells[full])
        counts.append(full.flatten(1).sum(1))
    stream = torch.cat([*values, weight.new_zeros(WIDTH)])  # the last vector reads beyond the last weight
    layout, kernel = "bit masks", "bitmask.bitmask"
    if half:
        layout, kernel, stream = f"{layout} bfloat16", f"{kernel}_bfloat16", halves(stream)
    starts = _starts(torch.cat(counts)) * stream.element_size()
    return finish(
        layout, kernel, stream, len(chosen), weight.shape[1], chosen, arrangement, torch.cat(masks), starts
    )  # fmt: skip


def _words(weight: Tensor | CodedMatrix, arrangement: Arrangement) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Living blocks, their weights (blocks, words, WIDTH, 4) int8, scales and shifts (blocks, WIDTH)."""
    small, scales = integers(weight) if isinstance(weight, Tensor) else (weight.numbers(), weight.scales)
    assert scales is not None
    chosen = living(small, arrangement)
    small = torch.nn.functional.pad(small, (0, -weight.shape[1] % 4))
    tall = _blocks_of(small, arrangement)[chosen]
    words = tall.view(len(chosen), WIDTH, tall.shape[2] // 4, 4).transpose(1, 2).contiguous()
    own = torch.cat([scales, scales.new_zeros(1)])[arrangement.rows][chosen].contiguous()
    return chosen, words, own, (128 * tall.sum(2, dtype=torch.int32)).contiguous()


def pack_panels_int8(weight: Tensor | CodedMatrix, arrangement: Arrangement) -> Packed:
    """Dense int8 panels: four blocks side by side for each word of four columns, left-over blocks one by one."""
    chosen, words, scales, shifts = _words(weight, arrangement)
    fours = len(chosen) // 4 * 4
    shape = (-1, 4, *words.shape[1:])
    packed = torch.cat([words[:fours].view(shape).transpose(1, 2).reshape(-1), words[fours:].reshape(-1)])
    return _finish_int8("dense panel int8", "integers.panel", packed, words.shape[1], weight, chosen, arrangement,
                        scales, shifts)  # fmt: skip


def pack_blocks_int8(weight: Tensor | CodedMatrix, arrangement: Arrangement) -> Packed:
    """WIDTH x 4 int8 blocks: those with a non-zero weight, block row by block row."""
    chosen, words, scales, shifts = _words(weight, arrangement)
    full = words.flatten(2).any(2)
    block, number = full.nonzero(as_tuple=True)
    starts = _starts(full.sum(1))
    return _finish_int8(
        f"{WIDTH}x4 blocks int8", "integers.blocks", words[block, number].contiguous(), words.shape[1], weight, chosen,
        arrangement, scales, shifts, number.to(torch.int32), starts,
    )  # fmt: skip


def _finish_int8(
    layout: str, kernel: str, packed: Tensor, words: int, weight: Tensor | CodedMatrix, chosen: Tensor,
    arrangement: Arrangement, scales: Tensor, shifts: Tensor, *more: Tensor,
) -> Packed:  # fmt: skip
    inputs = weight.shape[1]
    scratch = 48 * (-(-inputs // 64) * 64) + 48 * 4
    fields = (scales, shifts, _Number(inputs), *more)
    return finish(layout, kernel, packed, len(chosen), words, chosen, arrangement, *fields, scratch=scratch)


def best_slots(counts: Tensor, tables: int) -> int:
    """How many weights a lane of a table has room for, so that slots and what is left over cost least together.

    counts[n]: lanes of tables with n weights. A slot costs about 1.6 cycles a table, a left-over weight 2.5.
    """
    n = torch.arange(len(counts), dtype=torch.int64, device="cpu")
    costs = [1.6 * s * tables + 2.5 * float(((n - s).clamp(min=0) * counts).sum()) for s in range(1, len(counts) + 1)]
    return 1 + min(range(len(costs)), key=costs.__getitem__)


class _Number(int):
    """A field of a plan that is a number and not an address."""


def _blocks_of(weight: Tensor, arrangement: Arrangement) -> Tensor:
    """(blocks, WIDTH, columns), zeros in the padding."""
    return torch.cat([weight, weight.new_zeros(1, weight.shape[1])])[arrangement.rows]


def _starts(counts: Tensor) -> Tensor:
    """0, counts[0], counts[0] + counts[1], ..."""
    return torch.cat([torch.zeros(1, dtype=torch.int64, device="cpu"), counts.cumsum(0)]).contiguous()


def finish(
    layout: str, kernel: str, packed: Tensor, count: int, columns: int, blocks: Tensor, arrangement: Arrangement,
    *more: Tensor | _Number, scratch: int = 0,
) -> Packed:  # fmt: skip
    """Write the plan: the fields of products.py, then the addresses of `more`."""
    where = arrangement.where[blocks].contiguous()
    every = torch.arange(0, arrangement.width * 4, BYTES, dtype=torch.int64, device="cpu")
    absent = every[~torch.isin(every, where)].contiguous()
    bias = arrangement.bias
    tensors = [m.contiguous() for m in more if isinstance(m, Tensor)]
    kept = [packed, where, absent, *tensors] + ([] if bias is None else [bias])
    start = 0 if bias is None else bias.data_ptr()
    numbers = [packed.data_ptr(), count, columns, where.data_ptr(), start, absent.data_ptr(), len(absent)]
    rest = iter(tensors)
    numbers += [next(rest).data_ptr() if isinstance(m, Tensor) else m for m in more]
    plan = torch.tensor(numbers, dtype=torch.int64, device="cpu")
    size = sum(t.numel() * t.element_size() for t in (packed, *tensors))
    return Packed(layout, kernel, plan.data_ptr(), size, scratch, (plan, *kept))
