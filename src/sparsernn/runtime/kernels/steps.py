"""The kernel that runs a step program: operations one by one, those that are not due left out."""

from __future__ import annotations

from ..vector import WIDTH, call1, i64, load, put_i64, store_first


def run(f):
    """Fields: operations, their count. An operation is a pair of int64: the address of a kernel and that of its fields.

    In place of a kernel, 0: a guard, whose fields are an address, what has to stand there, and how many operations are
    skipped where something else does.
    """
    operations, count = i64(f, 0), i64(f, 1)
    n = 0
    while n < count:
        kernel, fields = i64(operations, 2 * n), i64(operations, 2 * n + 1)
        n += 1
        if kernel != 0:
            call1(kernel, fields)
        elif i64(i64(fields, 0), 0) != i64(fields, 1):
            n += i64(fields, 2)


def tick(f):
    """A step begins. Fields: its number; how many clocks, and theirs: steps between two that are due, steps until the
    next one, 1 where this step is due."""
    put_i64(f, 0, i64(f, 0) + 1)
    for n in range(i64(f, 1)):
        clock = f + 16 + 24 * n
        wait = i64(clock, 1)
        put_i64(clock, 2, 1 if wait == 0 else 0)
        put_i64(clock, 1, (i64(clock, 0) if wait == 0 else wait) - 1)


def before(f):
    """What stands at the begin of a sequence, and later x, side by side. Fields: address of the number of the next
    step, the step from which on it is x, the first and the period of its clock; x, the rows of the begin, bytes from
    row to row, to, count."""
    step = i64(i64(f, 0), 0) - 1
    source, to, count = i64(f, 4), i64(f, 7), i64(f, 8)
    if step < i64(f, 1):
        source = i64(f, 5) + (step - i64(f, 2)) // i64(f, 3) * i64(f, 6)
    n = 0
    while n < count:
        store_first(to + n * 4, load(source + n * 4), min(WIDTH, count - n))
        n += WIDTH
