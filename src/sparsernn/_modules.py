"""The model behind its wrappers: one rule for every function that takes a model."""

from __future__ import annotations

from torch import nn

_SHARDED = ("FullyShardedDataParallel", "FSDPModule")


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel and `torch.compile`, in any order of nesting.

    So that parameter names are the model's own. Raises TypeError for what is no module and ValueError for a model that
    FSDP has sharded.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"Got {type(model).__name__} as the model, expected a torch.nn.Module.")
    for module in model.modules():
        # By name: importing torch's FSDP costs a second and fails on builds without distributed.
        if any(base.__name__ in _SHARDED for base in type(module).__mro__):
            raise ValueError(
                "The model is sharded by FSDP, whose ranks hold only parts of each weight matrix.\n"
                "Use DistributedDataParallel with sparsernn, or call sparsernn before sharding."
            )
    while (inner := _inside(model)) is not None:
        model = inner
    return model


def _inside(model: nn.Module) -> nn.Module | None:
    if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        return model.module
    inner = getattr(model, "_orig_mod", None)  # torch.compile
    return inner if isinstance(inner, nn.Module) else None
