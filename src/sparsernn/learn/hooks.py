"""What an optimizer step looks like from outside: wrappers, closures, scaled gradients and their overflow."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def unwrapped(optimizer: object) -> Optimizer:
    """The torch optimizer itself, also inside the wrappers of accelerate and Lightning."""
    found = optimizer
    while isinstance(getattr(found, "optimizer", None), Optimizer):
        found = found.optimizer  # type: ignore[attr-defined]
    if not isinstance(found, Optimizer):
        raise TypeError(f"attach: got {type(optimizer).__name__}, expected a torch.optim.Optimizer.")
    return found


def gradient_scale(optimizer: Optimizer) -> Tensor | float:
    """The factor by which gradients are scaled at this moment; negative where the optimizer maximises.

    Fused optimizers unscale inside their step, so that hooks see the scaled gradients (GradScaler sets
    `optimizer.grad_scale`, None once they were unscaled).
    """
    scale = getattr(optimizer, "grad_scale", None)
    sign = direction(optimizer)
    return sign if scale is None else sign * scale


def direction(optimizer: Optimizer) -> float:
    """1 where the optimizer minimises, -1 where it maximises. Raises ValueError for groups that differ in it."""
    found = {bool(group.get("maximize", False)) for group in optimizer.param_groups}
    if len(found) > 1:
        raise ValueError(
            f"{type(optimizer).__name__} has groups with maximize=True and others without: penalties and scores belong "
            "to one loss.\nUse maximize=False and turn the sign of that part of the loss."
        )
    return -1.0 if True in found else 1.0


def overflowed(optimizer: Optimizer) -> bool:
    """True if a fused optimizer skips this step because a scaled gradient was not finite."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def around_closure(
    args: tuple[Any, ...], kwargs: dict[str, Any], after: Callable[[Any], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Arguments of `Optimizer.step` with the closure wrapped so that `after(loss)` follows it; None: no closure.

    A closure zeroes the gradients and computes them anew, so what a sparsifier adds must come after it, each time.
    """
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if not callable(closure):
        return None

    @functools.wraps(closure)
    def wrapped(*inner_args: Any, **inner_kwargs: Any) -> Any:
        with torch.enable_grad():
            loss = closure(*inner_args, **inner_kwargs)
        with torch.no_grad():
            return after(loss)

    if len(args) > 1:
        return (args[0], wrapped, *args[2:]), kwargs
    return args, {**kwargs, "closure": wrapped}


def mask_state(optimizer: Optimizer, parameter: Tensor, mask: Tensor) -> None:
    """Zero the masked entries of momentum, exp_avg, exp_avg_sq and all other state shaped like the parameter."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape and value.is_floating_point():
            value.masked_fill_(~mask.to(value.device), 0)


def forget_directions(optimizer: Optimizer) -> None:
    """Drop the history of LBFGS, whose vectors were made for another set of weights."""
    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.state.clear()
