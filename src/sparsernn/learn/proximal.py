"""Proximal steps of L1 and group norms in the metric of the optimizer's own step.

An optimizer that moves weight i by gradient_i / d_i minimises a quadratic model with metric D = diag(d). The proximal
step of the penalty must use the same metric, or adaptive optimizers shrink weights with small gradients too little
and others too much:

    min_x  strength ||x||_2 + 1/2 sum_i d_i (x_i - v_i)^2

A group is zero if ||d v|| <= strength, else x_i = d_i v_i r / (d_i r + strength) with r = ||x|| the root of
sum_i (d_i v_i / (d_i r + strength))^2 = 1 on (0, ||v||). For SGD d = 1 / lr, and this is the usual soft threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .parts import Part

Metric = Tensor | float
_ADAPTIVE = ("Adam", "RMSprop", "Adagrad", "Adadelta", "Adafactor", "Lion", "Muon")


def is_adaptive(optimizer: Optimizer) -> bool:
    """True if the optimizer's steps hardly depend on the size of the gradient."""
    return any(part in base.__name__ for base in type(optimizer).__mro__ for part in _ADAPTIVE)


def step_metric(optimizer: Optimizer, parameter: Tensor) -> Metric:
    """d of the optimizer's last step on `parameter`: a tensor of its shape, or one number.

    Read from the state after the step: sqrt(v_hat) + eps over the learning rate for Adam and its kin, RMSprop,
    Adagrad and Adadelta; the learning rate alone for all others. Momentum without dampening multiplies the
    displacement by 1 / (1 - momentum), and so it does here, so that a group is zero exactly where the loss gradient
    cannot hold it.
    """
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    state: Mapping[str, Any] = optimizer.state.get(parameter, {})
    rate = group["lr"]
    momentum = group.get("momentum", 0) or 0
    if not isinstance(momentum, (int, float)) or not 0 <= momentum < 1:
        momentum = 0
    rate = rate * (1 - (group.get("dampening", 0) or 0)) / (1 - momentum)
    eps = group.get("eps", 0.0)
    second = state.get("max_exp_avg_sq", state.get("exp_avg_sq"))
    average = state.get("square_avg")
    if isinstance(second, Tensor) and second.shape == parameter.shape:  # Adam, AdamW, NAdam, RAdam
        correction = 1 - group["betas"][1] ** _count(state["step"])
        return second.sqrt().mul_(1 / (correction**0.5 * rate)).add_(eps / rate)
    if isinstance(average, Tensor) and isinstance(state.get("acc_delta"), Tensor):  # Adadelta
        return (average + eps).sqrt_().div_((state["acc_delta"] + eps).sqrt_()).div_(rate)
    if isinstance(average, Tensor):  # RMSprop
        if isinstance(state.get("grad_avg"), Tensor):
            average = (average - state["grad_avg"] ** 2).clamp_min_(0)
        return average.sqrt().add_(eps).div_(rate)
    if isinstance(state.get("sum"), Tensor):  # Adagrad
        rate = rate / (1 + (_count(state["step"]) - 1) * group.get("lr_decay", 0))
        return state["sum"].sqrt().add_(eps).div_(rate)
    return 1 / rate


def _count(step: Tensor | float) -> Tensor | float:
    # In double precision, as 1 - 0.999^1 in float32 is off by 1e-5; without waiting for the device.
    return step.double() if isinstance(step, Tensor) and step.is_cuda else float(step)


def shrink_weights(weight: Tensor, metric: Metric, strength: float) -> None:
    """Proximal step of strength |w|, in place: each weight moves by strength / d towards zero and stops there."""
    if isinstance(metric, Tensor) and metric.dim():
        limit = strength / metric
        weight.sub_(torch.clamp(weight, -limit, limit))
    else:
        limit = strength / float(metric)
        weight.sub_(weight.clamp(-limit, limit))


def shrink_groups(
    parts: Sequence[Part], parameters: Mapping[str, Tensor], metrics: Mapping[str, Metric], strength: float
) -> None:
    """Proximal step of strength * sum over groups of ||w_g||, in place, for disjoint groups made of `parts`."""
    values = [part.narrow(parameters[part.parameter]) for part in parts]
    numbers = {float(m) for m in metrics.values() if not isinstance(m, Tensor) or m.dim() == 0}
    uniform = len(numbers) == 1 and all(not isinstance(m, Tensor) or m.dim() == 0 for m in metrics.values())
    if uniform:
        limit = strength / numbers.pop()
        norms = _total(parts, [v * v for v in values]).sqrt()
        factor = (1 - limit / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_min(0)
        for part in parts:
            value = parameters[part.parameter]
            part.multiply(value, part.spread(factor.to(value.device, value.dtype), 1.0))
        return
    metric = [_narrow(part, metrics[part.parameter], v) for part, v in zip(parts, values)]
    pulled = [d * v for d, v in zip(metric, values)]
    size = _total(parts, [a * a for a in pulled]).sqrt()
    length = _total(parts, [v * v for v in values]).sqrt()
    radius = _radius(parts, metric, pulled, size, length, strength)
    for part, d in zip(parts, metric):
        value = parameters[part.parameter]
        # Outside all groups radius 1 and strength 0 leave a factor of one.
        inside = part.spread(torch.full_like(radius, strength).to(value), 0.0)
        scaled = d * part.spread(radius.to(value), 1.0)
        part.multiply(value, scaled.div_(scaled + inside))


def _radius(
    parts: Sequence[Part], metric: list[Tensor], pulled: list[Tensor], size: Tensor, length: Tensor, strength: float
) -> Tensor:
    """||x|| of each group: Newton on sum(...)^(-1/2) - 1, which is nearly linear in r; 0 where the group is zero."""
    alive = size > strength
    # Right for a metric that is one number a group; safe for all, since it lies in the bracket.
    radius = torch.where(alive, length * (1 - strength / size.clamp_min(strength)), 0)
    low, high = torch.zeros_like(radius), length.clone()
    # Newton squares the error: a last move of this relative size leaves 1e-4 in float32 and 1e-16 in float64.
    tolerance = 1e-2 if radius.dtype == torch.float32 else 1e-8
    for _ in range(50):
        squares, slopes = [], []
        for part, d, a in zip(parts, metric, pulled):
            below = (part.spread(radius.to(d.device), 1.0) * d).add_(strength)
            square = (a / below).square_()
            squares.append(part.sums(square))
            slopes.append(part.sums(square.mul_(d).div_(below)))
        value, slope = _added(squares), _added(slopes)
        low, high = torch.where(value >= 1, radius, low), torch.where(value < 1, radius, high)
        new = radius + value * (value.sqrt() - 1) / slope.clamp_min(torch.finfo(slope.dtype).tiny)
        new = torch.where((new >= low) & (new <= high), new, (low + high) / 2)
        new = torch.where(alive, new, 0)
        moved = alive & ((new - radius).abs() > tolerance * new)
        radius = new
        if not bool(moved.any()):
            break
    return radius


def _total(parts: Sequence[Part], narrowed: list[Tensor]) -> Tensor:
    return _added([part.sums(value) for part, value in zip(parts, narrowed)])


def _added(sums: list[Tensor]) -> Tensor:
    total = sums[0]
    for each in sums[1:]:
        total = total + each.to(total.device)
    return total


def _narrow(part: Part, metric: Metric, value: Tensor) -> Tensor:
    if isinstance(metric, Tensor) and metric.dim():
        return part.narrow(metric)
    return torch.full_like(value, float(metric))
