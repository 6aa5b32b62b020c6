"""e^x, log and erf of vectors of float64, with errors near 1e-11: what float32 functions are made of."""

from __future__ import annotations

from numba import njit

from .wide import (
    MAGIC64,
    absolute64,
    each,
    exponent64,
    fma64,
    if_equal,
    if_less,
    if_nan,
    mantissa64,
    power_of_two64,
    sign_of64,
)

LOG2_E = 1.4426950408889634
LN2, LN2_REST = 0.6931471805599453, 2.3190468138462996e-17
INFINITY, NAN = float("inf"), float("nan")


# e^x = 2^n (1 + p), x = n ln 2 + r. The polynomials are minimax, of largest relative errors 2.7e-11 and (erf, erfc)
# 1e-12 and 3.5e-11.


@njit
def _parts(x):
    """(2^n, p) for |x| up to 700."""
    inside = if_less(x, each(-700.0), each(-700.0), if_less(each(700.0), x, each(700.0), x))
    shifted = fma64(inside, each(LOG2_E), each(MAGIC64))
    n = shifted - each(MAGIC64)
    r = fma64(n, each(-LN2_REST), fma64(n, each(-LN2), inside))
    p = fma64(r, each(0.0000248596943947520718), each(0.000198993901836792308))
    p = fma64(p, r, each(0.0013888853909945039))
    p = fma64(p, r, each(0.00833329834402309204))
    p = fma64(p, r, each(0.041666666719295685))
    p = fma64(p, r, each(0.166666667193124809))
    p = fma64(p, r, each(0.5))
    return power_of_two64(shifted), fma64(p, r * r, r)


@njit
def exp64(x):
    scale, p = _parts(x)
    value = if_less(each(700.0), x, each(INFINITY), fma64(scale, p, scale))
    return if_less(x, each(-700.0), each(0.0), value)


@njit
def expm1_64(x):
    scale, p = _parts(x)
    return if_less(each(700.0), x, each(INFINITY), fma64(scale, p, scale - each(1.0)))


@njit
def log64(x):
    """x a float32 or a sum of such; log m = 2 artanh((m - 1) / (m + 1)), a series in its square up to 0.0295."""
    n, m = exponent64(x), mantissa64(x)
    s = (m - each(1.0)) / (m + each(1.0))
    t = s * s
    q = fma64(t, each(2.0 / 15.0), each(2.0 / 13.0))
    q = fma64(q, t, each(2.0 / 11.0))
    q = fma64(q, t, each(2.0 / 9.0))
    q = fma64(q, t, each(2.0 / 7.0))
    q = fma64(q, t, each(2.0 / 5.0))
    q = fma64(q, t, each(2.0 / 3.0))
    value = fma64(n, each(LN2), fma64(q, t * s, s + s))
    value = if_equal(x, each(INFINITY), x, value)
    value = if_equal(x, each(0.0), each(-INFINITY), value)
    value = if_less(x, each(0.0), each(NAN), value)
    return if_nan(x, x, value)


@njit
def log1p64(x):
    u = each(1.0) + x
    value = log64(u) - ((u - each(1.0)) - x) / u
    value = if_equal(x, each(INFINITY), x, value)
    return if_equal(u, each(0.0), each(-INFINITY), value)


@njit
def _erfc_positive(x):
    """erfc(x) = t exp(-x^2 + P(t)), t = 2 / (2 + x), for x >= 0; 0 from 14 on, which no float32 tells from it."""
    near = if_less(each(14.0), x, each(14.0), x)
    t = each(2.0) / (each(2.0) + near)
    p = fma64(t, each(-0.204516426759949308), each(1.63634531602350859))
    p = fma64(p, t, each(-5.76513641327773835))
    p = fma64(p, t, each(11.6486986131546199))
    p = fma64(p, t, each(-14.732607368111588))
    p = fma64(p, t, each(12.047876662228843))
    p = fma64(p, t, each(-6.62294476817169493))
    p = fma64(p, t, each(2.79173418126002997))
    p = fma64(p, t, each(-0.917182134134891678))
    p = fma64(p, t, each(0.0361596942794744663))
    p = fma64(p, t, each(-0.114107797405300466))
    p = fma64(p, t, each(0.086403280481324094))
    p = fma64(p, t, each(0.374780221110448385))
    p = fma64(p, t, each(1.00000923416879894))
    p = fma64(p, t, each(-1.26551229488081996))
    value = t * exp64(fma64(each(0.0) - near, near, p))
    return if_less(x, each(14.0), value, if_nan(x, x, each(0.0)))


@njit
def erfc64(x):
    tail = _erfc_positive(absolute64(x))
    return if_less(x, each(0.0), each(2.0) - tail, tail)


@njit
def erf64(x):
    t = x * x
    p = fma64(t, each(1.05893806410750192e-6), each(-0.0000139093400218745986))
    p = fma64(p, t, each(0.000119565625682073296))
    p = fma64(p, t, each(-0.000854263799708722963))
    p = fma64(p, t, each(0.00522378347718924812))
    p = fma64(p, t, each(-0.0268661332350955916))
    p = fma64(p, t, each(0.112837913086045815))
    p = fma64(p, t, each(-0.376126388896353068))
    p = fma64(p, t, each(1.12837916709467673))
    size = absolute64(x)
    far = sign_of64(each(1.0) - _erfc_positive(size), x)
    return if_less(size, each(1.0), x * p, far)
