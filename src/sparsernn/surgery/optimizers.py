"""Carry an optimizer over to the compacted model: its parameters, and its state cut in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..structure.classes import Plane
from .narrow import kept_index

Plan = dict[int, str]  # id of a parameter of the optimizer -> its name in the model


def repoint_plan(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Plan:
    """Names of the optimizer's parameters; ValueError if it holds one that is not the model's."""
    if optimizer is None:
        return {}
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"compact: optimizer is {optimizer!r}, expected a torch.optim.Optimizer or None.")
    names = {id(p): name for name, p in model.named_parameters()}
    strangers = sum(id(p) not in names for group in optimizer.param_groups for p in group["params"])
    if strangers:
        raise ValueError(
            f"compact: {strangers} parameters of the optimizer are not the model's: pass the optimizer that was made "
            "from model.parameters()."
        )
    return {id(p): names[id(p)] for group in optimizer.param_groups for p in group["params"]}


def repoint(optimizer: torch.optim.Optimizer, plan: Plan, small: nn.Module, gone: Mapping[Plane, Tensor]) -> None:
    """Replace the optimizer's parameters by those of `small`; tensors of a parameter's shape are cut with it."""
    new = dict(small.named_parameters())
    state: dict[Any, Any] = {}
    for group in optimizer.param_groups:
        for place, old in enumerate(group["params"]):
            name = plan[id(old)]
            if name not in new:
                raise ValueError(f"compact: {name} was folded away; make a new optimizer for the compacted model.")
            if old in optimizer.state:
                state[new[name]] = {
                    key: _cut(value, name, gone) if isinstance(value, Tensor) and value.shape == old.shape else value
                    for key, value in optimizer.state[old].items()
                }
            group["params"][place] = new[name]
    optimizer.state.clear()
    optimizer.state.update(state)


def _cut(value: Tensor, name: str, gone: Mapping[Plane, Tensor]) -> Tensor:
    for (parameter, axis), mask in gone.items():
        if parameter == name:
            value = value.index_select(axis, kept_index(mask).to(value.device))
    return value.clone()
