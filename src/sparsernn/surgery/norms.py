"""Norms of each channel without weights or statistics: only what they take in tells how wide they have become."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from .._modules import in_eval
from ..structure import examples


def fit_weightless_norms(model: nn.Module, call: examples.Call) -> None:
    """Bring the widths of such modules in line with what the example brings to them."""
    names = [name for name, module in model.named_modules() if _is_weightless(module)]
    if not names:
        return
    twin = in_eval(model)
    for name in names:
        twin.get_submodule(name).register_forward_pre_hook(_fit)
    examples.run(twin, examples.fresh(call))
    for name in names:
        mine, fitted = model.get_submodule(name), twin.get_submodule(name)
        vars(mine).update({size: vars(fitted)[size] for size in _SIZES if size in vars(mine)})


_SIZES = ("num_features", "num_channels", "num_groups")


def _fit(module: Any, args: tuple[Tensor, ...]) -> None:
    x = args[0]
    if isinstance(module, nn.GroupNorm):
        module.num_channels = module.num_groups = x.shape[1]
    else:
        module.num_features = x.shape[x.dim() - module._get_no_batch_dim()]


def _is_weightless(module: nn.Module) -> bool:
    if isinstance(module, nn.GroupNorm):
        return module.weight is None and module.num_groups == module.num_channels
    return isinstance(module, _InstanceNorm) and module.weight is None and module.running_mean is None
