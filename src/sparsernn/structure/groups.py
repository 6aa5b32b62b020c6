"""Groups: sets of parameter slices that go together: weights, 16x1 blocks, 16x4 words, rows, columns, gates and units.

A `SliceGroups` numbers its groups 0..count-1 and lists `Member`s: along one axis of one parameter, which group each
index belongs to. That is the form in which sums over all groups are one reduction a parameter and never a loop over
groups. Unit groups of an LSTM layer (Wen, arXiv 1709.05027, section 3): rows k of the four gates in weight_ih and
weight_hh (role "incoming"), column k of weight_hh and the slices of every reader (role "outgoing").
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

Role = Literal["incoming", "outgoing", "bias", "state"]
Level = Literal["weight", "block", "word", "row", "column", "gate", "unit"]


@dataclass(frozen=True)
class Member:
    """`parameter` along `axis`: index j belongs to group `group[j]` (-1: to none).

    `within` restricts the slice on other axes: axis -> indices; an empty mapping means the whole hyperplane.
    `role`: "incoming" what the unit computes its value from, "outgoing" what reads it, "bias", "state" (a learned
    initial state).
    """

    parameter: str
    axis: int
    group: Tensor
    role: Role
    within: Mapping[int, Tensor] = field(default_factory=dict)

    def narrow(self, value: Tensor) -> Tensor:
        """The part of `value` (shaped like the parameter) that `within` leaves."""
        for axis, index in self.within.items():
            value = value.index_select(axis, index.to(value.device))
        return value


@dataclass(frozen=True)
class SliceGroups:
    """Groups at level "unit", "gate", "row" or "column". `scopes` gives each group's layer name."""

    level: Level
    count: int
    members: tuple[Member, ...]
    scopes: tuple[str, ...]  # one layer (unit set) name a group: its first
    units: Mapping[str, Tensor]  # unit set (level "gate": "set gate") -> group number of each unit, -1: none

    def of(self, names: Collection[str]) -> SliceGroups:
        """Only members of these parameters: masks and other buffers are cut with a unit, but nothing learns them."""
        return replace(self, members=tuple(m for m in self.members if m.parameter in names))

    def squares(self, parameters: Mapping[str, Tensor], roles: Iterable[Role] = ("incoming", "outgoing")) -> Tensor:
        """Sum of squares of each group, shape (count,), differentiable, in at least float32.

        A slice that lies in two members of one group (the self-weights of a unit: gate rows k, column k of weight_hh)
        counts twice, as in Wen et al.'s own sums.
        """
        wanted = set(roles)
        total: Tensor | None = None
        for member in self.members:
            if member.role not in wanted:
                continue
            value = member.narrow(parameters[member.parameter])
            value = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
            other = [a for a in range(value.dim()) if a != member.axis]
            sums = (value * value).sum(other) if other else value * value
            if total is None:
                total = sums.new_zeros(self.count + 1)
            group = member.group.to(sums.device)
            # Group -1 collects in the last place, which is cut off below.
            total = total.index_add(0, torch.where(group < 0, self.count, group), sums.to(total.dtype))
        return torch.zeros(self.count) if total is None else total[: self.count]

    def sizes(
        self,
        parameters: Mapping[str, Tensor],
        roles: Iterable[Role] = ("incoming", "outgoing"),
        *,
        self_weights: Literal["twice", "once"] = "twice",
    ) -> Tensor:
        """Number of weights in each group, int64 (count,).

        "twice" counts the self-weights of a unit as Wen et al. publish them (24000 and 28000 for their Penn Treebank
        layers); "once" is the size of the union.
        """
        wanted = set(roles)
        if self_weights == "twice":
            ones = {m.parameter: torch.ones(parameters[m.parameter].shape) for m in self.members}
            return self.squares(ones, wanted).round().long()
        sizes = torch.zeros(self.count, dtype=torch.long)
        names = dict.fromkeys(m.parameter for m in self.members if m.role in wanted)
        for name in names:
            found = [m for m in self.members if m.parameter == name and m.role in wanted]
            for n, member in enumerate(found):
                sizes += _count(member, parameters[name], self.count)
                for other in found[:n]:
                    sizes -= _overlap(member, other, parameters[name], self.count)
        return sizes

    def mask(self, parameters: Mapping[str, Tensor], gone: Tensor, roles: Iterable[Role]) -> dict[str, Tensor]:
        """parameter -> bool tensor of its shape, False on every slice of the groups in `gone` (bool, (count,))."""
        wanted = set(roles)
        masks: dict[str, Tensor] = {}
        padded = torch.cat([gone.cpu(), torch.zeros(1, dtype=torch.bool)])
        for member in self.members:
            if member.role not in wanted:
                continue
            p = parameters[member.parameter]
            mask = masks.setdefault(member.parameter, torch.ones(p.shape, dtype=torch.bool, device=p.device))
            hit = padded[member.group.cpu()].to(p.device)
            place = [slice(None)] * p.dim()
            if not member.within:
                place[member.axis] = hit  # type: ignore[call-overload]
                mask[tuple(place)] = False
            else:
                cut = torch.ones_like(mask)
                place[member.axis] = hit  # type: ignore[call-overload]
                cut[tuple(place)] = False
                inside = torch.ones_like(mask)
                for axis, index in member.within.items():
                    chosen = torch.zeros(p.shape[axis], dtype=torch.bool, device=p.device)
                    chosen[index.to(p.device)] = True
                    inside &= chosen.view([-1 if a == axis else 1 for a in range(p.dim())])
                mask &= cut | ~inside
        return masks


def _count(member: Member, parameter: Tensor, count: int) -> Tensor:
    width = member.narrow(torch.empty(parameter.shape, device="meta")).numel() // max(1, len(member.group))
    chosen = member.group[member.group >= 0].cpu()
    return torch.bincount(chosen, minlength=count) * width


def _overlap(a: Member, b: Member, parameter: Tensor, count: int) -> Tensor:
    """How many elements of `parameter` lie in both members and in the same group."""
    # Exact by enumeration over the groups of a on its axis against those of b; both are whole or narrowed planes.
    sizes = torch.zeros(count, dtype=torch.long)
    if a.axis == b.axis:
        raise ValueError(f"{a.parameter} has two members along axis {a.axis}: merge them into one.")
    rows = [_selected(m, parameter, axis) for m in (a, b) for axis in (a.axis, b.axis)]
    in_a_along_b, in_b_along_a = rows[1], rows[2]
    ga = torch.where(in_b_along_a, a.group.cpu(), -1)
    gb = torch.where(in_a_along_b, b.group.cpu(), -1)
    sizes += torch.bincount(ga[ga >= 0], minlength=count) * torch.bincount(gb[gb >= 0], minlength=count)
    rest = [s for axis, s in enumerate(parameter.shape) if axis not in (a.axis, b.axis)]
    for size in rest:
        sizes *= size
    return sizes


def _selected(member: Member, parameter: Tensor, axis: int) -> Tensor:
    chosen = torch.ones(parameter.shape[axis], dtype=torch.bool)
    if axis in member.within:
        chosen.zero_()
        chosen[member.within[axis].cpu()] = True
    return chosen
