"""Proximal steps of L1 and group norms in the metric of the optimizer's own step.

An optimizer that moves weight i by gradient_i / d_i minimises a quadratic model with metric D = diag(d). The proximal
step of the penalty must use the same metric, or adaptive optimizers shrink weights with small gradients too little
and others too much:

    min_x  strength ||x||_2 + 1/2 sum_i d_i (x_i - v_i)^2

A group is zero if ||d v|| <= strength, else x_i = d_i v_i r / (d_i r + strength) with r = ||x|| the root of
sum_i (d_i v_i / (d_i r + strength))^2 = 1 on (0, ||v||). For SGD d = 1 / lr, and this is the usual soft threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .levels import wide
from .metric import Select
from .parts import Part, chunks

Metric = Callable[[Select], Tensor | float]


def shrink_weights(weight: Tensor, metric: Metric, strength: float) -> None:
    """Proximal step of strength |w|, in place: each weight moves by strength / d towards zero and stops there."""
    if strength == 0:
        return
    for rows in chunks(weight):
        limit = strength / metric(_rows(rows))
        value = weight[rows]
        value.sub_(torch.clamp(value, -limit, limit) if isinstance(limit, Tensor) else value.clamp(-limit, limit))


def shrink_groups(
    parts: Sequence[Part], parameters: Mapping[str, Tensor], metrics: Mapping[str, Metric], strength: float
) -> None:
    """Proximal step of strength * sum over groups of ||w_g||, in place, for disjoint groups made of `parts`."""
    if strength == 0:
        return
    size = length = torch.zeros(())
    for part in parts:
        pulled, squares = _squares(part, parameters[part.parameter], metrics[part.parameter])
        size, length = size.to(squares.device) + pulled, length.to(squares.device) + squares
    size, length = size.sqrt(), length.sqrt()
    # ||x|| if the metric were one number a group; off by strength / size at most, so only groups that are about to
    # go are refined in float32.
    radius = torch.where(size > strength, length * (1 - strength / size.clamp_min(strength)), 0)
    near = (size > strength) & (strength > (1e-2 if radius.dtype == torch.float32 else 0) * size)
    if bool(near.any()):
        chosen = near.nonzero()[:, 0]
        values, weights = [], []
        for part in parts:
            values.append(_elements(part, chosen)(parameters[part.parameter]).to(radius))
            weight = metrics[part.parameter](_elements(part, chosen))
            weights.append(
                weight.to(radius)
                if isinstance(weight, Tensor) and weight.dim()
                else values[-1].new_full(values[-1].shape, float(weight))
            )
        metric, value = torch.cat(weights, 1), torch.cat(values, 1)
        radius[chosen] = _radius(metric, metric * value, radius[chosen], length[chosen], strength)
    for part in parts:
        parameter = parameters[part.parameter]
        # x = v - v / (d r / strength + 1), which is exactly 0 for r = 0; outside all groups the divisor is infinite.
        slope = part.spread((radius / strength).to(parameter.device), 0.0)
        begin = part.spread(torch.ones_like(radius).to(parameter.device), torch.inf)
        for rows in chunks(parameter, part):
            metric = metrics[part.parameter](_rows(rows, part))
            if isinstance(metric, Tensor) and metric.dim():
                divisor = torch.addcmul(begin, metric, slope)
            else:
                divisor = begin + metric * slope
            part.subtract_quotient(parameter[rows], divisor)


def _squares(part: Part, parameter: Tensor, metric: Metric) -> tuple[Tensor, Tensor]:
    """Each group's sums of (d v)^2 and of v^2 over `part`."""
    pulled = squares = None
    scalar: Tensor | float = 1.0
    for rows in chunks(parameter, part):
        value, d = wide(part.narrow(parameter[rows])), metric(_rows(rows, part))
        # Groups lie along columns wherever there are several chunks, so rows add up in any order.
        squares = value * value if squares is None else _added(squares, value)
        if isinstance(d, Tensor) and d.dim():
            d = wide(d * value)
            pulled = d * d if pulled is None else _added(pulled, d)
        else:
            scalar = d
    assert squares is not None
    total = part.sums(squares)
    return (total * scalar**2 if pulled is None else part.sums(pulled)), total


def _added(total: Tensor, value: Tensor) -> Tensor:
    """Add the squares of a chunk of rows to those of the first and largest."""
    total[: value.shape[0]].addcmul_(value, value)
    return total


def _radius(metric: Tensor, pulled: Tensor, radius: Tensor, length: Tensor, strength: float) -> Tensor:
    """||x|| of groups that do not vanish, one in each row of `metric` (d) and `pulled` (d v), from a first guess.

    Newton on sum(...)^(-1/2) - 1, which is nearly linear in r, kept inside a bracket.
    """
    low, high = torch.zeros_like(radius), length
    # Newton squares the error: a last move of this relative size leaves 1e-6 in float32 and 1e-16 in float64.
    tolerance = 1e-3 if radius.dtype == torch.float32 else 1e-8
    for _ in range(50):
        below = metric * radius[:, None] + strength
        square = (pulled / below).square()
        value, slope = square.sum(1), (square * metric / below).sum(1)
        low, high = torch.where(value >= 1, radius, low), torch.where(value < 1, radius, high)
        new = radius + value * (value.sqrt() - 1) / slope.clamp_min(torch.finfo(slope.dtype).tiny)
        new = torch.where((new >= low) & (new <= high), new, (low + high) / 2)
        moved = (new - radius).abs() > tolerance * new
        radius = new
        if not bool(moved.any()):
            break
    return radius


def _rows(rows: slice, part: Part | None = None) -> Select:
    return lambda state: state[rows] if part is None else part.narrow(state[rows])


def _elements(part: Part, groups: Tensor) -> Select:
    return lambda state: part.rows(part.narrow(state), groups)
