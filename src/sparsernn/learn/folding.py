"""The work of `fold`: which units can be folded, in what order they go, and the weights of what is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._modules import copied
from ..structure.groups import SliceGroups
from ..structure.sites import Site, SiteRecorder
from ..structure.structure import Structure
from .least_squares import Reader, Sizes
from .limits import Limits
from .recording import Recording

PROBE = 0.1  # share of a set's units that is folded to see how much the outputs change by it


@dataclass(frozen=True)
class Step:
    """What has gone at one size: bool (groups,), and the predicted mean squared change of the outputs."""

    gone: Tensor
    share: float
    predicted: float


class Folding:
    """`groups` of a model, whose readers' operands were recorded; those in `gone`, bool (groups,), are out already."""

    def __init__(
        self,
        recording: Recording,
        structure: Structure,
        groups: SliceGroups,
        ridge: float,
        gone: Tensor | None = None,
    ) -> None:
        self.model, self.groups, self.outputs = recording.model, groups, recording.outputs
        read = {(m.parameter, m.axis) for m in groups.members if m.role == "outgoing"}
        self.sites = {key: site for key, site in recording.recorder.sites.items() if key in read}
        self.reasons = reasons_to_stay(structure, groups, recording.recorder)
        self.may_go = torch.tensor([reason is None for reason in self.reasons])
        self.gone = torch.zeros(groups.count, dtype=torch.bool) if gone is None else gone.clone()
        self.limits = Limits(structure.classes, groups)
        self.readers = {key: self._reader(site, ridge) for key, site in self.sites.items()}

    def _reader(self, site: Site, ridge: float) -> Reader:
        parameters = dict(self.model.named_parameters())
        rows = site.rows(parameters[site.parameter])
        moment = site.moments.total / site.moments.count
        if site.bias is None:
            moment = moment[:-1, :-1]
        else:
            bias = parameters[site.bias].detach().to("cpu", torch.float64)
            rows = torch.cat([rows, bias[:, None]], dim=1)
        group = next(m.group for m in self.groups.members if (m.parameter, m.axis) == (site.parameter, site.axis))
        group = torch.where(self._out(group), group, -1).repeat_interleave(site.taps)
        out = torch.cat([self.gone, self.gone.new_zeros(1)])[group]
        # The ridge is a share of the power of the units in question: not of other inputs beside them (features as they
        # come, in whatever unit), nor of what is out already.
        powers = moment.diagonal()[: len(out)][(group >= 0) & ~out]
        power = float(powers.mean()) if bool(powers.any()) else None
        group = torch.cat([group, group.new_full((rows.shape[1] - len(group),), -1)])
        reader = Reader(rows, moment, group, ridge, bias=site.bias is not None, power=power)
        for number in group.unique().tolist():
            if number >= 0 and bool(self.gone[number]):
                reader.remove(number)
        return reader

    def _out(self, group: Tensor) -> Tensor:
        return torch.cat([self.may_go, torch.zeros(1, dtype=torch.bool)])[group]

    def written(self, model: nn.Module, gone: Tensor) -> nn.Module:
        """`model`, a copy of the one in work, with the readers' weights solved anew once `gone` is out."""
        parameters = dict(model.named_parameters())
        for key, site in self.sites.items():
            reader = self.readers[key]
            if not bool(gone[reader.groups_I[reader.groups_I >= 0]].any()):
                continue
            result = reader.solved(gone)
            if site.bias is not None:
                bias = parameters[site.bias].detach()
                bias.copy_(result[:, -1].to(bias))
                result = result[:, :-1]
            site.put(parameters[site.parameter], result)
        return model

    def solved_parameters(self) -> list[str]:
        """Names of all parameters that `written` may change."""
        names = [name for site in self.sites.values() for name in (site.parameter, site.bias) if name is not None]
        return list(dict.fromkeys(names))

    def scales(self) -> Tensor:
        """For each group what a mean squared change of one in its readers' outputs does to the model's outputs.

        One number for each unit set, measured: the cheapest tenth of its units is folded, alone. 1 where that says
        nothing.
        """
        found = torch.ones(self.groups.count, dtype=torch.float64)
        for name in dict.fromkeys(self.groups.scopes):
            mine = torch.tensor([scope == name for scope in self.groups.scopes]) & self.may_go & ~self.gone
            number = math.ceil(PROBE * int(mine.sum()))
            if number == 0:
                continue
            gone = self._greedy(mine, lambda gone, n=number, m=mine: int((gone & m).sum()) >= n, found * 0 + 1)
            if gone is None:
                continue
            out, error = gone
            changed = self.outputs.change(self.written(copied(self.model), out))
            if error > 0 and math.isfinite(changed) and changed > 0:
                found[mine] = changed / error
        return found

    def _greedy(self, candidates: Tensor, enough: Callable[[Tensor], bool], scales: Tensor) -> Any:
        readers = {key: reader.copied() for key, reader in self.readers.items()}
        return next(self._steps(readers, candidates, [enough], scales, None), None)

    def _steps(
        self,
        readers: Mapping[Any, Reader],
        candidates: Tensor,
        enough: Sequence[Callable[[Tensor], bool]],
        scales: Tensor,
        sizes: Sizes | None,
    ) -> Iterator[tuple[Tensor, float]]:
        """Take groups out until each of `enough` says so: (gone, predicted change); ends early where none may go."""
        count = self.groups.count
        gone, predicted = self.gone.clone(), 0.0
        for stop in enough:
            while not (stop(gone) and (sizes is None or self.limits.even(gone))):
                errors = scales * sum(reader.errors(count) for reader in readers.values())
                freed = torch.ones(count) if sizes is None else sizes.freed().clamp(min=1)
                held = self.limits.last(gone) if sizes is None else self.limits.stay(gone)  # a probe is not compacted
                stay = ~candidates | gone | held
                score = (errors / freed).masked_fill(stay, math.inf)
                group = int(score.argmin())
                if not math.isfinite(float(score[group])):
                    return
                predicted += float(errors[group])
                gone[group] = True
                for reader in readers.values():
                    reader.remove(group)
                if sizes is not None:
                    sizes.remove(group)
            yield gone.clone(), predicted

    def run(self, shares: Sequence[float], left: Callable[[Tensor], float], sizes: Sizes) -> list[Step]:
        """What goes at each of the falling `shares` of `left(nothing)`. Raises ValueError where one can't be had."""
        whole = left(torch.zeros(self.groups.count, dtype=torch.bool))
        for group in self.gone.nonzero()[:, 0].tolist():
            sizes.remove(group)
        enough = [lambda gone, share=share: left(gone) <= share * whole for share in shares]
        steps = self._steps(self.readers, self.may_go.clone(), enough, self.scales(), sizes)
        found = [Step(gone, left(gone) / whole, predicted) for gone, predicted in steps]
        if len(found) < len(shares):
            least = left(most_gone(self.groups, self.may_go | self.gone))
            raise ValueError(
                f"fold: to={shares[len(found)]:g} can't be reached, at most {least / whole:.3f}: "
                f"{why_no_less(self.reasons)}."
            )
        return found


def most_gone(groups: SliceGroups, may_go: Tensor) -> Tensor:
    """All groups that may go, bool (groups,), but one of each layer and direction."""
    gone = may_go.clone()
    for units in groups.units.values():
        if len(units) and bool((units >= 0).all()) and bool(gone[units].all()):
            gone[units[0]] = False
    return gone


def why_no_less(reasons: Sequence[str | None]) -> str:
    return "; ".join(dict.fromkeys(r for r in reasons if r is not None)) or "one unit of each layer stays"


def reasons_to_stay(structure: Structure, groups: SliceGroups, recorder: SiteRecorder) -> list[str | None]:
    """For each group why it can't be folded, None where it can."""
    found: list[str | None] = [None] * groups.count
    read = torch.zeros(groups.count, dtype=torch.bool)

    def stays(at: Tensor, why: str) -> None:
        for group in at[at >= 0].unique().tolist():
            found[group] = found[group] or why

    for member in groups.members:
        if member.role != "outgoing":
            continue
        read[member.group[member.group >= 0]] = True
        if member.parameter in recorder.others:
            stays(member.group, f"{member.parameter} is used by {recorder.others[member.parameter]}")
        elif (member.parameter, member.axis) not in recorder.sites:
            stays(member.group, f"{member.parameter} reads it in no product whose operand is seen")
    classes = structure.classes
    group_of = torch.full((classes.count + 1,), -1)
    for name, units in groups.units.items():
        group_of[classes.sets[name]] = units
    for (name, _), plane in classes.planes.items():
        if name not in {m.parameter for m in groups.members} and bool(plane.outgoing.any()):
            stays(group_of[plane.classes[plane.outgoing]], f"{name} reads it, which is no parameter")
    for a, b in classes.dots:
        for side in (a, b):
            stays(group_of[classes.channel_class[side]], "it is multiplied with another activation")
    stays(torch.nonzero(~read)[:, 0], "nothing reads it")
    return found
