"""Weights that are computed at each call (norms, masks, parametrizations), worked out once and made plain parameters.

Only ever called on a module of a copy: what it was computed from is dropped. Nothing is changed in place, since the
originals may be shared with other modules (a tied embedding).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .._modules import own, unparametrize
from .weights import lacking, weight_shapes

_PARTS = ("_g", "_v", "_u", "_orig", "_mask")  # what norms and masks keep beside the weight, by its name


def bake(module: nn.Module, wrappers: Iterable[nn.Module] = ()) -> str:
    """Give `module` every weight of its sizes as a plain parameter; "" or the reason why that can't be.

    wrappers: modules round it, where weight drop may keep the raw weights.
    """
    if parametrize.is_parametrized(module):
        wrong = unparametrize(module)
        if wrong:
            return wrong
    hooks = module._forward_pre_hooks
    # The last one attached may work on a part of the one before it, so it goes first.
    for key, hook in reversed(list(hooks.items())):
        if isinstance(hook, (WeightNorm, SpectralNorm, BasePruningMethod)):
            hook(module, ())
            _drop_hook(module, key, hook)
    for name, shape in weight_shapes(module).items():
        value = _written(module, name, wrappers)
        if value is not None and tuple(value.shape) == shape:
            own(module, name, value)
    return lacking(module)


def is_computed(module: nn.Module) -> bool:
    """Whether some weight of `module` is no plain parameter of its own."""
    own = module._parameters
    return any(not isinstance(own.get(name), nn.Parameter) for name in weight_shapes(module))


def _drop_hook(module: nn.Module, key: int, hook: Any) -> None:
    name = hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
    value = getattr(module, name).detach().clone()
    del module._forward_pre_hooks[key]
    for part in _PARTS:
        for place in (module._parameters, module._buffers, module.__dict__):
            place.pop(name + part, None)
    for others in (module._state_dict_hooks, module._load_state_dict_pre_hooks):
        for number in [n for n, other in others.items() if getattr(other, "fn", None) is hook]:
            del others[number]
    own(module, name, value)


def _written(module: nn.Module, name: str, wrappers: Iterable[nn.Module]) -> Tensor | None:
    """A tensor that stands or will be set where the parameter should be: weight drop sets one at each call."""
    if isinstance(module._parameters.get(name), nn.Parameter):
        return None
    for value in (module._parameters.get(name), module.__dict__.get(name)):
        if isinstance(value, Tensor):
            return value
    raw = [owner._parameters.get(f"{name}_raw") for owner in (module, *wrappers)]
    return next((value for value in raw if value is not None), None)
