"""Packed matrices, which rows stand in which block of them, and what the packing of every layout needs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .compiled import address
from .order import WIDTH, plain_order

BYTES = 4 * WIDTH


@dataclass(frozen=True)
class Arrangement:
    """Which rows of a matrix stand in which block of the output row.

    rows: (blocks, WIDTH) row numbers, int32, -1 for padding; where: (blocks,) byte offsets in a row of the output;
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
    return rows.reshape(-1, WIDTH).to(torch.int32), where.reshape(-1)


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


def blocks_of(weight: Tensor, arrangement: Arrangement, chosen: Tensor) -> Tensor:
    """The chosen blocks: (blocks, WIDTH, columns), zeros in the padding."""
    return torch.cat([weight, weight.new_zeros(1, weight.shape[1])])[arrangement.rows[chosen]]


def from_panels(values: Tensor, blocks: int, columns: int, side: int) -> Tensor:
    """(blocks, WIDTH, columns) of numbers that lie column by column, in panels of `side` blocks and then block by
    block."""
    whole = blocks // side * side
    cut = whole * WIDTH * columns
    panels = values[:cut].view(whole // side, columns, side, WIDTH).permute(0, 2, 3, 1)
    rest = values[cut : blocks * WIDTH * columns].view(blocks - whole, columns, WIDTH).transpose(1, 2)
    return torch.cat([panels.reshape(whole, WIDTH, columns), rest])


def lists_of(starts: Tensor) -> Tensor:
    """The way back from `starts_of`: of each item the list that it is in."""
    return torch.repeat_interleave(torch.arange(len(starts) - 1, dtype=torch.int64, device="cpu"), starts.diff())


def starts_of(counts: Tensor) -> Tensor:
    """0, counts[0], counts[0] + counts[1], ..."""
    return torch.cat([torch.zeros(1, dtype=torch.int64, device="cpu"), counts.cumsum(0)]).contiguous()


class Number(int):
    """A field of a plan that is a number and not an address."""
