"""Elementary functions of a vector of float32, right to about one unit in the last place over the whole range.

Each takes the vector and the address of its numbers (float32, 8 bytes apart), of which most have none. sigmoid and
tanh alone are those of the recurrent cells: an error near 1e-7, and -87 as the least that e^x is taken of.
"""

from __future__ import annotations

from numba import njit

from ..vector import absolute as absolute32
from ..vector import at_least, at_most, f32, splat, with_sign_of
from ..vector import sigmoid as sigmoid32
from ..vector import tanh as tanh32
from .exponentials import INFINITY, NAN, erf64, erfc64, exp64, expm1_64, log1p64, log64
from .wide import (
    absolute64,
    ceil32,
    each,
    floor32,
    floor64,
    fma64,
    if_equal,
    if_less,
    if_nan,
    narrow,
    round32,
    sign_of64,
    sqrt32,
    where_equal,
    where_less,
    where_less_equal,
    where_nonzero,
    wide,
)


@njit
def number(f, n):
    """Number n of the operation, in each lane."""
    return splat(f32(f, 2 * n))


@njit
def number64(f, n):
    return wide(splat(f32(f, 2 * n)))


# Functions of one vector.


@njit
def copy(x, f):
    return x


@njit
def truth(x, f):
    """1 where x is not 0."""
    return where_nonzero(x, splat(1.0), splat(0.0))


@njit
def logical_not(x, f):
    return where_nonzero(x, splat(0.0), splat(1.0))


@njit
def relu(x, f):
    return at_least(x, splat(0.0))


@njit
def tanh(x, f):
    return tanh32(x)


@njit
def sigmoid(x, f):
    return sigmoid32(x)


@njit
def exp(x, f):
    return narrow(exp64(wide(x)))


@njit
def expm1(x, f):
    return narrow(expm1_64(wide(x)))


@njit
def log(x, f):
    return narrow(log64(wide(x)))


@njit
def log1p(x, f):
    return narrow(log1p64(wide(x)))


@njit
def sqrt(x, f):
    return sqrt32(x)


@njit
def rsqrt(x, f):
    return splat(1.0) / sqrt32(x)


@njit
def reciprocal(x, f):
    return splat(1.0) / x


@njit
def absolute(x, f):
    return absolute32(x)


@njit
def neg(x, f):
    return splat(-0.0) - x


@njit
def sign(x, f):
    return where_less(splat(0.0), x, splat(1.0), where_less(x, splat(0.0), splat(-1.0), splat(0.0)))


@njit
def floor(x, f):
    return floor32(x)


@njit
def ceil(x, f):
    return ceil32(x)


@njit
def nearest(x, f):
    return round32(x)


@njit
def erf(x, f):
    return narrow(erf64(wide(x)))


@njit
def silu(x, f):
    v = wide(x)
    return narrow(v / (each(1.0) + exp64(each(0.0) - v)))


@njit
def gelu(x, f):
    v = wide(x)
    half = each(0.5) * erfc64(v * each(-0.7071067811865476))
    return narrow(v * half)


@njit
def gelu_tanh(x, f):
    """x (1 + tanh u) / 2 = x / (1 + e^-2u), u = (2 / pi)^(1/2) (x + 0.044715 x^3)."""
    v = wide(x)
    u = each(-2.0 * 0.7978845608028654) * fma64(each(0.044715) * v * v, v, v)
    return narrow(v / (each(1.0) + exp64(u)))


@njit
def mish(x, f):
    """x tanh(log(1 + e)) = x (e^2 + 2e) / (e^2 + 2e + 2), e = e^x."""
    v = wide(x)
    e = exp64(if_less(each(60.0), v, each(60.0), v))
    a = fma64(e, e, e + e)
    return narrow(v * (a / (a + each(2.0))))


@njit
def elu(x, f):
    """Numbers: alpha, scale, scale of the input."""
    v, scale = wide(x), number64(f, 1)
    below = expm1_64(v * number64(f, 2)) * (number64(f, 0) * scale)
    return narrow(if_less(each(0.0), v, v * scale, if_nan(v, v, below)))


@njit
def leaky_relu(x, f):
    return where_less(splat(0.0), x, x, x * number(f, 0))


@njit
def clamp(x, f):
    """Numbers: the least, the greatest."""
    return at_most(at_least(x, number(f, 0)), number(f, 1))


@njit
def hardsigmoid(x, f):
    return at_most(at_least(x + splat(3.0), splat(0.0)), splat(6.0)) / splat(6.0)


@njit
def hardswish(x, f):
    return x * at_most(at_least(x + splat(3.0), splat(0.0)), splat(6.0)) / splat(6.0)


@njit
def softplus(x, f):
    """Numbers: beta, threshold of beta x from which on it is x."""
    v, beta = wide(x), number64(f, 0)
    z = v * beta
    soft = if_less(each(0.0), z, z, each(0.0)) + log1p64(exp64(each(0.0) - absolute64(z)))
    return narrow(if_less(number64(f, 1), z, v, if_nan(z, z, soft / beta)))


@njit
def log_sigmoid(x, f):
    v = wide(x)
    return narrow(if_less(v, each(0.0), v, each(0.0)) - log1p64(exp64(each(0.0) - absolute64(v))))


# Functions of two vectors.


@njit
def prelu(x, y, f):
    return where_less(splat(0.0), x, x, y * x)


@njit
def power(x, y, f):
    """x^y = e^(y log |x|), the sign of a negative x for odd y, and the corners as in C's pow."""
    a, b = wide(x), wide(y)
    size = absolute64(a)
    value = exp64(b * log64(size))
    whole = floor64(b)
    half = b * each(0.5)
    odd = if_equal(whole, b, if_equal(floor64(half), half, each(1.0), each(-1.0)), each(1.0))
    huge = if_less(absolute64(b), each(9007199254740992.0), odd, each(1.0))
    negative = if_equal(whole, b, value * huge, each(NAN))
    negative = if_equal(size, each(INFINITY), value * huge, negative)
    negative = if_equal(absolute64(b), each(INFINITY), value, negative)
    # A negative zero has a sign, which no comparison sees.
    signed = sign_of64(each(1.0), a)
    value = if_equal(size, each(0.0), sign_of64(value, if_less(huge, each(0.0), signed, each(1.0))), value)
    value = if_less(a, each(0.0), negative, value)
    value = if_nan(a, a, if_nan(b, b, value))
    value = if_equal(size, each(1.0), if_less(a, each(0.0), if_equal(absolute64(b), each(INFINITY), each(1.0), value),
                                              each(1.0)), value)  # fmt: skip
    return narrow(if_equal(b, each(0.0), each(1.0), value))


@njit
def gt(x, y, f):
    return where_less(y, x, splat(1.0), splat(0.0))


@njit
def ge(x, y, f):
    return where_less_equal(y, x, splat(1.0), splat(0.0))


@njit
def eq(x, y, f):
    return where_equal(x, y, splat(1.0), splat(0.0))


@njit
def ne(x, y, f):
    return where_equal(x, y, splat(0.0), splat(1.0))


@njit
def logical_and(x, y, f):
    return where_nonzero(x, truth(y, f), splat(0.0))


@njit
def logical_or(x, y, f):
    return where_nonzero(x, splat(1.0), truth(y, f))


@njit
def with_sign(x, y):
    return with_sign_of(x, y)
