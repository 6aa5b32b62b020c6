"""Operators that compute each number by itself, and those that choose between numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .table import DTYPES, TABLE, Operator, operator

_ALONE: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs, "Neg": torch.neg, "Exp": torch.exp, "Log": torch.log, "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Relu": torch.relu, "Erf": torch.erf,
    "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round, "Sign": torch.sign, "Not": torch.logical_not,
    "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan, "Asin": torch.asin, "Acos": torch.acos, "Atan": torch.atan,
    "Sinh": torch.sinh, "Cosh": torch.cosh, "Asinh": torch.asinh, "Acosh": torch.acosh, "Atanh": torch.atanh,
    "Softplus": F.softplus, "Softsign": F.softsign, "HardSwish": F.hardswish, "Mish": F.mish, "IsNaN": torch.isnan,
}  # fmt: skip
PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b, "Pow": lambda a, b: a**b,
    "And": lambda a, b: a & b, "Or": lambda a, b: a | b, "Xor": lambda a, b: a ^ b, "Equal": lambda a, b: a == b,
    "Less": lambda a, b: a < b, "LessOrEqual": lambda a, b: a <= b, "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
}  # fmt: skip


def _alone(run: Callable[[Tensor], Tensor]) -> Operator:
    return Operator(lambda step, x: run(x))


def _pair(run: Callable[[Any, Any], Any]) -> Operator:
    return Operator(lambda step, a, b: run(a, b), numbers=True)


TABLE.update({name: _alone(run) for name, run in _ALONE.items()})
TABLE.update({name: _pair(run) for name, run in PAIRS.items()})


@operator("Div", numbers=True)
def divide(step: Any, a: Any, b: Any) -> Any:
    integers = all(isinstance(v, int) or (isinstance(v, Tensor) and not v.is_floating_point()) for v in (a, b))
    return torch.div(a, b, rounding_mode="trunc") if integers else a / b


@operator("Mod")
def modulo(step: Any, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if step.get("fmod", 0) else torch.remainder(a, b)


@operator("Identity", "Dropout")
def identity(step: Any, x: Any, *_: Any) -> Any:
    return x


@operator("Sum", numbers=True)
def add_all(step: Any, first: Any, *others: Any) -> Any:
    for other in others:
        first = first + other
    return first


@operator("Mean", numbers=True)
def mean_of_all(step: Any, *values: Any) -> Any:
    return add_all(step, *values) / len(values)


@operator("Max")
def largest(step: Any, first: Tensor, *others: Tensor) -> Tensor:
    for other in others:
        first = torch.maximum(first, other)
    return first


@operator("Min")
def smallest(step: Any, first: Tensor, *others: Tensor) -> Tensor:
    for other in others:
        first = torch.minimum(first, other)
    return first


@operator("Where", numbers=True)
def where(step: Any, condition: Any, a: Any, b: Any) -> Tensor:
    return torch.where(torch.as_tensor(condition), a, b)


@operator("Clip", numbers=True)
def clip(step: Any, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    low, high = (step.get(name) if value is None else value for name, value in (("min", low), ("max", high)))
    return x if low is None and high is None else torch.clamp(x, low, high)


@operator("LeakyRelu")
def leaky_relu(step: Any, x: Tensor) -> Tensor:
    return F.leaky_relu(x, step.get("alpha", 0.01))


@operator("PRelu", numbers=True)
def prelu(step: Any, x: Tensor, slope: Any) -> Tensor:
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def elu(step: Any, x: Tensor) -> Tensor:
    return F.elu(x, step.get("alpha", 1.0))


@operator("Selu")
def selu(step: Any, x: Tensor) -> Tensor:
    alpha, gamma = step.get("alpha", 1.6732632423543772), step.get("gamma", 1.0507009873554805)
    return gamma * F.elu(x, alpha)


@operator("Celu")
def celu(step: Any, x: Tensor) -> Tensor:
    return F.celu(x, step.get("alpha", 1.0))


@operator("ThresholdedRelu")
def thresholded_relu(step: Any, x: Tensor) -> Tensor:
    return torch.where(x > step.get("alpha", 1.0), x, 0.0)


@operator("HardSigmoid")
def hard_sigmoid(step: Any, x: Tensor) -> Tensor:
    return torch.clamp(x * step.get("alpha", 0.2) + step.get("beta", 0.5), 0.0, 1.0)


@operator("Gelu")
def gelu(step: Any, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=step.get("approximate", "none"))


@operator("Swish")
def swish(step: Any, x: Tensor) -> Tensor:
    return x * torch.sigmoid(step.get("alpha", 1.0) * x)


@operator("IsInf")
def is_infinite(step: Any, x: Tensor) -> Tensor:
    high, low = step.get("detect_positive", 1), step.get("detect_negative", 1)
    return (x == math.inf) & bool(high) | (x == -math.inf) & bool(low)


@operator("Cast", like=True)
def cast(step: Any, like: Tensor, x: Tensor) -> Tensor:
    kind = step.get("to")
    if kind != 1 and kind not in DTYPES:
        raise ValueError(f"it casts to element type {kind}, which is not read.")
    # The file's float32 is the precision that the model has now, which is that of its other numbers.
    return x.to(like.dtype if kind == 1 else DTYPES[kind])


@operator("CastLike")
def cast_like(step: Any, x: Tensor, other: Tensor) -> Tensor:
    return x.to(other.dtype)
