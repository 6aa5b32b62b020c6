"""Packing: from a weight matrix to the memory that a product kernel walks through."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .compiled import address
from .processor import processor

WIDTH = processor().width
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
    """A packed matrix: the kernel that multiplies with it and the address of its plan."""

    layout: str
    kernel: int
    plan: int
    bytes: int
    kept: tuple[Tensor, ...] = field(repr=False)


def unit_rows(hidden: int, gates: int, slots: tuple[int, ...], count: int) -> tuple[Tensor, Tensor]:
    """Rows and places of a gate-stacked matrix (gates x hidden rows): block of units by block, slot by slot."""
    blocks = -(-hidden // WIDTH)
    units = torch.arange(blocks * WIDTH).view(blocks, 1, WIDTH)
    rows = units + hidden * torch.arange(gates).view(1, gates, 1)
    rows = torch.where(units < hidden, rows, -1)
    where = (torch.arange(blocks).view(-1, 1) * count + torch.tensor(slots).view(1, -1)) * BYTES
    return rows.reshape(-1, WIDTH), where.reshape(-1)


def slot_row(values: Tensor) -> Tensor:
    """(slots, H) -> one output row: for each block of units its slots side by side, zeros in the padding."""
    slots, hidden = values.shape
    blocks = -(-hidden // WIDTH)
    padded = values.new_zeros(slots, blocks * WIDTH)
    padded[:, :hidden] = values
    return padded.view(slots, blocks, WIDTH).transpose(0, 1).reshape(-1).contiguous()


def living(weight: Tensor, arrangement: Arrangement) -> Tensor:
    """Numbers of the blocks that have a non-zero weight: the others cost nothing."""
    alive = torch.cat([(weight != 0).any(1), torch.zeros(1, dtype=torch.bool)])
    return alive[arrangement.rows].any(1).nonzero().view(-1)


def pack_panels(weight: Tensor, arrangement: Arrangement) -> Packed:
    """Dense panels: four blocks side by side for each column, left-over blocks one by one."""
    blocks = living(weight, arrangement)
    padded = torch.cat([weight, weight.new_zeros(1, weight.shape[1])])
    rows = arrangement.rows[blocks]
    fours = len(blocks) // 4 * 4
    parts = [
        padded[rows[:fours]].view(-1, 4, WIDTH, weight.shape[1]).permute(0, 3, 1, 2).reshape(-1),
        padded[rows[fours:]].permute(0, 2, 1).reshape(-1),
    ]
    packed = torch.cat(parts).float().contiguous()
    return finish("dense panel", "products.panel", packed, len(blocks), weight.shape[1], blocks, arrangement)


def finish(
    layout: str, kernel: str, packed: Tensor, count: int, columns: int, blocks: Tensor, arrangement: Arrangement,
    *more: Tensor,
) -> Packed:  # fmt: skip
    """Write the plan (the fields of products.py, then the addresses of `more`)."""
    where = arrangement.where[blocks].contiguous()
    every = torch.arange(0, arrangement.width * 4, BYTES)
    absent = every[~torch.isin(every, where)].contiguous()
    bias = arrangement.bias
    kept = [packed, where, absent, *more] + ([] if bias is None else [bias])
    start = 0 if bias is None else bias.data_ptr()
    numbers = [packed.data_ptr(), count, columns, where.data_ptr(), start, absent.data_ptr(), len(absent)]
    plan = torch.tensor(numbers + [m.data_ptr() for m in more], dtype=torch.int64)
    size = packed.numel() * packed.element_size() + sum(m.numel() * m.element_size() for m in more)
    return Packed(layout, address(kernel), plan.data_ptr(), size, (plan, *kept))
