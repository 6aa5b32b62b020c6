"""Cut planes out of a model's parameters and buffers, and bring its modules in line with their new widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.protocol import Kept, Layer, Sides
from ..structure.cells import RecurrentLayer
from ..structure.classes import Plane
from . import torch_modules
from ._reasons import note
from .states import keep_states


def kept_index(gone: Tensor) -> Tensor:
    """int64 indices of what stays."""
    return torch.nonzero(~gone)[:, 0]


def narrow_tensors(model: nn.Module, gone: Mapping[Plane, Tensor]) -> None:
    """Take the planes `gone` out of every parameter and buffer, in place: identities and ties stay."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for (name, axis), mask in gone.items():
        tensor = tensors[name]
        note(model, tensor)
        index = kept_index(mask).to(tensor.device)
        gradient = tensor.grad
        tensor.grad = None
        tensor.data = tensor.data.index_select(axis, index).contiguous()
        if gradient is not None:
            tensor.grad = gradient.index_select(axis, index).contiguous()


def takes_states(module: nn.Module) -> bool:
    """Whether it is a recurrent module of torch's or of this package."""
    return isinstance(module, (nn.RNNBase, nn.RNNCellBase, Layer))


def parts(model: nn.Module) -> set[int]:
    """ids of all modules inside layers of this package, which answer for them."""
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    return {id(part) for layer in layers for part in layer.modules() if part is not layer}


def kept_of(path: str, dead: Mapping[str, Tensor], gone: Mapping[Plane, Tensor]) -> Kept:
    """What stays of the layer at `path`."""
    start = path + "." if path else ""
    units = {name[len(start) :]: ~mask for name, mask in dead.items() if name.startswith(start)}
    columns = {name[len(start) :]: ~mask for (name, axis), mask in gone.items() if axis == 1 and name.startswith(start)}
    return Kept(units, columns)


def sides_of(
    model: nn.Module, layers: tuple[RecurrentLayer, ...], dead: Mapping[str, Tensor], gone: Mapping[Plane, Tensor]
) -> dict[str, Sides]:
    """Path of each recurrent module that is not inside of another one -> what stays of it as seen from outside.

    Asked before anything is cut.
    """
    found: dict[str, Sides] = {}
    inside = parts(model)
    for path, module in model.named_modules():
        if id(module) in inside or not takes_states(module):
            continue
        mine = [layer for layer in layers if layer.module == path]
        sides = module.sides(kept_of(path, dead, gone)) if isinstance(module, Layer) else None
        if sides is None and mine:
            states = [[~dead[layer.unit_sets[-1]] for layer in mine], [~dead[layer.name] for layer in mine]]
            last = [~dead[layer.unit_sets[-1]] for layer in mine if layer.layer == mine[-1].layer]
            read = gone.get((mine[0].parameters("ih")[0], 1))
            inputs = torch.ones(mine[0].input_size, dtype=torch.bool) if read is None else ~read
            sides = Sides(inputs, tuple(map(tuple, states[: mine[0].cell.states])), torch.cat(last))
        if sides is not None:
            found[path] = sides
    return found


def fit_modules(
    model: nn.Module,
    dead: Mapping[str, Tensor],
    gone: Mapping[Plane, Tensor],
    sides: Mapping[str, Sides],
    states: bool,
) -> nn.Module:
    """Sizes of every module from its tensors; stacks whose widths now differ become ragged. Returns the model.

    `states`: recurrent modules take states of the dense width as well.
    """
    for path, module in reversed(list(model.named_modules())):  # parts before what is made of them
        ours = isinstance(module, Layer)
        fitted = module.narrowed(kept_of(path, dead, gone)) if ours else torch_modules.fit(module)
        if fitted is not module:
            carry_over(module, fitted)
            model = replace_module(model, path, fitted)
        if path in sides:
            dense = [{len(row) for row in rows} for rows in sides[path].states]
            kept = [[row.nonzero()[:, 0].tolist() for row in rows] for rows in sides[path].states]
            # Modules of this package are no plain ones in any case: they take states of the dense width as well.
            own = states or isinstance(fitted, Layer)
            # Of several widths: ragged before, so that the caller's states are those of the module.
            even = all(len(widths) == 1 for widths in dense)
            keep_states(fitted, [max(widths) for widths in dense], kept, own and even)
    return model


def replace_module(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """Put `module` in the place of the one at `path` under all its names, in lists and dicts of attributes as well;
    returns the (new) root."""
    old = model.get_submodule(path)

    def swapped(value: Any) -> Any:
        if isinstance(value, list):
            value[:] = map(swapped, value)
        elif isinstance(value, dict):
            value.update({key: swapped(item) for key, item in value.items()})
        elif type(value) is tuple:
            return tuple(map(swapped, value))
        return module if value is old else value

    for parent in (*model.modules(), module):
        for name, value in vars(parent).items():
            if name not in ("_parameters", "_buffers"):
                parent.__dict__[name] = swapped(value)
    return module if old is model else model


def carry_over(old: nn.Module, new: nn.Module) -> None:
    """Hooks, mode, attachments and the user's own attributes of `old` for the module that takes its place."""
    for name, value in vars(old).items():
        own = name not in vars(new) and not name.startswith("_flat") and name not in ("_all_weights", "mode")
        if own or name.endswith("_hooks") or "_hooks_" in name or name == "training":
            new.__dict__[name] = value
