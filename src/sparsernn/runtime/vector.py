"""Vectors of floats inside compiled kernels: a numba type that is one LLVM vector, and what can be done with it.

numba compiles plain loops to a fraction of what the processor can do, because it must prove that vectors are safe;
here the vectors are written out. Memory is reached by address (an int64), never through array indexing, whose test
for negative indices costs more than the arithmetic. Every function below works inside compiled kernels only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

from .arithmetic import give_arithmetic
from .processor import processor

WIDTH = processor().width
BYTES = 4 * WIDTH

FLOAT = ir.FloatType()
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, WIDTH)
INTEGERS = ir.VectorType(INT32, WIDTH)


class VectorType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{WIDTH}")


vector = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, VECTOR)


def pointer(builder: Any, address: Any, pointee: Any, offset: int | None = None) -> Any:
    """`address` (+ `offset` bytes) as a pointer to `pointee`."""
    if offset:
        address = builder.add(address, ir.Constant(INT64, offset))
    return builder.inttoptr(address, pointee.as_pointer())


def constant(value: float) -> Any:
    return ir.Constant(VECTOR, [value] * WIDTH)


def broadcast(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(ir.VectorType(scalar.type, WIDTH), ir.Undefined), scalar, INT32(0))
    return builder.shuffle_vector(one, one, ir.Constant(INTEGERS, [0] * WIDTH))


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Call the LLVM intrinsic `name`."""
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(builder.module.declare_intrinsic(name, fnty=kind), arguments)


def fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call(builder, f"llvm.fma.v{WIDTH}f32", VECTOR, a, b, c)


def instruction(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make a function for kernels out of one that emits LLVM code: emit(builder, *values) -> value."""
    signature = result(*arguments)

    def wrap(emit: Callable[..., Any]) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            value = emit(builder, *values)
            return context.get_dummy_value() if result is types.void else value

        def define(typing_context: Any, *given: Any) -> Any:
            return signature, generate

        # numba folds arguments by the declared parameters, which a bare *given would hide from it.
        names = ["typing_context", *(f"a{n}" for n in range(len(arguments)))]
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        define.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        define.__name__ = define.__qualname__ = emit.__name__
        return intrinsic(define)

    return wrap


# Scalars in memory: `address` in bytes, `index` in elements.


@instruction(types.int64, types.int64, types.int64)
def i64(builder: Any, address: Any, index: Any) -> Any:
    return builder.load(builder.gep(pointer(builder, address, INT64), [index]), align=8)


@instruction(types.int64, types.int64, types.int64)
def i32(builder: Any, address: Any, index: Any) -> Any:
    return builder.sext(builder.load(builder.gep(pointer(builder, address, INT32), [index]), align=4), INT64)


@instruction(types.float32, types.int64, types.int64)
def f32(builder: Any, address: Any, index: Any) -> Any:
    return builder.load(builder.gep(pointer(builder, address, FLOAT), [index]), align=4)


@instruction(types.void, types.int64, types.int64, types.float32)
def put_f32(builder: Any, address: Any, index: Any, value: Any) -> None:
    builder.store(value, builder.gep(pointer(builder, address, FLOAT), [index]), align=4)


@instruction(types.void, types.int64, types.int64, types.int64)
def put_i64(builder: Any, address: Any, index: Any, value: Any) -> None:
    builder.store(value, builder.gep(pointer(builder, address, INT64), [index]), align=8)


# Vectors in memory: `address` in bytes.


@instruction(vector, types.int64)
def load(builder: Any, address: Any) -> Any:
    return builder.load(pointer(builder, address, VECTOR), align=4)


@instruction(types.void, types.int64, vector)
def store(builder: Any, address: Any, value: Any) -> None:
    builder.store(value, pointer(builder, address, VECTOR), align=4)


def lanes_below(builder: Any, count: Any) -> Any:
    """Mask of the first `count` lanes."""
    numbers = ir.Constant(INTEGERS, list(range(WIDTH)))
    return builder.icmp_signed("<", numbers, broadcast(builder, builder.trunc(count, INT32)))


@instruction(types.void, types.int64, vector, types.int64)
def store_first(builder: Any, address: Any, value: Any, count: Any) -> None:
    """Store the first `count` lanes; the memory behind them is untouched."""
    mask = lanes_below(builder, count)
    place = pointer(builder, address, VECTOR)
    call(builder, f"llvm.masked.store.v{WIDTH}f32.p0", ir.VoidType(), value, place, INT32(4), mask)


@instruction(vector, types.int64, types.int64)
def load_first(builder: Any, address: Any, count: Any) -> Any:
    """Load `count` lanes, the others 0; the memory behind them is not read."""
    mask = lanes_below(builder, count)
    place = pointer(builder, address, VECTOR)
    return call(builder, f"llvm.masked.load.v{WIDTH}f32.p0", VECTOR, place, INT32(4), mask, constant(0.0))


# Arithmetic.


@instruction(vector, types.float32)
def splat(builder: Any, value: Any) -> Any:
    return broadcast(builder, value)


@instruction(vector, vector, vector, vector)
def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once."""
    return fused(builder, a, b, c)


@instruction(vector, vector)
def absolute(builder: Any, a: Any) -> Any:
    return call(builder, f"llvm.fabs.v{WIDTH}f32", VECTOR, a)


@instruction(vector, vector, vector)
def with_sign_of(builder: Any, size: Any, sign: Any) -> Any:
    return call(builder, f"llvm.copysign.v{WIDTH}f32", VECTOR, size, sign)


@instruction(vector, vector, vector)
def at_least(builder: Any, value: Any, floor: Any) -> Any:
    """The larger of the two; a NaN in `value` stays (a comparison with it is false)."""
    return builder.select(builder.fcmp_ordered("<", value, floor), floor, value)


@instruction(vector, vector, vector)
def at_most(builder: Any, value: Any, ceiling: Any) -> Any:
    """The smaller of the two; a NaN in `value` stays."""
    return builder.select(builder.fcmp_ordered(">", value, ceiling), ceiling, value)


def by_halves(builder: Any, value: Any) -> Any:
    """Sum of the lanes of a vector of WIDTH floats of any size, by halves: always in the same order."""
    lanes = WIDTH
    while lanes > 1:
        lanes //= 2
        kind = ir.VectorType(INT32, lanes)
        low = builder.shuffle_vector(value, value, ir.Constant(kind, list(range(lanes))))
        high = builder.shuffle_vector(value, value, ir.Constant(kind, list(range(lanes, 2 * lanes))))
        value = builder.fadd(low, high)
    return builder.extract_element(value, INT32(0))


@instruction(types.float32, vector)
def total(builder: Any, value: Any) -> Any:
    """Sum of the lanes, always in the same order."""
    return by_halves(builder, value)


give_arithmetic(vector, VectorType)


# Calls of other kernels by address.


def _caller(count: int) -> Any:
    @instruction(types.void, *[types.int64] * (count + 1))
    def invoke(builder: Any, target: Any, *arguments: Any) -> None:
        kind = ir.FunctionType(ir.VoidType(), [INT64] * count)
        builder.call(builder.inttoptr(target, kind.as_pointer()), arguments)

    return invoke


call1 = _caller(1)
call7 = _caller(7)
call9 = _caller(9)


# Activations. Both rest on e^x - 1 = 2^n p + (2^n - 1) with x = n ln 2 + r, |r| <= ln 2 / 2 and p = e^r - 1 by the
# polynomial r + r^2 (...) of degree 6 whose largest relative error is least (1.3e-8): all in all an error near 1e-7
# everywhere, the small values of tanh included. ln 2 as a float32 is off by 1.9e-9, at most 2.4e-7 for n = 126.

LOG2_E = 1.4426950408889634
LN2 = 0.6931471805599453
_C6, _C5, _C4, _C3, _C2 = (0.0013946472614, 0.0083665980684, 0.0416662818548, 0.1666654292438, 0.5000000061891)
MAGIC = 12582912.0 + 127.0  # adding it rounds to an integer, which then stands, biased by 127, in the low bits


@instruction(vector, vector)
def _power_of_two(builder: Any, shifted: Any) -> Any:
    """2^n from n + MAGIC."""
    bits = builder.shl(builder.bitcast(shifted, INTEGERS), ir.Constant(INTEGERS, [23] * WIDTH))
    return builder.bitcast(bits, VECTOR)


@njit
def _exponential(x):
    """(2^n, p) with e^x = 2^n (1 + p), for x in [-87, 88]."""
    shifted = fma(x, splat(LOG2_E), splat(MAGIC))
    n = shifted - splat(MAGIC)
    r = fma(n, splat(-LN2), x)
    p = fma(r, splat(_C6), splat(_C5))
    p = fma(p, r, splat(_C4))
    p = fma(p, r, splat(_C3))
    p = fma(p, r, splat(_C2))
    return _power_of_two(shifted), fma(p, r * r, r)


@njit
def exp_minus(x):
    """e^-x, x clamped to [-87, 87]; sigmoid(x) = 1 / (1 + exp_minus(x))."""
    clamped = at_least(at_most(splat(0.0) - x, splat(87.0)), splat(-87.0))
    scale, p = _exponential(clamped)
    return fma(scale, p, scale)


@njit
def sigmoid(x):
    return splat(1.0) / (splat(1.0) + exp_minus(x))


@njit
def tanh_parts(x):
    """(a, b) with tanh(x) = a / b and 1 <= b <= 2: callers join divisions."""
    scale, p = _exponential(at_least(splat(-2.0) * absolute(x), splat(-87.0)))
    below = fma(scale, p, scale - splat(1.0))  # e^(-2|x|) - 1, in (-1, 0]
    return with_sign_of(below, x), splat(2.0) + below


@njit
def tanh(x):
    a, b = tanh_parts(x)
    return a / b
