"""What goes across the lanes of a vector: numbers from apart in memory, some of the lanes, all of them in one."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from ..vector import (
    FLOAT,
    INT32,
    INT64,
    INTEGERS,
    WIDTH,
    broadcast,
    by_halves,
    call,
    instruction,
    lanes_below,
    pointer,
    types,
    vector,
)
from .wide import doubles, vector_kind


@instruction(vector, types.int64, types.int64, types.int64)
def gather(builder: Any, address: Any, stride: Any, count: Any) -> Any:
    """Numbers `stride` bytes apart, `count` of them; lanes behind repeat the last one."""
    value = ir.Constant(vector_kind, ir.Undefined)
    last = builder.sub(count, ir.Constant(INT64, 1))
    for lane in range(WIDTH):
        number = ir.Constant(INT64, lane)
        number = builder.select(builder.icmp_signed("<", number, last), number, last)
        place = builder.add(address, builder.mul(number, stride))
        value = builder.insert_element(value, builder.load(pointer(builder, place, FLOAT), align=4), INT32(lane))
    return value


@instruction(vector, types.int64, types.int64, types.float32)
def load_filled(builder: Any, address: Any, count: Any, fill: Any) -> Any:
    """Load `count` lanes, `fill` in the others; the memory behind them is not read."""
    place = pointer(builder, address, vector_kind)
    name = f"llvm.masked.load.v{WIDTH}f32.p0"
    return call(builder, name, vector_kind, place, INT32(4), lanes_below(builder, count), broadcast(builder, fill))


def _across(emit: Any) -> Any:
    @instruction(types.float32, vector)
    def fold(builder: Any, value: Any) -> Any:
        """All lanes in one number, by halves: always in the same order."""
        lanes = WIDTH
        while lanes > 1:
            lanes //= 2
            kind = ir.VectorType(INT32, lanes)
            low = builder.shuffle_vector(value, value, ir.Constant(kind, list(range(lanes))))
            high = builder.shuffle_vector(value, value, ir.Constant(kind, list(range(lanes, 2 * lanes))))
            value = emit(builder, low, high, ir.VectorType(FLOAT, lanes), lanes)
        return builder.extract_element(value, INT32(0))

    return fold


largest = _across(lambda b, x, y, kind, n: call(b, f"llvm.maximum.v{n}f32", kind, x, y))
smallest = _across(lambda b, x, y, kind, n: call(b, f"llvm.minimum.v{n}f32", kind, x, y))
product = _across(lambda b, x, y, kind, n: b.fmul(x, y))


@instruction(types.float32, types.int64)
def as_float(builder: Any, value: Any) -> Any:
    return builder.sitofp(value, FLOAT)


@instruction(types.int64, types.float32)
def as_long(builder: Any, value: Any) -> Any:
    return builder.fptosi(value, INT64)


@instruction(types.float64, doubles)
def total64(builder: Any, value: Any) -> Any:
    """Sum of the lanes, by halves."""
    return by_halves(builder, value)


@instruction(vector, vector, types.int64)
def first_lanes(builder: Any, value: Any, count: Any) -> Any:
    """The first `count` lanes, 0 in the others."""
    return builder.select(lanes_below(builder, count), value, ir.Constant(vector_kind, [0.0] * WIDTH))


@instruction(vector, types.int64, types.int64)
def fetch(builder: Any, address: Any, step: Any) -> Any:
    """The vector at `address`; where `step` is 0, its first number in each lane."""
    value = builder.load(pointer(builder, address, vector_kind), align=4)
    first = builder.shuffle_vector(value, value, ir.Constant(INTEGERS, [0] * WIDTH))
    return builder.select(builder.icmp_signed("==", step, ir.Constant(INT64, 0)), first, value)
