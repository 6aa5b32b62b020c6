"""Register tiles: the innermost loops of the products, written straight in LLVM code.

A tile holds `rows` x `vectors` accumulators in registers and walks over the columns: load the weights of one column
(`vectors` of them), broadcast one number of each input row, multiply and add. Every accumulator adds up its columns
in order, one fused multiply-add each, whatever the tile's size: so the result of a row has the same bits in any
batch, chunk or thread.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .order import TABLE
from .vector import (
    BYTES,
    FLOAT,
    INT32,
    INT64,
    INTEGERS,
    VECTOR,
    WIDTH,
    broadcast,
    call,
    fused,
    instruction,
    pointer,
    types,
)


def add(builder: Any, *values: Any) -> Any:
    total, *rest = values
    for value in rest:
        total = builder.add(total, value)
    return total


def times(builder: Any, value: Any, factor: int) -> Any:
    return builder.mul(value, ir.Constant(INT64, factor))


AHEAD = 512  # bytes of weights between what is read and what is fetched


def fetch(builder: Any, place: Any) -> None:
    """Bring the cache line at `place`, which need not be memory of ours, near."""
    place = builder.inttoptr(place, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [place.type, INT32, INT32, INT32])
    builder.call(builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind), [place, *map(INT32, (0, 3, 1))])


HALVES = ir.VectorType(ir.IntType(16), WIDTH)


def _weights(builder: Any, place: Any, half: bool, offset: int = 0) -> Any:
    """The vector of weights number `offset` from address `place` on; `half`: bfloat16, the upper half of a float32."""
    if not half:
        return builder.load(pointer(builder, place, VECTOR, BYTES * offset), align=4)
    bits = builder.zext(builder.load(pointer(builder, place, HALVES, BYTES // 2 * offset), align=2), INTEGERS)
    return builder.bitcast(builder.shl(bits, ir.Constant(INTEGERS, [16] * WIDTH)), VECTOR)


def dense_tile(rows: int, vectors: int, panel: int, half: bool = False) -> Any:
    """A tile over consecutive columns of dense panels; `half`: of bfloat16 weights.

    Arguments, all int64: weights (address; `panel` vectors a column, so that `vectors` = 2 `panel` takes two panels
    side by side), panel_bytes (from one panel to the next), columns, x (address), x_stride (bytes from row to row),
    y (address), y_stride (bytes), where (address of int64 byte offsets in a row of y, one for each vector), start
    (address that the sums start from: y itself or a bias row), start_stride (bytes: y_stride, or 0 for a bias).
    """

    @instruction(types.void, *[types.int64] * 10)
    def tile(
        builder: Any,
        weights: Any,
        panel_bytes: Any,
        columns: Any,
        x: Any,
        x_stride: Any,
        y: Any,
        y_stride: Any,
        where: Any,
        start: Any,
        start_stride: Any,
    ) -> None:
        offsets = [builder.load(pointer(builder, where, INT64, 8 * v)) for v in range(vectors)]
        x_rows = [add(builder, x, times(builder, x_stride, r)) for r in range(rows)]
        sums = []
        for r in range(rows):
            for v in range(vectors):
                slot = cgutils.alloca_once(builder, VECTOR)
                place = add(builder, start, times(builder, start_stride, r), offsets[v])
                builder.store(builder.load(pointer(builder, place, VECTOR), align=4), slot)
                sums.append(slot)
        bases = [add(builder, weights, times(builder, panel_bytes, p)) for p in range(vectors // panel)]
        with cgutils.for_range(builder, columns) as loop:
            column = times(builder, loop.index, BYTES // (2 if half else 1) * panel)
            number = times(builder, loop.index, 4)
            if WIDTH == 8 and rows > 2:  # one pass over weights in the third-level cache: a twentieth faster
                fetch(builder, add(builder, bases[0], column, INT64(AHEAD)))
            values = [
                _weights(builder, add(builder, bases[v // panel], column), half, v % panel) for v in range(vectors)
            ]
            for r in range(rows):
                scalar = builder.load(pointer(builder, add(builder, x_rows[r], number), FLOAT), align=4)
                spread = broadcast(builder, scalar)
                for v in range(vectors):
                    slot = sums[r * vectors + v]
                    builder.store(fused(builder, values[v], spread, builder.load(slot)), slot)
        for r in range(rows):
            for v in range(vectors):
                place = add(builder, y, times(builder, y_stride, r), offsets[v])
                builder.store(builder.load(sums[r * vectors + v]), pointer(builder, place, VECTOR), align=4)

    return tile


def block_tile(rows: int, side: int, half: bool = False) -> Any:
    """A tile over WIDTH x 1 blocks: `side` block rows, each with its own list of columns, for `rows` inputs.

    Each sum has two halves, for the even and the odd blocks of its list, so that additions don't wait for each other;
    lists have even lengths. Arguments, all int64: values (address of the vectors of all blocks), columns (of their
    int32 column numbers), starts (address of int64: first block of each block row and of the next), x (address:
    `rows` numbers a column side by side), y, y_stride, where, start, start_stride as in `dense_tile`.
    """

    @instruction(types.void, *[types.int64] * 9)
    def tile(
        builder: Any,
        values: Any,
        columns: Any,
        starts: Any,
        x: Any,
        y: Any,
        y_stride: Any,
        where: Any,
        start: Any,
        start_stride: Any,
    ) -> None:
        begins = [builder.load(pointer(builder, starts, INT64, 8 * q)) for q in range(side + 1)]
        pairs = [builder.lshr(builder.sub(begins[q + 1], begins[q]), ir.Constant(INT64, 1)) for q in range(side)]
        sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(2 * rows)] for _ in range(side)]
        for slot in [slot for slots in sums for slot in slots]:
            builder.store(ir.Constant(VECTOR, [0.0] * WIDTH), slot)

        def pair(q: int, index: Any) -> None:
            first = builder.add(begins[q], builder.shl(index, ir.Constant(INT64, 1)))
            weights = add(builder, values, times(builder, first, BYTES // (2 if half else 1)))
            numbers = add(builder, columns, times(builder, first, 4))
            for turn in range(2):
                weight = _weights(builder, weights, half, turn)
                column = builder.zext(builder.load(pointer(builder, numbers, INT32, 4 * turn), align=4), INT64)
                place = add(builder, x, times(builder, column, 4 * rows))
                for r in range(rows):
                    spread = broadcast(builder, builder.load(pointer(builder, place, FLOAT, 4 * r), align=4))
                    slot = sums[q][2 * r + turn]
                    builder.store(fused(builder, weight, spread, builder.load(slot)), slot)

        common = pairs[0]
        for count in pairs[1:]:
            common = builder.select(builder.icmp_signed("<", count, common), count, common)
        with cgutils.for_range(builder, common) as loop:
            for q in range(side):
                pair(q, loop.index)
        if side > 1:
            for q in range(side):
                with cgutils.for_range(builder, builder.sub(pairs[q], common)) as loop:
                    pair(q, builder.add(loop.index, common))
        for q in range(side):
            offset = builder.load(pointer(builder, where, INT64, 8 * q))
            for r in range(rows):
                place = add(builder, start, times(builder, start_stride, r), offset)
                total = builder.fadd(builder.load(sums[q][2 * r]), builder.load(sums[q][2 * r + 1]))
                total = builder.fadd(builder.load(pointer(builder, place, VECTOR), align=4), total)
                place = add(builder, y, times(builder, y_stride, r), offset)
                builder.store(total, pointer(builder, place, VECTOR), align=4)

    return tile


ENTRIES = 4  # a row's non-zeros come in groups: four int32 column numbers, four weights


def row_tile(vectors: int) -> Any:
    """One sparse row times many inputs at once: lane b of vector v belongs to input v WIDTH + b.

    Arguments, all int64: groups (address of the row's groups of ENTRIES), count (groups), x (address; `vectors`
    vectors a column side by side), out (address), out_stride (bytes between the result vectors). Four sums, one for
    each place in a group, are added pairwise at the end.
    """

    @instruction(types.void, *[types.int64] * 5)
    def tile(builder: Any, groups: Any, count: Any, x: Any, out: Any, out_stride: Any) -> None:
        sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(vectors)] for _ in range(ENTRIES)]
        for slot in [slot for slots in sums for slot in slots]:
            builder.store(ir.Constant(VECTOR, [0.0] * WIDTH), slot)
        with cgutils.for_range(builder, count) as loop:
            group = add(builder, groups, times(builder, loop.index, 8 * ENTRIES))
            for e in range(ENTRIES):
                column = builder.zext(builder.load(pointer(builder, group, INT32, 4 * e), align=4), INT64)
                weight = builder.load(pointer(builder, group, FLOAT, 4 * (ENTRIES + e)), align=4)
                spread = broadcast(builder, weight)
                place = add(builder, x, times(builder, column, BYTES * vectors))
                for v in range(vectors):
                    value = builder.load(pointer(builder, place, VECTOR, BYTES * v), align=4)
                    builder.store(fused(builder, spread, value, builder.load(sums[e][v])), sums[e][v])
        for v in range(vectors):
            a, b, c, d = (builder.load(sums[e][v]) for e in range(ENTRIES))
            total = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
            place = add(builder, out, times(builder, out_stride, v))
            builder.store(total, pointer(builder, place, VECTOR), align=4)

    return tile


@instruction(types.void, types.int64)
def transpose(builder: Any, place: Any) -> None:
    """Transpose WIDTH x WIDTH floats in place, rows side by side at `place`."""
    rows = [builder.load(pointer(builder, place, VECTOR, BYTES * n), align=4) for n in range(WIDTH)]
    step = 1
    while step < WIDTH:
        # Exchange the off-diagonal squares of size `step`.
        low = [lane if not lane & step else WIDTH + lane - step for lane in range(WIDTH)]
        high = [lane + step if not lane & step else WIDTH + lane for lane in range(WIDTH)]
        done = list(rows)
        for n in range(WIDTH):
            if not n & step:
                a, b = rows[n], rows[n + step]
                done[n] = builder.shuffle_vector(a, b, ir.Constant(INTEGERS, low))
                done[n + step] = builder.shuffle_vector(a, b, ir.Constant(INTEGERS, high))
        rows = done
        step *= 2
    for n, row in enumerate(rows):
        builder.store(row, pointer(builder, place, VECTOR, BYTES * n), align=4)


def permuted_tile(rows: int, side: int, half: bool = False) -> Any:
    """`side` block rows of WIDTH sparse rows, columns in tables of TABLE: a permute fetches each lane's own number.

    Every table has `slots` vectors of weights and as many of lane numbers (a byte each). With few inputs several block
    rows at once have enough sums that additions needn't wait for each other. Arguments, all int64: values (address),
    lanes (address), tables (number), slots, x (address), x_stride (bytes), y, y_stride, where, start, start_stride as
    in `dense_tile`. x may be read up to the next multiple of TABLE columns.
    """
    size = BYTES // (2 if half else 1)

    @instruction(types.void, *[types.int64] * 11)
    def tile(
        builder: Any,
        values: Any,
        lanes: Any,
        tables: Any,
        slots: Any,
        x: Any,
        x_stride: Any,
        y: Any,
        y_stride: Any,
        where: Any,
        start: Any,
        start_stride: Any,
    ) -> None:
        offsets = [builder.load(pointer(builder, where, INT64, 8 * q)) for q in range(side)]
        sums = {}
        for q in range(side):
            for r in range(rows):
                place = add(builder, start, times(builder, start_stride, r), offsets[q])
                first = builder.load(pointer(builder, place, VECTOR), align=4)
                sums[q, r] = cgutils.alloca_once_value(builder, first)
        bytes_ = ir.VectorType(ir.IntType(8), WIDTH)
        whole = builder.mul(tables, slots)  # vectors of one block row
        with cgutils.for_range(builder, tables) as table:
            halves = []
            for r in range(rows):
                place = add(builder, x, times(builder, x_stride, r), times(builder, table.index, 4 * TABLE))
                halves.append([builder.load(pointer(builder, place, VECTOR, BYTES * n), align=4) for n in range(2)])
            first = builder.mul(table.index, slots)
            with cgutils.for_range(builder, slots) as slot:
                for q in range(side):
                    number = add(builder, first, slot.index, times(builder, whole, q))
                    weight = _weights(builder, add(builder, values, times(builder, number, size)), half)
                    place = add(builder, lanes, times(builder, number, WIDTH))
                    lane = builder.zext(builder.load(pointer(builder, place, bytes_), align=1), INTEGERS)
                    for r in range(rows):
                        low, high = halves[r]
                        picked = call(builder, "llvm.x86.avx512.vpermi2var.ps.512", VECTOR, low, lane, high)
                        builder.store(fused(builder, weight, picked, builder.load(sums[q, r])), sums[q, r])
        for (q, r), slot in sums.items():
            place = add(builder, y, times(builder, y_stride, r), offsets[q])
            builder.store(builder.load(slot), pointer(builder, place, VECTOR), align=4)

    return tile
