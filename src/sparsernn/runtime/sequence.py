"""One layer and direction over a whole sequence, in one compiled call."""

from __future__ import annotations

from numba import njit

from .fields import Field
from .products import copy_part
from .vector import call7, call9, i64, put_i64

_copy_part = njit(copy_part)

_PLACE = int(Field.PLACE)


@njit
def _input_products(f, first, steps, sizes):
    """Pre-activations W_ih x + b of `steps` time steps from `first` on; step by step their rows follow each other."""
    kernel, plan = i64(f, Field.INPUT_KERNEL), i64(f, Field.INPUT_PLAN)
    x, x_time, x_row = i64(f, Field.X), i64(f, Field.X_TIME), i64(f, Field.X_ROW)
    gates, stride = i64(f, Field.GATES), i64(f, Field.GATES_STRIDE)
    rows, scratch = i64(f, Field.ROWS), i64(f, Field.SCRATCH)
    if sizes != 0:
        starts = i64(f, Field.STARTS)
        begin, end = i64(starts, first), i64(starts, first + steps)
        call7(kernel, plan, x + begin * x_row, x_row, end - begin, gates, stride, scratch)
    elif x_time == rows * x_row or steps == 1:
        call7(kernel, plan, x + first * x_time, x_row, steps * rows, gates, stride, scratch)
    elif steps >= rows:
        for row in range(rows):
            call7(
                kernel,
                plan,
                x + first * x_time + row * x_row,
                x_time,
                steps,
                gates + row * stride,
                rows * stride,
                scratch,
            )
    else:
        for t in range(steps):
            call7(kernel, plan, x + (first + t) * x_time, x_row, rows, gates + t * rows * stride, stride, scratch)


@njit
def _chunk(f, first, sizes):
    """How many time steps from `first` on fit into the workspace (going back from `first` when in reverse)."""
    capacity, steps = i64(f, Field.CAPACITY), i64(f, Field.STEPS)
    reverse = i64(f, Field.REVERSE) != 0
    if sizes == 0:
        return min(capacity // i64(f, Field.ROWS), first + 1 if reverse else steps - first)
    count, taken = 0, 0
    t = first
    while 0 <= t < steps and taken + i64(sizes, t) <= capacity:
        taken += i64(sizes, t)
        count += 1
        t += -1 if reverse else 1
    return count


@njit
def _depth(f, kernel, plan, gates, rows, out):
    stride = i64(f, Field.GATES_STRIDE)
    recurrent, recurrent_stride = i64(f, Field.RECURRENT), i64(f, Field.RECURRENT_STRIDE)
    h, state_stride = i64(f, Field.H), i64(f, Field.STATE_STRIDE)
    project, scratch = i64(f, Field.PROJECT_KERNEL), i64(f, Field.SCRATCH)
    if kernel != 0:
        call7(kernel, plan, recurrent, recurrent_stride, rows, gates, stride, scratch)
    put_i64(f, Field.PLACE, 0 if project != 0 else out)
    put_i64(f, Field.PLACE_STRIDE, i64(f, Field.OUT_ROW))
    call9(
        i64(f, Field.CELL_KERNEL), i64(f, Field.UNITS), i64(f, Field.LANES), gates, stride, rows, h, i64(f, Field.C),
        state_stride, f + 8 * _PLACE,
    )  # fmt: skip
    if project != 0:
        call7(project, i64(f, Field.PROJECT_PLAN), h, state_stride, rows, recurrent, recurrent_stride, scratch)
        if out != 0:
            _copy_part(i64(f, Field.PROJECT_LANES), recurrent, recurrent_stride, rows, out, i64(f, Field.OUT_ROW))


@njit
def _step(f, gates, rows, out, zero):
    """One time step: recurrent product (none of a state of `zero`), gates and state, projection, output.

    Where it has further depths, their products write whole rows of gates from a bias, over the ones before.
    """
    deeper, depths = i64(f, Field.DEEPER), i64(f, Field.DEPTHS)
    hidden = 0 if zero else i64(f, Field.HIDDEN_KERNEL)
    _depth(f, hidden, i64(f, Field.HIDDEN_PLAN), gates, rows, out if depths == 0 else 0)
    for d in range(depths):
        _depth(f, i64(deeper, 2 * d), i64(deeper, 2 * d + 1), gates, rows, out if d == depths - 1 else 0)


def layer(f):
    """Run the layer whose fields stand at address `f`. States are read and left in place."""
    steps, rows, reverse, sizes = i64(f, Field.STEPS), i64(f, Field.ROWS), i64(f, Field.REVERSE), i64(f, Field.SIZES)
    starts = i64(f, Field.STARTS)
    gates, stride = i64(f, Field.GATES), i64(f, Field.GATES_STRIDE)
    out, out_time, out_row = i64(f, Field.OUT), i64(f, Field.OUT_TIME), i64(f, Field.OUT_ROW)
    done = 0
    while done < steps:
        edge = steps - 1 - done if reverse != 0 else done
        chunk = _chunk(f, edge, sizes)
        first = edge - chunk + 1 if reverse != 0 else edge
        _input_products(f, first, chunk, sizes)
        for n in range(chunk):
            t = first + chunk - 1 - n if reverse != 0 else first + n
            active = i64(sizes, t) if sizes != 0 else rows
            before = i64(starts, t) - i64(starts, first) if sizes != 0 else (t - first) * rows
            place = 0
            if out != 0:
                place = out + (i64(starts, t) * out_row if sizes != 0 else t * out_time)
            _step(f, gates + before * stride, active, place, done + n == 0 and i64(f, Field.ZERO) != 0)
        done += chunk
