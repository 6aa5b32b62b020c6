"""The elementwise operations of step programs as formulas of terms: options in, a formula out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import formulas as f
from .terms import pick

Formula = Callable[..., Any]


def smaller(a: Any, b: Any) -> Any:
    """Of a and b, NaN if one is NaN."""
    return pick(b != b, b, pick(b < a, b, a))


def larger(a: Any, b: Any) -> Any:
    return pick(b != b, b, pick(b > a, b, a))


def _relu(x: Any) -> Any:
    return pick(x < 0.0, 0.0, x)


def _absolute(x: Any) -> Any:
    return pick(x < 0.0, -x, x)


def _clamped(x: Any, low: float | None, high: float | None) -> Any:
    x = x if low is None else pick(x < low, low, x)
    return x if high is None else pick(x > high, high, x)


def _gelu(approximate: str = "none") -> Formula:
    if approximate == "none":
        return lambda x: 0.5 * x * (1.0 + f.erf(x * 0.70710678118654752))
    return lambda x: 0.5 * x * (1.0 + f.tanh(0.79788456080286536 * (x + 0.044715 * (x * x * x))))


def _elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Formula:
    return lambda x: pick(x > 0.0, x * scale, f.expm1(_clamped(x * input_scale, None, 0.0)) * (alpha * scale))


def _softplus(beta: float = 1.0, threshold: float = 20.0) -> Formula:
    def softplus(x: Any) -> Any:
        z = x * beta
        return pick(z > threshold, x, f.log1p(f.exp(_clamped(z, None, threshold))) / beta)

    return softplus


def _log_sigmoid(x: Any) -> Any:
    return _clamped(x, None, 0.0) - f.log1p(f.exp(-_absolute(x)))


def _hard_sigmoid(x: Any) -> Any:
    return _clamped(x + 3.0, 0.0, 6.0) / 6.0


def _clamp(min: float | None = None, max: float | None = None) -> Formula:
    return lambda x: _clamped(x, min, max)


def _leaky(negative_slope: float = 0.01) -> Formula:
    return lambda x: pick(x > 0.0, x, x * negative_slope)


def power(exponent: float) -> Formula | None:
    """x to this power by products and roots; None for one that these don't give."""
    if exponent == 0.5:
        return f.sqrt
    if exponent == -0.5:
        return lambda x: 1.0 / f.sqrt(x)
    if exponent != int(exponent) or not 1 <= abs(exponent) <= 16:
        return None

    def power(x: Any) -> Any:
        y = x
        for _ in range(int(abs(exponent)) - 1):
            y = y * x
        return 1.0 / y if exponent < 0 else y

    return power


def _plain(formula: Formula) -> Callable[[], Formula]:
    return lambda: formula


ELEMENTWISE: Mapping[str, Callable[..., Formula]] = {
    "copy": _plain(lambda x: x),
    "relu": _plain(_relu),
    "tanh": _plain(f.tanh),
    "sigmoid": _plain(f.sigmoid),
    "exp": _plain(f.exp),
    "log": _plain(f.log),
    "log1p": _plain(f.log1p),
    "expm1": _plain(f.expm1),
    "sqrt": _plain(f.sqrt),
    "rsqrt": _plain(lambda x: 1.0 / f.sqrt(x)),
    "reciprocal": _plain(lambda x: 1.0 / x),
    "abs": _plain(_absolute),
    "neg": _plain(lambda x: -x),
    "sign": _plain(lambda x: pick(x > 0.0, 1.0, pick(x < 0.0, -1.0, x))),
    "floor": _plain(f.floor),
    "ceil": _plain(lambda x: -f.floor(-x)),
    "round": _plain(f.nearest),
    "sin": _plain(f.sin),
    "cos": _plain(f.cos),
    "erf": _plain(f.erf),
    "silu": _plain(lambda x: x * f.sigmoid(x)),
    "mish": _plain(lambda x: x * f.tanh(_softplus()(x))),
    "gelu": _gelu,
    "elu": _elu,
    "leaky_relu": _leaky,
    "clamp": _clamp,
    "hardsigmoid": _plain(_hard_sigmoid),
    "hardswish": _plain(lambda x: x * _hard_sigmoid(x)),
    "softplus": _softplus,
    "log_sigmoid": _plain(_log_sigmoid),
    "add": _plain(lambda x, y: x + y),
    "sub": _plain(lambda x, y: x - y),
    "mul": _plain(lambda x, y: x * y),
    "div": _plain(lambda x, y: x / y),
    "maximum": _plain(larger),
    "minimum": _plain(smaller),
    "prelu": _plain(lambda x, slope: pick(x > 0.0, x, slope * x)),
    "where": _plain(pick),
}

CONDITIONS: Mapping[str, Formula] = {
    "logical_not": lambda x: x == 0,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "logical_and": lambda x, y: (x != 0) & (y != 0),
    "logical_or": lambda x, y: (x != 0) | (y != 0),
}
