"""The metric of an optimizer's own step: by how much each weight moves for a gradient, read from the state after it.

With d of `step_metric` a weight under a gradient g that stays moves by g / d a step, weight decay apart. What has no
such d for each weight (a step that is a sign, an orthogonal matrix or a line search) is refused when a sparsifier is
attached, not taken for SGD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Select = Callable[[Tensor], Tensor]  # picks a part of each state tensor: rows, or the elements of some groups
_ADAPTIVE = ("Adam", "RMSprop", "Adagrad", "Adadelta", "Adafactor", "Rprop", "Lion", "Muon")
_LEAST_RATE = 1e-30  # a rate of zero, as warm-ups begin with: nothing moves, and all stays finite
Group = Mapping[str, Any]
State = Mapping[str, Any]


def is_adaptive(optimizer: Optimizer) -> bool:
    """True if the optimizer's steps hardly depend on the size of the gradient."""
    return any(part in base.__name__ for base in type(optimizer).__mro__ for part in _ADAPTIVE)


def check_metric(kind: str, optimizer: Optimizer) -> None:
    """ValueError for an optimizer whose step has no metric for each weight, or none that is known."""
    if _rule(optimizer) is not None:
        return
    known = ", ".join(each.__name__ for each in _RULES)
    raise ValueError(
        f"{kind}: the proximal step needs to know how far a step of {type(optimizer).__name__} moves each weight for a "
        f"gradient, and it does not.\nKnown are {known}; or use Shrink(to=), which needs none, or "
        'update="subgradient".'
    )


def step_metric(optimizers: Iterable[Optimizer], parameter: Tensor, select: Select) -> Tensor | float:
    """d of the last step of that of the `optimizers` that trains `parameter`, on what `select` picks of it: a tensor of
    that shape, or one number.

    Momentum without dampening multiplies the displacement by 1 / (1 - momentum), and so it does here, so that a group
    is zero exactly where the loss gradient cannot hold it. A parameter that has had no step yet has 1 / lr.
    """
    groups = ((o, g) for o in optimizers for g in o.param_groups)
    optimizer, group = next((o, g) for o, g in groups if any(p is parameter for p in g["params"]))
    rule = _rule(optimizer)
    assert rule is not None, "attach refuses optimizers without a metric"
    state: State = optimizer.state.get(parameter, {})
    rate = _rate(group)
    return rule(group, state, parameter, select, rate) if state else 1 / rate


def _rule(optimizer: Optimizer) -> Callable[..., Tensor | float] | None:
    return next((rule for kind, rule in _RULES.items() if isinstance(optimizer, kind)), None)


def _rate(group: Group) -> Tensor | float:
    """The learning rate, times what momentum makes of a gradient that stays."""
    rate = group["lr"]
    rate = rate.clamp_min(_LEAST_RATE) if isinstance(rate, Tensor) else max(rate, _LEAST_RATE)
    momentum = group.get("momentum", 0) or 0
    if not isinstance(momentum, (int, float)) or not 0 <= momentum < 1:
        momentum = 0
    return rate * (1 - (group.get("dampening", 0) or 0)) / (1 - momentum)


def _sgd(group: Group, state: State, parameter: Tensor, select: Select, rate: Any) -> Tensor | float:
    return 1 / rate


def _asgd(group: Group, state: State, parameter: Tensor, select: Select, rate: Any) -> Tensor | float:
    # `eta` in the state is that of the next step already.
    return (1 + group["lambd"] * rate * (_count(state["step"]) - 1)) ** group["alpha"] / rate


def _adam(group: Group, state: State, parameter: Tensor, select: Select, rate: Any) -> Tensor | float:
    second = state["max_exp_avg_sq"] if "max_exp_avg_sq" in state else state["exp_avg_sq"]
    correction = 1 - group["betas"][1] ** _count(state["step"])
    return _line(select(second).sqrt(), 1 / (correction**0.5 * rate), group["eps"] / rate)


def _nadam(group: Group, state: State, parameter: Tensor, select: Select, rate: Any) -> Tensor | float:
    step, product, (beta, _) = float(state["step"]), float(state["mu_product"]), group["betas"]
    now, following = (beta * (1 - 0.5 * 0.96 ** ((step + n) * group["momentum_decay"])) for n in (0, 1))
    # The gradient's own share, and that of its running mean, which has 1 - beta^t of a gradient that stays.
    share = (1 - now) / (1 - product) + following * (1 - beta**step) / (1 - product * following)
    return _adam(group, state, parameter, select, rate * share)


def _radam(group: Group, state: State, parameter: Tensor, select: Select, rate: Any) -> Tensor | float:
    step, beta = float(state["step"]), group["betas"][1]
    correction = 1 - beta**step
    longest = 2 / (1 - beta) - 1
    length = longest - 2 * step * beta**step / correction
    if length <= 5:  # too few gradients for a variance: a plain step
        return 1 / rate
    rectified = ((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5
    rate = rate * rectified * correction**0.5
    return _line(select(state["exp_avg_sq"]).sqrt(), 1 / rate, group["eps"] / rate)


def _adamax(group: Group, state: State, parameter: Tensor, select: Select, rate: Any) -> Tensor | float:
    return select(state["exp_inf"]) / rate  # eps is in it


def _adadelta(group: Group, state: State, parameter: Tensor, select: Select, rate: Any) -> Tensor | float:
    rho, eps = group["rho"], group["eps"]
    square, after = select(state["square_avg"]) + eps, select(state["acc_delta"])
    # The step was taken with the mean of squared steps before it, which this step is part of by now. (Decay is that of
    # the weights after the step, off by the rate times the decay.)
    ratio: Tensor | float = 0.0
    if parameter.grad is not None:
        sign = -1 if group["maximize"] else 1
        gradient = torch.add(sign * select(parameter.grad), select(parameter), alpha=group["weight_decay"])
        ratio = gradient**2 / square
    before = (after + rho * eps) / (rho + (1 - rho) * ratio)
    return (square / before).sqrt_().div_(rate)


def _rmsprop(group: Group, state: State, parameter: Tensor, select: Select, rate: Any) -> Tensor | float:
    average = select(state["square_avg"])
    if "grad_avg" in state:
        average = (average - select(state["grad_avg"]) ** 2).clamp_min_(0)
    return _line(average.sqrt(), 1 / rate, group["eps"] / rate)


def _adagrad(group: Group, state: State, parameter: Tensor, select: Select, rate: Any) -> Tensor | float:
    rate = rate / (1 + (_count(state["step"]) - 1) * group["lr_decay"])
    return _line(select(state["sum"]).sqrt(), 1 / rate, group["eps"] / rate)


# By class, so that subclasses are known too; the first that fits (AdamW is an Adam).
_RULES: dict[type[Optimizer], Callable[..., Tensor | float]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.NAdam: _nadam,
    torch.optim.RAdam: _radam,
    torch.optim.Adamax: _adamax,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
    torch.optim.Adadelta: _adadelta,
    torch.optim.ASGD: _asgd,
}


def _line(root: Tensor, slope: Any, shift: Any) -> Tensor:
    """slope * root + shift in one pass, in place of `root`."""
    if isinstance(slope, Tensor) or isinstance(shift, Tensor):
        return root.mul_(slope).add_(shift)
    return torch.add(root.new_tensor(shift), root, alpha=slope, out=root)


def _count(step: Tensor | float) -> Tensor | float:
    # In double precision, as 1 - 0.999^1 in float32 is off by 1e-5; without waiting for the device.
    return step.double() if isinstance(step, Tensor) and step.is_cuda else float(step)
