"""Multipliers of inputs, words, gates and units: what each one scales, and how its mean goes into the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ...structure.blocks import gate_groups
from ...structure.groups import Member, SliceGroups
from ..governed import Governed
from ..parts import SlicePart


@dataclass(frozen=True)
class Multipliers:
    """Gaussian multipliers of one kind, N(mean, exp(log_sigma)^2), and the slices of parameters that each one scales.

    The mean is 1 before and after each step: what an optimizer step moves it by goes into the weights at once
    (`absorb`), which changes neither the function nor the divergence, so the model's own weights are always the means
    of what runs. `units` maps a layer (for gates "layer gate", for inputs and words the module) to the multiplier of
    each of its units, gates or features, -1: none. `alone` is True where the forward of a module applies the
    multiplier, one sample for each sequence; elsewhere it scales the slices, one sample for the batch.
    """

    kind: str
    count: int
    mean: nn.Parameter
    log_sigma: nn.Parameter
    parts: tuple[SlicePart, ...]
    units: Mapping[str, Tensor]
    alone: Tensor  # bool (count,)

    @classmethod
    def of(cls, kind: str, groups: SliceGroups, parameters: Mapping[str, Tensor], log_sigma: float) -> Multipliers:
        """Multipliers of the groups' "outgoing" slices for units, of the "incoming" ones for all other kinds."""
        role = "outgoing" if kind == "unit" else "incoming"
        like = parameters[groups.members[0].parameter]
        ones = torch.ones(groups.count, dtype=like.dtype, device=like.device)
        return cls(
            kind,
            groups.count,
            nn.Parameter(ones),
            nn.Parameter(torch.full_like(ones, log_sigma)),
            tuple(SlicePart.of(m, groups.count, parameters[m.parameter]) for m in groups.members if m.role == role),
            dict(groups.units),
            torch.zeros(groups.count, dtype=torch.bool, device=like.device),
        )

    def with_alone(self, alone: Tensor) -> Multipliers:
        return replace(self, alone=alone.to(self.mean.device))

    def parts_of(self, name: str) -> list[SlicePart]:
        return [part for part in self.parts if part.parameter == name]

    @torch.no_grad()
    def absorb(self, parameters: Mapping[str, Tensor], log_sigmas: Mapping[str, Tensor]) -> None:
        """Bring the means back to 1: the weights and their sigmas take over the factor."""
        factor = self.mean.clamp(0.5, 2.0)  # one step halves or doubles a group at most
        logs = factor.log()
        for part in self.parts:
            value = parameters[part.parameter]
            part.multiply(value, part.spread(factor.to(value), 1.0))
            if part.parameter in log_sigmas:
                own = log_sigmas[part.parameter]
                part.add_product(own, torch.ones_like(own[:1, :1]).expand_as(own), part.spread(logs.to(own), 0.0))
        self.log_sigma.sub_(logs)
        self.mean.fill_(1.0)


def factor_of(part: SlicePart, groups: Tensor, like: Tensor) -> Tensor:
    """Each group's value on the slices of `part`, 1 elsewhere, broadcastable with `like`; differentiable."""
    factor = part.spread(groups, 1.0)
    if not part.member.within:
        return factor
    place = part.place(like)
    return torch.ones_like(like).index_put(place, factor.expand(np.broadcast_shapes(*(tuple(p.shape) for p in place))))


def input_set(chosen: Governed, units: SliceGroups, parameters: Mapping[str, Tensor]) -> SliceGroups:
    """One group for each input feature of each recurrent module that is not a unit of another layer."""
    inside: dict[str, Tensor] = {}
    for member in units.members:
        if member.axis == 1 and member.role == "outgoing":
            inside[member.parameter] = member.group >= 0
    members: dict[str, Member] = {}
    numbers: dict[str, Tensor] = {}
    count = 0
    for layer in chosen.layers:
        if layer.layer > 0:
            continue
        for name in layer.parameters("ih"):
            width = parameters[name].shape[1]
            if layer.module not in numbers:
                free = ~inside.get(name, torch.zeros(width, dtype=torch.bool))
                numbers[layer.module] = torch.where(free, count + free.cumsum(0) - 1, -1)
                count += int(free.sum())
            members[name] = Member(name, 1, numbers[layer.module], "incoming")
    return SliceGroups("unit", count, tuple(members.values()), (), numbers)


def word_set(model: nn.Module, chosen: Governed) -> SliceGroups:
    """One group for each row of each governed embedding, without the padding row."""
    names = {id(p): name for name, p in model.named_parameters()}
    members: dict[str, Member] = {}
    numbers: dict[str, Tensor] = {}
    count = 0
    for path, module in model.named_modules():
        if not isinstance(module, nn.Embedding):
            continue
        name = names.get(id(module.weight), "")
        if name not in chosen.weights:
            continue
        if name not in members:
            free = torch.ones(module.num_embeddings, dtype=torch.bool)
            if module.padding_idx is not None:
                free[module.padding_idx] = False
            members[name] = Member(name, 0, torch.where(free, count + free.cumsum(0) - 1, -1), "incoming")
            count += int(free.sum())
        numbers[path] = members[name].group
    return SliceGroups("unit", count, tuple(members.values()), (), numbers)


def multipliers(
    model: nn.Module, chosen: Governed, units: SliceGroups | None, gates: bool, log_sigma: float
) -> dict[str, Multipliers]:
    """The kinds of multipliers that there are, in the order in which they are applied; units' readers from a trace."""
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    groups = {"word": word_set(model, chosen)}
    if units is not None:
        groups["input"] = input_set(chosen, units, parameters)
        groups["unit"] = units
    if gates:
        groups["gate"] = gate_groups(chosen.layers, parameters)
    return {
        kind: Multipliers.of(kind, found, parameters, log_sigma) for kind, found in groups.items() if found.count > 0
    }
