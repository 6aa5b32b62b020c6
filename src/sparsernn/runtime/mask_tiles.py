"""Register tiles of bit masks: weights are read side by side and spread over the lanes of a mask.

AVX-512 spreads by one instruction, AVX2 by a permute with a table of 256 lane lists. How far each block row begins in
the stream of weights that it shares with others is the number of bits before its own, so that nothing waits for the
address of the next column but one addition.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .tiles import HALVES, add, times
from .vector import (
    FLOAT,
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

NARROW = ir.VectorType(ir.IntType(8), WIDTH)


def _lane_lists() -> list[int]:
    """For each mask of 8 lanes the place of every lane's weight, a byte each; the sign bit marks lanes without one."""
    lists = []
    for mask in range(256):
        place, word = 0, 0
        for lane in range(8):
            there = mask >> lane & 1
            word |= (place if there else 0x80) << 8 * lane
            place += there
        lists.append(word)
    return lists


def _spread(builder: Any, values: Any, mask: Any) -> Any:
    """The first of `values` in the lanes whose bit is set in `mask` (an integer of WIDTH bits), 0 in the others."""
    if WIDTH == 16:
        lanes = builder.bitcast(mask, ir.VectorType(ir.IntType(1), WIDTH))
        return call(builder, "llvm.x86.avx512.mask.expand.v16f32", VECTOR, values, constant(0.0), lanes)
    kind = ir.ArrayType(INT64, 256)
    table = cgutils.global_constant(builder, "lanes", ir.Constant(kind, _lane_lists()))
    place = builder.gep(table, [ir.Constant(INT64, 0), builder.zext(mask, INT64)])
    lanes = builder.sext(builder.load(builder.bitcast(place, NARROW.as_pointer()), align=8), INTEGERS)
    moved = call(builder, "llvm.x86.avx2.permps", VECTOR, values, lanes)
    signs = builder.bitcast(lanes, VECTOR)
    return call(builder, "llvm.x86.avx.blendv.ps.256", VECTOR, moved, constant(0.0), signs)


class _Volatile(ir.instructions.LoadInstr):
    """A load that stays one: expanding straight from memory is several times slower on some processors."""

    def descr(self, buf: list[str]) -> None:
        text: list[str] = []
        super().descr(text)
        buf.append("".join(text).replace("load ", "load volatile ", 1))


def _weights(builder: Any, place: Any, half: bool) -> Any:
    if not half:
        load: Any = _Volatile(builder.block, pointer(builder, place, VECTOR))
        load.align = 4
        builder._insert(load)
        return load
    bits = builder.zext(builder.load(pointer(builder, place, HALVES), align=2), INTEGERS)
    return builder.bitcast(builder.shl(bits, ir.Constant(INTEGERS, [16] * WIDTH)), VECTOR)


def mask_tile(rows: int, side: int, half: bool) -> Any:
    """`side` block rows for `rows` inputs; every sum adds its columns in order, whatever the tile.

    Arguments, all int64: values and masks (addresses of this group's), columns, x, x_stride, y, y_stride, where,
    start, start_stride as in `tiles.dense_tile`. Values may be read up to one vector beyond the last.
    """
    word = ir.IntType(side * WIDTH)
    small = ir.IntType(WIDTH)
    size = 2 if half else 4

    @instruction(types.void, *[types.int64] * 10)
    def tile(
        builder: Any, values: Any, masks: Any, columns: Any, x: Any, x_stride: Any, y: Any, y_stride: Any, where: Any,
        start: Any, start_stride: Any,
    ) -> None:  # fmt: skip
        offsets = [builder.load(pointer(builder, where, INT64, 8 * q)) for q in range(side)]
        x_rows = [add(builder, x, times(builder, x_stride, r)) for r in range(rows)]
        sums = {}
        for q in range(side):
            for r in range(rows):
                place = add(builder, start, times(builder, start_stride, r), offsets[q])
                first = builder.load(pointer(builder, place, VECTOR), align=4)
                sums[q, r] = cgutils.alloca_once_value(builder, first)
        stream = cgutils.alloca_once_value(builder, values)
        with cgutils.for_range(builder, columns) as loop:
            bits = builder.load(
                pointer(builder, add(builder, masks, times(builder, loop.index, side * WIDTH // 8)), word), align=1
            )
            begin = builder.load(stream)
            weights = []
            for q in range(side):
                place = begin
                if q:
                    before = builder.and_(bits, ir.Constant(word, (1 << q * WIDTH) - 1))
                    place = add(builder, begin, _bytes(builder, before, word, size))
                mask = builder.trunc(builder.lshr(bits, ir.Constant(word, q * WIDTH)), small)
                weights.append(_spread(builder, _weights(builder, place, half), mask))
            builder.store(add(builder, begin, _bytes(builder, bits, word, size)), stream)
            for r in range(rows):
                place = pointer(builder, add(builder, x_rows[r], times(builder, loop.index, 4)), FLOAT)
                number = broadcast(builder, builder.load(place, align=4))
                for q in range(side):
                    slot = sums[q, r]
                    builder.store(fused(builder, weights[q], number, builder.load(slot)), slot)
        for (q, r), slot in sums.items():
            place = add(builder, y, times(builder, y_stride, r), offsets[q])
            builder.store(builder.load(slot), pointer(builder, place, VECTOR), align=4)

    return tile


def _bytes(builder: Any, bits: Any, word: Any, size: int) -> Any:
    """Bytes of as many weights as there are bits."""
    number = call(builder, f"llvm.ctpop.i{word.width}", word, bits)
    return times(builder, number if word.width == 64 else builder.zext(number, INT64), size)
