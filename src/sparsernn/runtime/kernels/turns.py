"""Sine and cosine of float32, for every angle."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit

from ..vector import INT64, WIDTH, instruction, types, vector
from .wide import (
    MAGIC64,
    each,
    fma64,
    if_odd,
    if_second,
    narrow,
    round64,
    vector_kind,
    wide,
)

# pi / 2 in three parts; a fused multiply-add takes n times each away with one rounding.
HALF_PI = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33)
FAR = 1e9  # from here on n would lose digits
# 1 / (2 pi) in parts of 29 bits, whose products with a float32 are exact: whole turns fall away part by part
# (Payne and Hanek's reduction).
TURN = (
    0.15915494319051504, -9.861970528407538e-11, -2.98359219573521e-19, -1.452834461901058e-28,
    -4.225483628960024e-37, 9.458140982133169e-46, -1.1392999330563689e-54, -8.879135970926695e-63,
)  # fmt: skip


@instruction(types.int64, vector)
def _any_far(builder: Any, x: Any) -> Any:
    """Whether a lane is larger than FAR in size, and finite or not."""
    over = builder.fcmp_ordered(">", x, ir.Constant(vector_kind, [FAR] * WIDTH))
    under = builder.fcmp_ordered("<", x, ir.Constant(vector_kind, [-FAR] * WIDTH))
    mask = builder.bitcast(builder.or_(over, under), ir.IntType(WIDTH))
    return builder.zext(builder.icmp_unsigned("!=", mask, ir.Constant(ir.IntType(WIDTH), 0)), INT64)


@njit
def _near(x):
    """(n + MAGIC64, r) with x = n pi / 2 + r, |r| <= pi / 4."""
    shifted = fma64(x, each(0.6366197723675814), each(MAGIC64))
    n = shifted - each(MAGIC64)
    r = fma64(n, each(-HALF_PI[0]), x)
    r = fma64(n, each(-HALF_PI[1]), r)
    return shifted, fma64(n, each(-HALF_PI[2]), r)


@njit
def _part(x, share, total, rest):
    """One more part of the turns added: the sum, and what its rounding lost."""
    turns = x * each(share)
    turns = turns - round64(turns)
    new = total + turns
    back = new - total
    return new, rest + ((total - (new - back)) + (turns - back))


@njit
def _far(x):
    total, rest = _part(x, TURN[0], each(0.0), each(0.0))
    total, rest = _part(x, TURN[1], total, rest)
    total, rest = _part(x, TURN[2], total, rest)
    total, rest = _part(x, TURN[3], total, rest)
    total, rest = _part(x, TURN[4], total, rest)
    total, rest = _part(x, TURN[5], total, rest)
    total, rest = _part(x, TURN[6], total, rest)
    total, rest = _part(x, TURN[7], total, rest)
    quarters = each(4.0) * total
    shifted = quarters + each(MAGIC64)
    return shifted, ((quarters - (shifted - each(MAGIC64))) + each(4.0) * rest) * each(HALF_PI[0])


@njit
def _sine(r):
    t = r * r
    p = fma64(t, each(-2.5052108385441718775e-8), each(2.7557319223985890653e-6))
    p = fma64(p, t, each(-1.9841269841269841270e-4))
    p = fma64(p, t, each(8.3333333333333333333e-3))
    p = fma64(p, t, each(-1.6666666666666666667e-1))
    return fma64(p, t * r, r)


@njit
def _cosine(r):
    t = r * r
    p = fma64(t, each(2.0876756987868098979e-9), each(-2.7557319223985890653e-7))
    p = fma64(p, t, each(2.4801587301587301587e-5))
    p = fma64(p, t, each(-1.3888888888888888889e-3))
    p = fma64(p, t, each(4.1666666666666666667e-2))
    p = fma64(p, t, each(-0.5))
    return fma64(p, t, each(1.0))


@njit
def sin(x, f):
    v = wide(x)
    shifted, r = _far(v) if _any_far(x) != 0 else _near(v)
    value = if_odd(shifted, _cosine(r), _sine(r))
    return narrow(if_second(shifted, each(-0.0) - value, value))


@njit
def cos(x, f):
    v = wide(x)
    shifted, r = _far(v) if _any_far(x) != 0 else _near(v)
    value = if_odd(shifted, each(-0.0) - _sine(r), _cosine(r))
    return narrow(if_second(shifted, each(-0.0) - value, value))
