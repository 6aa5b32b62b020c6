"""Parts: one parameter's share in many groups, as one reduction and one broadcast.

A level (levels.py) is a list of parts. Every sum over groups is a sum over parts of whole-tensor reductions, and
every group-wise factor is spread over whole tensors, so that no Python loop runs over groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..structure.blocks import Tiles
from ..structure.groups import Member

CHUNK = 2**18  # elements, measured: a third of the time of whole matrices (10000 x 650, float32)


class Part(Protocol):
    @property
    def parameter(self) -> str: ...

    @property
    def along_columns(self) -> bool:
        """True if any rows of a matrix can be taken for the whole: groups are columns, all rows of them."""
        ...

    def narrow(self, value: Tensor) -> Tensor:
        """What of a tensor shaped like the parameter lies in this part."""
        ...

    def sums(self, value: Tensor) -> Tensor:
        """Sum of a narrowed tensor over each group, (count,)."""
        ...

    def spread(self, groups: Tensor, neutral: float) -> Tensor:
        """Each group's value at its place, broadcastable with a narrowed tensor; `neutral` outside all groups."""
        ...

    def rows(self, value: Tensor, groups: Tensor) -> Tensor:
        """The elements of some `groups` (k,) of a narrowed tensor, one group a row, padded with zeros: (k, m)."""
        ...

    def multiply(self, value: Tensor, factor: Tensor) -> None:
        """Multiply this part of a tensor shaped like the parameter, in place."""
        ...

    def subtract_quotient(self, value: Tensor, divisor: Tensor) -> None:
        """Take value / divisor away from this part of a tensor shaped like the parameter, in place."""
        ...

    def add_product(self, total: Tensor, value: Tensor, factor: Tensor) -> None:
        """Add value * factor to this part of `total`, in place; both are shaped like the parameter."""
        ...


@dataclass(frozen=True)
class TilePart:
    """Blocks of one matrix: groups first..first+tile.count-1 of `count`."""

    tile: Tiles
    first: int
    count: int

    @property
    def parameter(self) -> str:
        return self.tile.parameter

    @property
    def along_columns(self) -> bool:
        return False

    def narrow(self, value: Tensor) -> Tensor:
        return value

    def sums(self, value: Tensor) -> Tensor:
        own = self.tile.sums(value)
        return torch.nn.functional.pad(own, (self.first, self.count - self.first - len(own)))

    def spread(self, groups: Tensor, neutral: float) -> Tensor:
        return self.tile.expand(groups[self.first : self.first + self.tile.count])

    def rows(self, value: Tensor, groups: Tensor) -> Tensor:
        own = groups.to(value.device) - self.first
        inside = (own >= 0) & (own < self.tile.count)
        row_of_blocks = self.tile.row_of_blocks().to(value.device)
        own, across, size = (
            own.clamp(0, self.tile.count - 1),
            self.tile.block_columns,
            self.tile.height * self.tile.width,
        )
        place = torch.arange(size, device=value.device)
        block = own[:, None] // across
        row = torch.searchsorted(row_of_blocks, block) + place // self.tile.width
        column = own[:, None] % across * self.tile.width + place % self.tile.width
        last, end = value.shape[0] - 1, value.shape[1] - 1
        there = inside[:, None] & (row <= last) & (column <= end) & (row_of_blocks[row.clamp(max=last)] == block)
        return value[row.clamp(max=last), column.clamp(max=end)] * there

    def multiply(self, value: Tensor, factor: Tensor) -> None:
        value.mul_(factor)

    def subtract_quotient(self, value: Tensor, divisor: Tensor) -> None:
        value.addcdiv_(value, divisor, value=-1)

    def add_product(self, total: Tensor, value: Tensor, factor: Tensor) -> None:
        total.addcmul_(value, factor)


@dataclass(frozen=True)
class SlicePart:
    """Hyperplanes of one parameter along one axis."""

    member: Member
    slots: Tensor  # int64 (count, m): where each group's hyperplanes lie, padded with the size of the axis
    dimensions: int  # of the parameter

    @classmethod
    def of(cls, member: Member, count: int, parameter: Tensor) -> SlicePart:
        return cls(member, _slots(member.group.cpu(), count), parameter.dim())

    @property
    def parameter(self) -> str:
        return self.member.parameter

    @property
    def along_columns(self) -> bool:
        return self.dimensions == 2 and self.member.axis == 1 and not self.member.within

    def narrow(self, value: Tensor) -> Tensor:
        return self.member.narrow(value)

    def sums(self, value: Tensor) -> Tensor:
        other = [axis for axis in range(value.dim()) if axis != self.member.axis]
        return self.gather(value.sum(other) if other else value)

    @property
    def whole(self) -> bool:
        """True for whole rows or columns of a matrix."""
        return self.dimensions == 2 and not self.member.within

    def gather(self, along: Tensor) -> Tensor:
        """`sums` from the sums of the hyperplanes, one number each."""
        # A gather in fixed order, not a scatter: the same bits on every rank and in every run, on CUDA too.
        padded = torch.cat([along, along.new_zeros(1)])
        return padded[self.slots.to(along.device)].sum(1)

    def spread(self, groups: Tensor, neutral: float) -> Tensor:
        padded = torch.cat([groups, groups.new_full((1,), neutral)])  # group -1 finds the last place
        shape = [-1 if axis == self.member.axis else 1 for axis in range(self.dimensions)]
        return padded[self.member.group.to(groups.device)].view(shape)

    def rows(self, value: Tensor, groups: Tensor) -> Tensor:
        slots = self.slots.to(value.device)[groups.to(value.device)]
        size = value.shape[self.member.axis]
        found = value.index_select(self.member.axis, slots.clamp(max=size - 1).reshape(-1))
        found = found.movedim(self.member.axis, 0).reshape(*slots.shape, -1)
        return (found * (slots < size)[..., None]).flatten(1)

    def multiply(self, value: Tensor, factor: Tensor) -> None:
        if self.member.within:
            place = self.place(value)
            value[place] = value[place] * factor
        else:
            value.mul_(factor)

    def subtract_quotient(self, value: Tensor, divisor: Tensor) -> None:
        if self.member.within:
            place = self.place(value)
            value[place] = value[place] - value[place] / divisor
        else:
            value.addcdiv_(value, divisor, value=-1)

    def add_product(self, total: Tensor, value: Tensor, factor: Tensor) -> None:
        if self.member.within:
            place = self.place(value)
            total[place] = total[place] + value[place] * factor
        else:
            total.addcmul_(value, factor)

    def place(self, value: Tensor) -> tuple[Tensor, ...]:
        every = [torch.arange(size) for size in value.shape]
        chosen = [self.member.within.get(axis, index).to(value.device) for axis, index in enumerate(every)]
        return torch.meshgrid(*chosen, indexing="ij")


def chunks(value: Tensor, part: Part | None = None) -> Iterator[slice]:
    """Rows that fit the processor's cache with their temporaries, where `part` lies along columns; else all rows."""
    if value.dim() != 2 or value.is_cuda or (part is not None and not part.along_columns):
        yield slice(None)
        return
    step = max(1, CHUNK // max(1, value.shape[1]))
    for start in range(0, value.shape[0], step):
        yield slice(start, start + step)


def _slots(group: Tensor, count: int) -> Tensor:
    position = torch.arange(len(group))[group >= 0]
    chosen = group[group >= 0]
    order = torch.argsort(chosen, stable=True)
    many = torch.bincount(chosen, minlength=count)
    slots = torch.full((count, max([1, *many.tolist()])), len(group))
    first = many.cumsum(0) - many
    slots[chosen[order], torch.arange(len(chosen)) - first[chosen[order]]] = position[order]
    return slots
