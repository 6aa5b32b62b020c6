"""The places of a model that hold tensors, and what it holds besides them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._modules import places

_OWN = frozenset(vars(nn.Module()))  # tables of parameters, modules and hooks


@dataclass(frozen=True)
class Slot:
    """A place of a model that holds a tensor. `role`: parameter, buffer, cache (a buffer that is not persistent) or
    attribute (a plain attribute, or an item of a list, tuple or dict that is one)."""

    name: str
    module: nn.Module
    local: str
    tensor: Tensor
    role: str


def slots(model: nn.Module, swapped: Mapping[int, nn.Module] | None = None) -> Iterator[Slot]:
    """Every place of `model` that holds a tensor, shared ones too; `swapped`: id(module) -> what stands for it."""
    found = [(place, (swapped or {}).get(id(module), module)) for place, module in places(model, twice=True)]
    registered: set[int] = set()
    for place, module in found:
        start = place + "." if place else ""
        for local, parameter in module._parameters.items():
            if parameter is not None:
                registered.add(id(parameter))
                yield Slot(start + local, module, local, parameter, "parameter")
        for local, buffer in module._buffers.items():
            if buffer is not None:
                registered.add(id(buffer))
                role = "cache" if local in module._non_persistent_buffers_set else "buffer"
                yield Slot(start + local, module, local, buffer, role)
    for place, module in found:
        for local, value in _attributes(module) if is_users(module) else ():
            for end, tensor in _tensors(value):
                if id(tensor) not in registered:
                    yield Slot(
                        f"{place}.{local}{end}" if place else local + end, module, local + end, tensor, "attribute"
                    )


def is_users(module: nn.Module) -> bool:
    """Whether the class is the user's own: torch's modules and those of this package make their attributes anew."""
    return not type(module).__module__.startswith(("torch.", "sparsernn."))


def may_set(module: nn.Module, local: str) -> bool:
    """Whether a file may set this attribute: a plain name that hides nothing of the class."""
    return (
        is_users(module) and local.isidentifier() and local not in _OWN and getattr(type(module), local, None) is None
    )


def refuse_what_is_elsewhere(model: nn.Module) -> None:
    """TypeError for state that is neither parameter nor buffer nor plain tensor, by the module's name."""
    for place, module in places(model):
        name = place or "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{name} is compiled by torch.jit, which keeps state of its own: save the Python module, or use "
                "torch.jit.save."
            )
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise TypeError(f"{name} has an extra state (get_extra_state), which is not saved here.")
        packed = [local for local, value in vars(module).items() if isinstance(value, torch.ScriptObject)]
        state: dict[str, Any] = {}
        module._save_to_state_dict(state, "", True)
        packed += [local for local in state if local not in module._parameters and local not in module._buffers]
        if packed:
            raise TypeError(
                f"{name} ({type(module).__name__}) keeps {packed[0]} outside its parameters and buffers, as quantised "
                "modules do, and that is not saved here.\nSave the model before it is quantised, or use torch.save."
            )


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for local, value in vars(module).items():
        if local not in _OWN and not local.startswith("_sparsernn"):
            yield local, value


def _tensors(value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield "", value
    elif type(value) in (list, tuple, dict):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            for end, tensor in _tensors(part):
                yield f"[{key!r:.40}]{end}", tensor
