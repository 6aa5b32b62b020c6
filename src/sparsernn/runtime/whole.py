"""A whole stack of layers in one compiled call: states in, every layer and direction, states out."""

from __future__ import annotations

from numba import njit

from .fields import Call, Entry, Field
from .vector import BYTES, WIDTH, call1, f32, i32, i64, load, load_first, put_f32, put_i64, splat, store, store_first

ENTRY = 8 * len(Entry)


@njit
def _copy(source, source_stride, target, target_stride, rows, width):
    whole = width // WIDTH
    rest = width - whole * WIDTH
    for row in range(rows):
        a, b = source + row * source_stride, target + row * target_stride
        for n in range(whole):
            store(b + n * BYTES, load(a + n * BYTES))
        if rest != 0:
            store_first(b + whole * BYTES, load_first(a + whole * BYTES, rest), rest)


@njit
def _clear(target, stride, rows, width):
    for row in range(rows):
        for n in range((width + WIDTH - 1) // WIDTH):
            store(target + row * stride + n * BYTES, splat(0.0))


@njit
def _to_places(source, width, target, stride, rows, places):
    for row in range(rows):
        for n in range(width):
            put_f32(target + row * stride, i64(places, n), f32(source + row * width * 4, n))


@njit
def _from_places(source, stride, target, width, rows, places):
    for row in range(rows):
        for n in range(width):
            put_f32(target + row * width * 4, n, f32(source + row * stride, i64(places, n)))


@njit
def _state(base, batch, row, before, width):
    return base + 4 * (batch * before + row * width)


@njit
def _begin(f, e, g, rows):
    """States of zeros, or those given."""
    h, stride, units = i64(g, Field.H), i64(g, Field.STATE_STRIDE), i64(g, Field.LANES)
    recurrent, recurrent_stride = i64(g, Field.RECURRENT), i64(g, Field.RECURRENT_STRIDE)
    c = h + i64(g, Field.C)
    width, c_width, places = i64(e, Entry.H_WIDTH), i64(e, Entry.C_WIDTH), i64(e, Entry.PLACES)
    if i64(f, Call.H0) == 0:
        _clear(recurrent, recurrent_stride, rows, width)
        if recurrent != h:
            _clear(h, stride, rows, units)
        if c_width != 0:
            _clear(c, stride, rows, units)
        return
    batch, row = i64(f, Call.BATCH), i64(f, Call.ROW)
    given = _state(i64(f, Call.H0), batch, row, i64(e, Entry.H_BEFORE), width)
    _copy(given, width * 4, recurrent, recurrent_stride, rows, width)
    if i64(e, Entry.OWN) != 0:
        _to_places(given, width, h, stride, rows, places)
    if c_width != 0:
        given = _state(i64(f, Call.C0), batch, row, i64(e, Entry.C_BEFORE), c_width)
        if places != 0:
            _to_places(given, c_width, c, stride, rows, places)
        else:
            _copy(given, c_width * 4, c, stride, rows, c_width)


@njit
def _end(f, e, g, rows):
    """Hand out the states."""
    width, c_width, places = i64(e, Entry.H_WIDTH), i64(e, Entry.C_WIDTH), i64(e, Entry.PLACES)
    batch, row = i64(f, Call.BATCH), i64(f, Call.ROW)
    target = _state(i64(f, Call.HN), batch, row, i64(e, Entry.H_BEFORE), width)
    _copy(i64(g, Field.RECURRENT), i64(g, Field.RECURRENT_STRIDE), target, width * 4, rows, width)
    if c_width != 0:
        c, stride = i64(g, Field.H) + i64(g, Field.C), i64(g, Field.STATE_STRIDE)
        target = _state(i64(f, Call.CN), batch, row, i64(e, Entry.C_BEFORE), c_width)
        if places != 0:
            _from_places(c, stride, target, c_width, rows, places)
        else:
            _copy(c, stride, target, c_width * 4, rows, c_width)


def stack(f):
    """Run the entries of the call whose fields stand at address `f`."""
    row, rows, batch, sizes = i64(f, Call.ROW), i64(f, Call.ROWS), i64(f, Call.BATCH), i64(f, Call.SIZES)
    entries, first, last = i64(f, Call.ENTRIES), i64(f, Call.FIRST), i64(f, Call.LAST)
    bottom, top = i64(entries + first * ENTRY, Entry.NUMBER), i64(entries + (last - 1) * ENTRY, Entry.NUMBER)
    between, half = i64(f, Call.BETWEEN), i64(f, Call.HALF)
    for n in range(first, last):
        e = entries + n * ENTRY
        g, number = i64(e, Entry.FIELDS), i64(e, Entry.NUMBER)
        x_time, x_row, x = i64(f, Call.X_TIME), i64(f, Call.X_ROW), i64(f, Call.X)
        if number != bottom:
            x, x_row = between + ((number - 1) & 1) * half, i64(e, Entry.INPUT)
            x_time = batch * x_row
        out_time, out_row, out = i64(f, Call.OUT_TIME), i64(f, Call.OUT_ROW), i64(f, Call.OUTPUT)
        if number != top:
            out, out_row = between + (number & 1) * half, i64(e, Entry.WIDTH)
            out_time = batch * out_row
        put_i64(g, Field.STEPS, i64(f, Call.STEPS))
        put_i64(g, Field.ROWS, rows)
        put_i64(g, Field.SIZES, sizes)
        put_i64(g, Field.STARTS, i64(f, Call.STARTS))
        put_i64(g, Field.X, x + row * x_row)
        put_i64(g, Field.X_TIME, x_time)
        put_i64(g, Field.X_ROW, x_row)
        put_i64(g, Field.OUT, out + row * out_row + i64(e, Entry.OFFSET) if out != 0 else 0)
        put_i64(g, Field.OUT_TIME, out_time)
        put_i64(g, Field.OUT_ROW, out_row)
        put_i64(g, Field.ZERO, i64(e, Entry.FINITE) if i64(f, Call.H0) == 0 else 0)
        _begin(f, e, g, rows)
        call1(i64(f, Call.LAYER), g)
        _end(f, e, g, rows)


def watched(f):
    """Run the kernel of the call, unless a number of the weights' sample has changed since they were packed."""
    sample = i64(f, Call.SAMPLE)
    for n in range(i64(f, Call.SAMPLES)):
        if i32(i64(sample, 2 * n), 0) != i64(sample, 2 * n + 1):
            put_i64(f, Call.STALE, 1)
            return
    call1(i64(f, Call.KERNEL), i64(f, Call.ARGUMENT))
