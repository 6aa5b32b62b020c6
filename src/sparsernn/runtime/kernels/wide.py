"""Vectors of float64 as wide as those of float32: functions worked out in them round once, when they become float32.

So a polynomial with an error of 1e-10 gives a float32 that is right to half a unit in the last place and a little,
denormal numbers included, which float64 holds as normal ones.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

from ..arithmetic import give_arithmetic
from ..vector import (
    INT32,
    INT64,
    INTEGERS,
    WIDTH,
    call,
    instruction,
    vector,
)

DOUBLE = ir.DoubleType()
DOUBLES = ir.VectorType(DOUBLE, WIDTH)
LONGS = ir.VectorType(INT64, WIDTH)


class DoublesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float64x{WIDTH}")


doubles = DoublesType()


@register_model(DoublesType)
class _DoublesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, DOUBLES)


give_arithmetic(doubles, DoublesType)


def _all(kind: Any, value: Any) -> Any:
    return ir.Constant(kind, [value] * WIDTH)


@instruction(doubles, vector)
def wide(builder: Any, x: Any) -> Any:
    return builder.fpext(x, DOUBLES)


@instruction(vector, doubles)
def narrow(builder: Any, x: Any) -> Any:
    return builder.fptrunc(x, vector_kind)


vector_kind = ir.VectorType(ir.FloatType(), WIDTH)


@instruction(doubles, types.float64)
def each(builder: Any, value: Any) -> Any:
    """`value` in each lane."""
    one = builder.insert_element(ir.Constant(DOUBLES, ir.Undefined), value, INT32(0))
    return builder.shuffle_vector(one, one, ir.Constant(INTEGERS, [0] * WIDTH))


@instruction(doubles, doubles, doubles, doubles)
def fma64(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call(builder, f"llvm.fma.v{WIDTH}f64", DOUBLES, a, b, c)


@instruction(doubles, doubles)
def absolute64(builder: Any, a: Any) -> Any:
    return call(builder, f"llvm.fabs.v{WIDTH}f64", DOUBLES, a)


@instruction(doubles, doubles, doubles)
def sign_of64(builder: Any, size: Any, sign: Any) -> Any:
    """`size` with the sign of the second."""
    return call(builder, f"llvm.copysign.v{WIDTH}f64", DOUBLES, size, sign)


@instruction(doubles, doubles, doubles, doubles, doubles)
def if_less(builder: Any, a: Any, b: Any, then: Any, otherwise: Any) -> Any:
    """`then` where a < b; otherwise also where one is NaN."""
    return builder.select(builder.fcmp_ordered("<", a, b), then, otherwise)


@instruction(doubles, doubles, doubles, doubles, doubles)
def if_equal(builder: Any, a: Any, b: Any, then: Any, otherwise: Any) -> Any:
    return builder.select(builder.fcmp_ordered("==", a, b), then, otherwise)


@instruction(doubles, doubles, doubles, doubles)
def if_nan(builder: Any, a: Any, then: Any, otherwise: Any) -> Any:
    return builder.select(builder.fcmp_unordered("uno", a, a), then, otherwise)


MAGIC64 = 6755399441055744.0  # 2^52 + 2^51: adding it rounds to an integer, which then stands in the low bits


@instruction(doubles, doubles)
def power_of_two64(builder: Any, shifted: Any) -> Any:
    """2^n from n + MAGIC64, n from -1022 to 1023."""
    bits = builder.add(builder.bitcast(shifted, LONGS), _all(LONGS, 1023))
    return builder.bitcast(builder.shl(bits, _all(LONGS, 52)), DOUBLES)


_ROOT = 0x3FE6A09E667F3BCD  # the bits of the square root of 1/2


def _exponents(builder: Any, bits: Any) -> Any:
    return builder.ashr(builder.sub(bits, _all(LONGS, _ROOT)), _all(LONGS, 52))


@instruction(doubles, doubles)
def exponent64(builder: Any, x: Any) -> Any:
    """n with x = 2^n m and m from the root of 1/2 to that of 2, for x > 0."""
    n = _exponents(builder, builder.bitcast(x, LONGS))
    magic = ir.Constant(DOUBLES, [MAGIC64] * WIDTH)
    return builder.fsub(builder.bitcast(builder.add(n, builder.bitcast(magic, LONGS)), DOUBLES), magic)


@instruction(doubles, doubles)
def mantissa64(builder: Any, x: Any) -> Any:
    """m of the same."""
    bits = builder.bitcast(x, LONGS)
    return builder.bitcast(builder.sub(bits, builder.shl(_exponents(builder, bits), _all(LONGS, 52))), DOUBLES)


@instruction(doubles, doubles, doubles, doubles)
def if_odd(builder: Any, shifted: Any, then: Any, otherwise: Any) -> Any:
    """`then` where n is odd; `shifted` is n + MAGIC64."""
    low = builder.and_(builder.bitcast(shifted, LONGS), _all(LONGS, 1))
    return builder.select(builder.icmp_signed("!=", low, _all(LONGS, 0)), then, otherwise)


@instruction(doubles, doubles, doubles, doubles)
def if_second(builder: Any, shifted: Any, then: Any, otherwise: Any) -> Any:
    """`then` where the second lowest bit of n is set."""
    low = builder.and_(builder.bitcast(shifted, LONGS), _all(LONGS, 2))
    return builder.select(builder.icmp_signed("!=", low, _all(LONGS, 0)), then, otherwise)


@instruction(doubles, doubles)
def floor64(builder: Any, a: Any) -> Any:
    return call(builder, f"llvm.floor.v{WIDTH}f64", DOUBLES, a)


@instruction(doubles, doubles)
def round64(builder: Any, a: Any) -> Any:
    return call(builder, f"llvm.rint.v{WIDTH}f64", DOUBLES, a)


# The same choices for float32, and what vector.py lacks.


def _compare(sign: str) -> Any:
    @instruction(vector, vector, vector, vector, vector)
    def choose(builder: Any, a: Any, b: Any, then: Any, otherwise: Any) -> Any:
        return builder.select(builder.fcmp_ordered(sign, a, b), then, otherwise)

    return choose


where_less = _compare("<")  # (a, b, then, otherwise): `then` where a < b
where_less_equal = _compare("<=")
where_equal = _compare("==")


@instruction(vector, vector, vector, vector)
def where_nonzero(builder: Any, a: Any, then: Any, otherwise: Any) -> Any:
    """`then` where a is not 0, or NaN."""
    return builder.select(builder.fcmp_unordered("!=", a, ir.Constant(vector_kind, [0.0] * WIDTH)), then, otherwise)


def _plain(name: str, count: int) -> Any:
    @instruction(vector, *[vector] * count)
    def emit(builder: Any, *values: Any) -> Any:
        return call(builder, f"llvm.{name}.v{WIDTH}f32", vector_kind, *values)

    return emit


sqrt32 = _plain("sqrt", 1)
floor32 = _plain("floor", 1)
ceil32 = _plain("ceil", 1)
round32 = _plain("rint", 1)  # half to even
larger = _plain("maximum", 2)  # NaN where one is
smaller = _plain("minimum", 2)
