"""What the readers of units really multiply: how much a unit varies there, and the mean that a bias can take over.

A unit that stands near a constant matters little, however large the weights that read it: its mean goes into the
biases of its readers, and only what it varies is lost (the diagonal of optimal brain surgery, Hassibi and Stork,
NeurIPS 1992; `fold` solves for all units at once). Weights alone don't tell: in trained nets small weights often read
the units that vary most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .._modules import in_eval
from ..structure import examples
from ..structure.groups import Member, SliceGroups
from ..structure.sites import Site, SiteRecorder
from ..structure.trace import quiet


class Readings:
    """The operands of all that reads `groups` of `model`, over the example inputs, in evaluation mode on a copy.

    `reasons`: reading parameter -> why nothing is known of what it multiplies, or why its bias takes no mean.
    """

    def __init__(self, model: nn.Module, groups: SliceGroups, example_inputs: Any) -> None:
        self.groups = groups
        self._members: dict[tuple[str, int], Member] = {}
        for member in groups.members:
            if member.role == "outgoing" and not member.within:
                self._members[member.parameter, member.axis] = member
        device = next(model.parameters()).device
        with quiet():
            twin = in_eval(model)
            recorder = SiteRecorder(twin, frozenset(self._members))
            for number, call in enumerate(examples.calls(example_inputs), start=1):
                moved = tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, call)
                with recorder:
                    examples.run(twin, examples.fresh(moved), number)
        self.sites: dict[tuple[str, int], Site] = {}
        self.reasons: dict[str, str] = {}
        for member in groups.members:
            key = (member.parameter, member.axis)
            if member.role != "outgoing" or key in self.sites:
                continue
            site = recorder.sites.get(key) if not member.within else None
            if site is None or site.moments.count == 0:
                self.reasons[member.parameter] = "it reads units in no product whose operand is seen"
            elif member.parameter in recorder.others and site.bias is None:
                self.reasons[member.parameter] = f"it is used by {recorder.others[member.parameter]}"
            elif not bool(site.moments.total.isfinite().all()):
                self.reasons[member.parameter] = "NaN or infinity reaches it"
            else:
                self.sites[key] = site
        self._with_bias: set[str] = set()
        for site in self.sites.values():
            if site.bias is None:
                self.reasons[site.parameter] = "it has no bias of its own"
            else:
                self._with_bias.add(site.parameter)

    def scores(self, parameters: Mapping[str, Tensor]) -> Tensor | None:
        """What is lost without each group, (count,): the root mean square over all that reads it of the weight times
        the standard deviation of what it multiplies, or times its root mean square where no bias takes the mean over.

        Readers whose operand is not seen count with the group's other ones; None if there are none.
        """
        count = self.groups.count
        lost, weight, unseen, size = (torch.zeros(count + 1, dtype=torch.float64) for _ in range(4))
        for member in self.groups.members:
            if member.role != "outgoing":
                continue
            value = member.narrow(parameters[member.parameter]).detach().to("cpu", torch.float64)
            group = torch.where(member.group < 0, count, member.group).cpu()
            squares = value.movedim(member.axis, 0).reshape(len(group), -1).square()
            size.index_add_(0, group, torch.full((len(group),), float(squares.shape[1]), dtype=torch.float64))
            site = self.sites.get((member.parameter, member.axis))
            if site is None or member.within:
                unseen.index_add_(0, group, squares.sum(1))
                continue
            energy = site.rows(parameters[member.parameter]).square().sum(0)
            index = group.repeat_interleave(site.taps)
            lost.index_add_(0, index, energy * self._spread(site))
            weight.index_add_(0, index, energy)
        lost, weight, unseen, size = (each[:count] for each in (lost, weight, unseen, size))
        if not bool((weight > 0).any()):
            return None
        own = torch.where(weight > 0, lost / weight, (lost.sum() / weight.sum()).expand_as(lost))
        return ((lost + unseen * own) / size.clamp_min(1)).sqrt()

    def _spread(self, site: Site) -> Tensor:
        """Mean square of each input of a site, about its mean where a bias can take that."""
        moment = site.moments.total / site.moments.count
        square, mean = moment.diagonal()[:-1], moment[-1, :-1]
        return (square - mean**2).clamp_min(0) if site.parameter in self._with_bias else square

    @torch.no_grad()
    def compensate(self, gone: Tensor, parameters: Mapping[str, Tensor]) -> None:
        """Before the groups in `gone` are zeroed: add what they give to each reader on average to its bias."""
        gone = torch.cat([gone.cpu(), torch.zeros(1, dtype=torch.bool)])  # the place of group -1
        for key, site in self.sites.items():
            if site.parameter not in self._with_bias:
                continue
            assert site.bias is not None
            out = gone[self._members[key].group.cpu()].repeat_interleave(site.taps)
            mean = (site.moments.total / site.moments.count)[-1, :-1]
            bias = parameters[site.bias]
            added = site.rows(parameters[site.parameter])[:, out] @ mean[out]
            bias.add_(added.to(bias))
