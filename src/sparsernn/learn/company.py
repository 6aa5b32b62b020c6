"""What a sparsifier shares with others: the optimizers that train its parameters, the model, and copies of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def names(optimizers: Iterable[Optimizer]) -> str:
    return " and ".join(dict.fromkeys(type(each).__name__ for each in optimizers))


def check_trained(
    kind: str,
    followed: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    trained: set[int],
    optimizers: Sequence[Optimizer],
) -> None:
    """ValueError unless the model still has what is `followed`, and the optimizers (ids `trained`) train it."""
    for name, before in followed.items():
        if name not in parameters or parameters[name].shape != before.shape:
            raise ValueError(
                f"The model's {name} has another shape or name than when {kind} was made: make a new {kind} on it."
            )
    missing = [n for n in followed if parameters[n].requires_grad and id(parameters[n]) not in trained]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ValueError(
            f"{names(optimizers)} lacks parameters that {kind} has to change: {shown}.\n"
            "Build the optimizer on the same model (after moving it to its device), with these parameters in it; where "
            "several optimizers train them, give all: attach(one, other)."
        )


def check_one(kind: str, why: str, optimizers: Sequence[Optimizer]) -> None:
    """ValueError for several optimizers where there is a reason `why` it has to be one."""
    if why and len(optimizers) > 1:
        raise ValueError(
            f"{kind} takes one optimizer here, since {why}, and got {names(optimizers)}.\n"
            "Give their parameters as groups of one optimizer."
        )


def check_company(sparsifier: Any, optimizer: Optimizer) -> None:
    """Refuse a second sparsifier on weights that one of the two keeps for itself."""
    hooks = getattr(optimizer, "_optimizer_step_pre_hooks", {}).values()
    other: Any
    for other in (getattr(hook, "__self__", None) for hook in hooks):
        if not hasattr(other, "_keeps_weights") or not (sparsifier._keeps_weights() or other._keeps_weights()):
            continue
        both = [name for name in sparsifier._touched() if name in other._touched()]
        if both:
            raise ValueError(
                f"{type(other).__name__} is attached to this {type(optimizer).__name__} and changes {both[0]} too, and "
                "one of the two keeps weights beside those in the model.\n"
                "Call finish() of the first before, or part them with include=."
            )


def check_finite(kind: str, followed: Mapping[str, Tensor]) -> None:
    for name, value in followed.items():
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"{kind}.finish(): {name} is not finite (NaN or infinity), so nothing can be decided: look at the "
                "training first.\nThe model is as it was, and nothing follows the optimizer any more."
            )


def warn_of_exchanged(kind: str, model: nn.Module, followed: Mapping[str, Tensor]) -> None:
    """A layer that was put in the place of another is not the one that is followed."""
    now = dict(model.named_parameters())
    others = [name for name, parameter in followed.items() if now.get(name) is not parameter]
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        warnings.warn(
            f"{kind} follows parameters that are no longer the model's, which gets no zeros there ({shown}): a "
            "layer was exchanged.\n"
            "Call finish() and make a new one on the model as it is now.",
            stacklevel=4,
        )


@torch.no_grad()
def copy_zeros(module: nn.Module, followed: Mapping[str, Tensor]) -> None:
    """Zero in `module` what is zero in the parameters of these names."""
    found = dict(module.named_parameters())
    for name, value in followed.items():
        if name not in found or found[name].shape != value.shape:
            raise ValueError(
                f"{type(module).__name__} has no {name} of shape {tuple(value.shape)}, expected a copy of the "
                "sparsified model."
            )
    for name, value in followed.items():
        found[name].masked_fill_((value == 0).to(found[name].device), 0)
