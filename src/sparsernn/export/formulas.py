"""tanh, exp and what is made of them, of + - * / alone: no call of a C library, whose results differ from each other.

Polynomials and rational functions are those of Cephes (S. L. Moshier) and Eigen (tanh, erf); errors against exact
values are held by the tests, below 1e-6 of the value or of 1, whichever is larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .terms import bits, floats, formula, pick

INFINITE, NOT_A_NUMBER = 0x7F800000, 0x7FC00000
_ROUND = 12582912.0  # 1.5 2^23: a float of this size has steps of 1


def polynomial(x: Any, factors: Sequence[float]) -> Any:
    """By Horner's rule, the highest power first."""
    y = factors[0] * x + factors[1]
    for factor in factors[2:]:
        y = y * x + factor
    return y


@formula
def tanh(x: Any) -> Any:
    near = pick(x < -7.90531110763549805, -7.90531110763549805, x)
    near = pick(near > 7.90531110763549805, 7.90531110763549805, near)
    z = near * near
    over = polynomial(z, (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
                          1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03))  # fmt: skip
    under = polynomial(z, (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03))
    return near * over / under


@formula
def sigmoid(x: Any) -> Any:
    return 0.5 * tanh(0.5 * x) + 0.5


@formula
def exp(x: Any) -> Any:
    """0 below -86.6, infinite above 88.72."""
    near = pick(x < -86.6, -86.6, x)
    near = pick(near > 88.72, 88.72, near)
    large = near * 1.44269504088896341 + _ROUND
    n = large - _ROUND
    r = near - n * 0.693359375
    r = r - n * -2.12194440e-4
    p = polynomial(r, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
                       5.0000001201e-1))  # fmt: skip
    p = p * (r * r) + r + 1.0
    power = floats(((bits(large) - bits_of(_ROUND)) + 126) << 23)
    y = pick(x < -86.6, 0.0, (p + p) * power)
    return pick(x > 88.72, floats(bits(x) - bits(x) + INFINITE), pick(x != x, x, y))


@formula
def log(x: Any) -> Any:
    small = x < 1.17549435e-38
    near = pick(small, x * 8388608.0, x)
    i = bits(near)
    m = floats((i & 0x7FFFFF) | 0x3F000000)  # in 0.5 to 1
    e = floats(((i >> 23) & 0xFF) | 0x4B400000) - 12583038.0  # the exponent, 126 less
    e = pick(small, e - 23.0, e)
    low = m < 0.707106781186547524
    e = pick(low, e - 1.0, e)
    m = pick(low, m + m - 1.0, m - 1.0)
    z = m * m
    y = polynomial(m, (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
                       -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1))  # fmt: skip
    y = y * m * z
    y = y + -2.12194440e-4 * e
    y = y - 0.5 * z
    y = m + y
    y = y + 0.693359375 * e
    zero = bits(x) - bits(x)
    y = pick(x < 0.0, floats(zero + NOT_A_NUMBER), pick(x == 0.0, -floats(zero + INFINITE), y))
    return pick(x > 3.4028234e38, x, pick(x != x, x, y))


@formula
def log1p(x: Any) -> Any:
    u = 1.0 + x
    d = u - 1.0
    y = log(u) * (x / pick(d == 0.0, 1.0, d))
    return pick(d == 0.0, x, pick(u > 3.4028234e38, u, y))


@formula
def expm1(x: Any) -> Any:
    """Through tanh where it is small: 2 t / (1 - t), t = tanh(x / 2)."""
    t = tanh(0.5 * x)
    near = (t + t) / (1.0 - t)
    return pick((x < 1.0) & (x > -1.0), near, exp(x) - 1.0)


@formula
def sqrt(x: Any) -> Any:
    """Newton's steps from an estimate in the exponent; not always the nearest float, but the same one everywhere."""
    small = x < 1.0e-30
    near = pick(small, x * 1.8446744073709552e19, x)
    y = floats((bits(near) >> 1) + 0x1FBD1DF5)
    y = 0.5 * (y + near / y)
    y = 0.5 * (y + near / y)
    y = 0.5 * (y + near / y)
    y = pick(small, y * 2.3283064365386963e-10, y)
    y = pick(x == 0.0, x, pick(x < 0.0, floats((bits(x) - bits(x)) + NOT_A_NUMBER), y))
    return pick(x > 3.4028234e38, x, pick(x != x, x, y))


@formula
def nearest(x: Any) -> Any:
    """The nearest integer, of two the even one."""
    size = pick(x < 0.0, -x, x)
    y = (size + _ROUND) - _ROUND
    return pick(size < 4194304.0, pick(x < 0.0, -y, y), x)


@formula
def floor(x: Any) -> Any:
    y = nearest(x)
    return pick(y > x, y - 1.0, y)


@formula
def sin(x: Any) -> Any:
    """Of angles up to some thousands."""
    n = nearest(x * 0.636619772367581343)
    r = _reduced(x, n)
    odd, negative = _quarter(n)
    y = pick(odd, _cosine(r), _sine(r))
    return pick(negative, -y, y)


@formula
def cos(x: Any) -> Any:
    """Of angles up to some thousands."""
    n = nearest(x * 0.636619772367581343)
    r = _reduced(x, n)
    odd, negative = _quarter(n + 1.0)
    y = pick(odd, _cosine(r), _sine(r))
    return pick(negative, -y, y)


@formula
def erf(x: Any) -> Any:
    near = pick(x < -4.0, -4.0, x)
    near = pick(near > 4.0, 4.0, near)
    z = near * near
    over = polynomial(z, (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
                          -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02))  # fmt: skip
    under = polynomial(z, (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
                           -1.42647390514189e-02))  # fmt: skip
    return near * over / under


def bits_of(value: float) -> int:
    """The bits of a number, as an integer."""
    return int(bits(value))


def _reduced(x: Any, n: Any) -> Any:
    """x less n quarters of a turn, in three steps so that little is lost."""
    return ((x - n * 1.5703125) - n * 4.837512969970703125e-4) - n * 7.54978995489188216e-8


def _quarter(n: Any) -> tuple[Any, Any]:
    """Whether the quarter's number is odd, and whether its half of the turn is the negative one."""
    i = bits(n + _ROUND)
    return (i & 1) != 0, (i & 2) != 0


def _sine(r: Any) -> Any:
    z = r * r
    return polynomial(z, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)) * z * r + r


def _cosine(r: Any) -> Any:
    z = r * r
    return polynomial(z, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)) * z * z - 0.5 * z + 1.0
