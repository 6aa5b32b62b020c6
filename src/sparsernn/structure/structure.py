"""`Structure`: what `trace` found, as plain data, and the questions that the other rooms ask of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .cells import RecurrentLayer
from .channels import Because, Reason
from .classes import Classes
from .groups import Level, Member, Role, SliceGroups

State = Tensor | tuple[Tensor, ...]  # class of each element of a state that the model hands out; a tuple has one a row


@dataclass(frozen=True)
class Kept:
    """Units (int64 indices) of a unit set that have to stay: why, by which operation, at which source line.

    `because` is the kind of the reason; where several keep a unit, one that tracing does not follow is told first.
    """

    unit_set: str
    units: Tensor
    reason: str
    operation: str
    where: str
    because: Because
    advice: str = ""


@dataclass(frozen=True)
class Structure:
    """The recurrent layers of a model, their units, and who reads them. Holds no reference to the model.

    `unit_sets` maps a name ("lstm.l0", "lstm.l0_reverse", "lstm.l0.projected", "cell") to its number of units; `ties`
    are (a, b, operation, where): units of a and b that go together. `parameters` is `dict(model.named_parameters())`
    in every method.
    """

    layers: tuple[RecurrentLayer, ...]
    unit_sets: Mapping[str, int]
    kept: tuple[Kept, ...]
    remarks: tuple[str, ...]  # `notes`, but for modules that no example reached
    unreached: tuple[str, ...]  # modules (or parameters of the model itself) that no example reached
    lost: tuple[Reason, ...]  # what is not followed in a model whose own cells gave no unit
    ties: tuple[tuple[str, str, str, str], ...]
    classes: Classes
    shapes: Mapping[str, tuple[int, ...]]
    unused: frozenset[str]  # parameters and buffers that no operation on the examples used
    states: Mapping[tuple[int, int], State]  # (example, place among the outputs) -> a carried state's units

    @property
    def notes(self) -> tuple[str, ...]:
        """What else is worth knowing, a sentence each."""
        return (*self.remarks, *unreached_note(self.unreached))

    def groups(self, level: Level = "unit") -> SliceGroups:
        """Groups of parameter slices: "unit" (only units that may go) or "gate" (one for each gate and unit).

        Raises ValueError for another level.
        """
        if level == "unit":
            return self._unit_groups()
        if level == "gate":
            return self._gate_groups()
        raise ValueError(f'groups: got level {level!r}, expected "unit" or "gate".')

    def dead(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Unit set -> bool (size,): the units that `compact` would take out for these values.

        Raises ValueError if `parameters` lacks one that the structure speaks of.
        """
        missing = next((name for layer in self.layers for name in layer.matrices() if name not in parameters), None)
        if missing is not None:
            raise ValueError(f"dead: {missing} is missing; pass dict(model.named_parameters()) of the traced model.")
        dead = torch.cat([self.classes.dead(parameters), torch.zeros(1, dtype=torch.bool)])
        return {name: dead[of_unit] for name, of_unit in self.classes.sets.items()}

    def removable(self) -> dict[str, Tensor]:
        """Unit set -> bool (size,): the units that may go once nothing reads them."""
        free = torch.cat([self.classes.free, torch.zeros(1, dtype=torch.bool)])
        return {name: free[of_unit] for name, of_unit in self.classes.sets.items()}

    def constant_gates(self, parameters: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Layer -> gate -> bool (hidden_size,): gates whose incoming rows are zero, so that they are act(bias).

        Columns of dead units don't count. Only gates that the cell declares constant in that case appear (a GRU's n
        is not one: it still sees r).
        """
        gone = self.classes.gone(self.classes.dead(parameters))
        found: dict[str, dict[str, Tensor]] = {}
        for layer in self.layers:
            gates: dict[str, Tensor] = {}
            for rows in layer.rows:
                if rows.kind == "bias" or rows.gate not in layer.cell.constant:
                    continue
                weight = parameters[rows.parameter].detach()[rows.start : rows.start + layer.hidden_size]
                columns = gone.get((rows.parameter, 1))
                if columns is not None:
                    weight = weight[:, ~columns.to(weight.device)]
                zero = (weight == 0).all(dim=1).cpu()
                gates[rows.gate] = gates.get(rows.gate, torch.ones_like(zero)) & zero
            found[layer.name] = gates
        return found

    def readers(self, unit_set: str, unit: int) -> list[tuple[str, int, int]]:
        """(parameter, axis, index) of every plane through which unit `unit` of `unit_set` is read."""
        c = int(self.classes.sets[unit_set][unit])
        return [
            (name, axis, int(index))
            for (name, axis), p in self.classes.planes.items()
            for index in torch.nonzero((p.classes == c) & p.outgoing)[:, 0]
        ]

    def explain(self) -> str:
        """A text for people: for each unit set how many units may go, who reads them, and why the rest stays."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        removable = self.removable()
        for name, size in self.unit_sets.items():
            may = int(removable[name].sum())
            yield f"{name}: {size} units, {may} may go once nothing reads them"
            of_unit = self.classes.sets[name]
            for (parameter, axis), p in self.classes.planes.items():
                hit = torch.isin(p.classes, of_unit[of_unit >= 0]) & p.outgoing & (p.classes >= 0)
                if bool(hit.any()):
                    at = torch.nonzero(hit)[:, 0]
                    site = f" ({p.sites[0][0]} at {p.sites[0][1]})" if p.sites else ""
                    yield f"  read by {parameter}, {_AXIS.get(axis, f'axis {axis}')} {_span(at)}{site}"
            for a, b, operation, where in self.ties:
                if name in (a, b):
                    yield f"  tied with {b if name == a else a}: they go together ({operation} at {where})"
            for k in self.kept:
                if k.unit_set == name:
                    advice = f"; {k.advice}" if k.advice else ""
                    yield f"  {len(k.units)} stay: {k.reason} ({k.operation} at {k.where}){advice}"
        yield from (f"note: {note}" for note in self.notes)

    def _unit_groups(self) -> SliceGroups:
        # Columns of embeddings that nobody reads may go as well, but no method learns them as units.
        units_only = torch.zeros_like(self.classes.free)
        for of_unit in self.classes.sets.values():
            units_only[of_unit[of_unit >= 0]] = True
        free = torch.nonzero(self.classes.free & units_only)[:, 0]
        number = torch.full((self.classes.count + 1,), -1)
        number[free] = torch.arange(len(free))
        units = {name: number[of_unit] for name, of_unit in self.classes.sets.items()}
        scopes = [""] * len(free)
        for name in reversed(list(units)):
            for g in units[name][units[name] >= 0].tolist():
                scopes[g] = name
        members = []
        for (name, axis), p in self.classes.planes.items():
            group = number[p.classes]
            out, owned = p.outgoing, ~p.outgoing & (p.owner >= 0) & (not p.scaled)
            dims = len(self.shapes[name])
            role: Role = "bias" if dims == 1 else "incoming"
            for chosen, part in ((out, "outgoing"), (owned, role)):
                if bool((chosen & (group >= 0)).any()):
                    members.append(Member(name, axis, torch.where(chosen, group, -1), part))  # type: ignore[arg-type]
        return SliceGroups("unit", len(free), tuple(members), tuple(scopes), units)

    def _gate_groups(self) -> SliceGroups:
        members: list[Member] = []
        scopes: list[str] = []
        units: dict[str, Tensor] = {}
        merged: dict[tuple[str, Role], Tensor] = {}
        for layer in self.layers:
            first = {gate: len(scopes) + n * layer.hidden_size for n, gate in enumerate(layer.gates)}
            scopes += [layer.name] * (len(layer.gates) * layer.hidden_size)
            for gate, start in first.items():
                units[f"{layer.name} {gate}"] = start + torch.arange(layer.hidden_size)
            for rows in layer.rows:
                role: Role = "bias" if rows.kind == "bias" else "incoming"
                size = self.shapes[rows.parameter][0]
                group = merged.setdefault((rows.parameter, role), torch.full((size,), -1))
                group[rows.start : rows.start + layer.hidden_size] = first[rows.gate] + torch.arange(layer.hidden_size)
        members = [Member(name, 0, group, role) for (name, role), group in merged.items()]
        return SliceGroups("gate", len(scopes), tuple(members), tuple(scopes), units)


_AXIS = {0: "row", 1: "column"}


def _span(index: Tensor) -> str:
    values = index.tolist()
    if len(values) == 1:
        return str(values[0])
    if values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}..{values[-1]}"
    return f"{values[0]}..{values[-1]} ({len(values)} of them)"


def unreached_note(paths: Sequence[str]) -> tuple[str, ...]:
    """The sentence on modules that no example reached, if there are any."""
    return (
        (f"no example reached {', '.join(paths)}: pass a list of examples that covers every branch",) if paths else ()
    )
