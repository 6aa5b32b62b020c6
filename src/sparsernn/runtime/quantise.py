"""The inputs of int8 products: the largest of a row, and the row as unsigned bytes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .tiles import add, times
from .vector import (
    BYTES,
    INT32,
    INT64,
    INTEGERS,
    VECTOR,
    WIDTH,
    broadcast,
    call,
    constant,
    fused,
    instruction,
    pointer,
    types,
)

LARGEST = 3.4028234663852886e38
MAGIC = 12582912.0 + 128.0  # adding it rounds to an integer, which then stands, plus 128, in the low bits


@instruction(types.float32, types.int64, types.int64)
def largest(builder: Any, x: Any, count: Any) -> Any:
    """max |x| of `count` floats at x, NaN if any is one."""
    best = cgutils.alloca_once_value(builder, constant(0.0))
    lanes = ir.Constant(INT64, WIDTH)
    whole = builder.sdiv(count, lanes)

    def take(value: Any) -> None:
        size = call(builder, f"llvm.fabs.v{WIDTH}f32", VECTOR, value)
        old = builder.load(best)
        # An unordered comparison is true for NaN, and keeps it once it is there.
        keep = builder.or_(builder.fcmp_unordered(">=", old, size), builder.fcmp_unordered("uno", old, old))
        nan = builder.fcmp_unordered("uno", size, size)
        builder.store(builder.select(nan, size, builder.select(keep, old, size)), best)

    with cgutils.for_range(builder, whole) as loop:
        take(builder.load(pointer(builder, add(builder, x, times(builder, loop.index, BYTES)), VECTOR), align=4))
    rest = builder.srem(count, lanes)
    numbers = ir.Constant(INTEGERS, list(range(WIDTH)))
    mask = builder.icmp_signed("<", numbers, broadcast(builder, builder.trunc(rest, INT32)))
    place = pointer(builder, add(builder, x, times(builder, whole, BYTES)), VECTOR)
    take(call(builder, f"llvm.masked.load.v{WIDTH}f32.p0", VECTOR, place, INT32(4), mask, constant(0.0)))
    found: Any = None
    for lane in range(WIDTH):
        value = builder.extract_element(builder.load(best), INT32(lane))
        if found is None:
            found = value
            continue
        larger = builder.fcmp_ordered(">", value, found)
        nan = builder.fcmp_unordered("uno", value, value)
        found = builder.select(builder.or_(larger, nan), value, found)
    return found


@instruction(types.void, types.int64, types.int64, types.int64, types.float32)
def quantise(builder: Any, x: Any, target: Any, count: Any, inverse: Any) -> None:
    """round(x * inverse) + 128 as bytes for `count` floats; bytes up to the next multiple of WIDTH become 128."""
    spread = broadcast(builder, inverse)
    small = ir.VectorType(ir.IntType(8), WIDTH)
    lanes = ir.Constant(INT64, WIDTH)
    vectors = builder.sdiv(builder.add(count, ir.Constant(INT64, WIDTH - 1)), lanes)
    numbers = ir.Constant(INTEGERS, list(range(WIDTH)))
    with cgutils.for_range(builder, vectors) as loop:
        left = builder.sub(count, builder.mul(loop.index, lanes))
        mask = builder.icmp_signed("<", numbers, broadcast(builder, builder.trunc(left, INT32)))
        place = pointer(builder, add(builder, x, times(builder, loop.index, BYTES)), VECTOR)
        value = call(builder, f"llvm.masked.load.v{WIDTH}f32.p0", VECTOR, place, INT32(4), mask, constant(0.0))
        bits = builder.bitcast(fused(builder, value, spread, constant(MAGIC)), INTEGERS)
        place = pointer(builder, add(builder, target, builder.mul(loop.index, lanes)), small)
        builder.store(builder.trunc(bits, small), place, align=1)
