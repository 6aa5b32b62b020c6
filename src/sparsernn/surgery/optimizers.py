"""Carry an optimizer over to the compacted model: its parameters, and its state cut in the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..structure.classes import Plane
from ..structure.examples import tensors_in
from .narrow import kept_index

Plan = dict[int, str]  # id of a parameter of the optimizer -> its name in the model
Orders = Mapping[str, Tensor]  # name of a parameter -> the rows that are left of it, in their new order


def repoint_plan(model: nn.Module, optimizer: Optimizer | None) -> Plan:
    """Names of the optimizer's parameters; ValueError if it holds one that is not the model's."""
    if optimizer is None:
        return {}
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"compact: optimizer is {optimizer!r}, expected a torch.optim.Optimizer or None.")
    names = {id(p): name for name, p in model.named_parameters()}
    strangers = sum(id(p) not in names for group in optimizer.param_groups for p in group["params"])
    if strangers:
        raise ValueError(
            f"compact: {strangers} parameters of the optimizer are not the model's: pass the optimizer that was made "
            "from model.parameters()."
        )
    return {id(p): names[id(p)] for group in optimizer.param_groups for p in group["params"]}


def repoint(
    optimizer: Optimizer, plan: Plan, small: nn.Module, gone: Mapping[Plane, Tensor], orders: Orders | None = None
) -> None:
    """Replace the optimizer's parameters by those of `small`, and cut its state with them; all or nothing.

    `gone`: what was cut from each parameter; `orders`: rows that were then picked. State of a parameter's own shape,
    or of size 1 along some of its axes (Adafactor's factors), follows. ValueError, with the optimizer as it was, where
    it keeps anything else for what was cut (a history over all parameters, a preconditioner).
    """
    new = dict(small.named_parameters())
    if lost := sorted(set(plan.values()) - new.keys()):
        raise ValueError(f"compact: {lost[0]} was folded away; make a new optimizer for the compacted model.")
    cuts: dict[str, list[tuple[int, Tensor]]] = {}
    for (name, axis), mask in gone.items():
        cuts.setdefault(name, []).append((axis, kept_index(mask)))
    for name, order in (orders or {}).items():
        cuts.setdefault(name, []).append((0, order))
    ready = []
    for each in _with_inner(optimizer):
        total = sum(p.numel() for group in each.param_groups for p in group["params"])
        state = {}
        for old, values in each.state.items():
            if id(old) in plan:
                name = plan[id(old)]
                cut = _Cut(type(each).__name__, name, old.shape, cuts.get(name, []), total if cuts else 0)
                state[new[name]] = {key: cut(key, value) for key, value in values.items()}
        ready.append((each, state))
    # Nothing raises from here on.
    groups = {id(group): group for each, _ in ready for group in each.param_groups}
    for group in groups.values():
        group["params"][:] = [new[plan[id(old)]] for old in group["params"]]
    for each, state in ready:
        each.state.clear()
        each.state.update(state)


def _with_inner(optimizer: Optimizer) -> Iterator[Optimizer]:
    """The optimizer and those that it wraps (sharpness-aware and lookahead ones step by another)."""
    yield optimizer
    for value in vars(optimizer).values():
        if isinstance(value, Optimizer):
            yield from _with_inner(value)


class _Cut:
    """Cuts the state of one parameter. `total`: values of all parameters together, 0 where nothing at all was cut."""

    def __init__(
        self, optimizer: str, name: str, shape: torch.Size, cuts: list[tuple[int, Tensor]], total: int
    ) -> None:
        self.optimizer, self.name, self.shape, self.cuts, self.total = optimizer, name, shape, cuts, total

    def __call__(self, key: str, value: Any) -> Any:
        if isinstance(value, Tensor) and self._fits(value):
            for axis, index in self.cuts:
                if value.shape[axis] != 1 or self.shape[axis] == 1:
                    value = value.index_select(axis, index.to(value.device))
            return value
        for tensor in tensors_in([value]):
            if tensor.numel() > 1 and (self.cuts or tensor.numel() == self.total):
                raise ValueError(
                    f"compact: {self.optimizer} keeps {key} of shape {list(tensor.shape)} for {self.name} of shape "
                    f"{list(self.shape)}, which can't be cut with it.\n"
                    "Compact without optimizer= and make a new one for the model that comes back."
                )
        return value

    def _fits(self, value: Tensor) -> bool:
        """Whether each axis is the parameter's, or of size 1."""
        own = value.dim() == len(self.shape) and all(v in (1, n) for v, n in zip(value.shape, self.shape))
        return own and (value.numel() > 1 or value.shape == self.shape)
