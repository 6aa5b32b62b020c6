"""The elementwise part of a time step: gates to state.

Every cell kernel has nine int64 arguments: `units` (blocks of WIDTH units), `lanes` (units in all, so that the last
block's padding is not written to the output), `gates` (address of the first row of pre-activations), `gates_stride`,
`count` (rows), `h` (state, read and written), `c` (LSTM: offset in bytes from h to c), `stride` (bytes between rows
of h), `out` (address of an int64 pair: the row address of the output, 0 for none, and its stride).
A row of pre-activations holds for each block of units the vectors of its gates side by side.
"""

from __future__ import annotations

from numba import njit

from .vector import (
    BYTES,
    WIDTH,
    at_least,
    exp_minus,
    fma,
    i64,
    load,
    sigmoid,
    splat,
    store,
    store_first,
    tanh,
    tanh_parts,
)
from .weights import SLOTS

LSTM_BYTES, GRU_BYTES, RHN_BYTES = (SLOTS[mode].count * BYTES for mode in ("LSTM", "GRU", "RHN"))  # of a block


@njit
def _emit(out, stride, row, unit, lanes, value):
    if out != 0:
        place = out + row * stride + unit * BYTES
        if (unit + 1) * WIDTH <= lanes:
            store(place, value)
        else:
            store_first(place, value, lanes - unit * WIDTH)


def lstm(units, lanes, gates, gates_stride, count, h, c, stride, out):
    """c' = f c + i g and h' = o tanh(c'), gates i f g o; sigmoid times tanh takes one division.

    In two passes: c' and what follows from it is one chain of a hundred dependent instructions, too long for the
    processor to start on the next unit before it is through with this one.
    """
    target, target_stride = i64(out, 0), i64(out, 1)
    one = splat(1.0)
    for row in range(count):
        for unit in range(units):
            pre = gates + row * gates_stride + unit * LSTM_BYTES
            place = h + row * stride + unit * BYTES + c
            ta, tb = tanh_parts(load(pre + 2 * BYTES))
            state = load(place) / (one + exp_minus(load(pre + BYTES)))
            store(place, state + ta / ((one + exp_minus(load(pre))) * tb))
        for unit in range(units):
            pre = gates + row * gates_stride + unit * LSTM_BYTES
            place = h + row * stride + unit * BYTES
            ca, cb = tanh_parts(load(place + c))
            value = ca / ((one + exp_minus(load(pre + 3 * BYTES))) * cb)
            store(place, value)
            _emit(target, target_stride, row, unit, lanes, value)


def gru(units, lanes, gates, gates_stride, count, h, c, stride, out):
    """h' = (1 - z) n + z h with n = tanh(n_x + r n_h), gates r z n_x n_h."""
    target, target_stride = i64(out, 0), i64(out, 1)
    for row in range(count):
        for unit in range(units):
            pre = gates + row * gates_stride + unit * GRU_BYTES
            place = h + row * stride + unit * BYTES
            r = sigmoid(load(pre))
            z = sigmoid(load(pre + BYTES))
            n = tanh(fma(r, load(pre + 3 * BYTES), load(pre + 2 * BYTES)))
            value = fma(z, load(place) - n, n)
            store(place, value)
            _emit(target, target_stride, row, unit, lanes, value)


def rnn_tanh(units, lanes, gates, gates_stride, count, h, c, stride, out):
    target, target_stride = i64(out, 0), i64(out, 1)
    for row in range(count):
        for unit in range(units):
            value = tanh(load(gates + row * gates_stride + unit * BYTES))
            store(h + row * stride + unit * BYTES, value)
            _emit(target, target_stride, row, unit, lanes, value)


def rnn_relu(units, lanes, gates, gates_stride, count, h, c, stride, out):
    target, target_stride = i64(out, 0), i64(out, 1)
    for row in range(count):
        for unit in range(units):
            value = at_least(load(gates + row * gates_stride + unit * BYTES), splat(0.0))
            store(h + row * stride + unit * BYTES, value)
            _emit(target, target_stride, row, unit, lanes, value)


def rhn(units, lanes, gates, gates_stride, count, h, c, stride, out):
    """s' = s + t (tanh(h) - s), gates h t of one depth."""
    target, target_stride = i64(out, 0), i64(out, 1)
    for row in range(count):
        for unit in range(units):
            pre = gates + row * gates_stride + unit * RHN_BYTES
            place = h + row * stride + unit * BYTES
            state = load(place)
            value = fma(sigmoid(load(pre + BYTES)), tanh(load(pre)) - state, state)
            store(place, value)
            _emit(target, target_stride, row, unit, lanes, value)
