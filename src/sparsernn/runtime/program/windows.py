"""The last elements of a sequence, kept in a state: what delays, convolutions and poolings over time read."""

from __future__ import annotations

from torch import Tensor

from .builder import Builder
from .calls import NotAProgram
from .program import Clock
from .values import HELD, Value


def past(build: Builder, value: Value, rows: int) -> Tensor:
    """The last `rows` elements of a sequence, oldest first, (rows, ...) without the time axis."""
    tensor = value.tensor
    assert value.axis is not None and tensor is not None
    if tensor.shape[value.axis] != 1:
        where = f" ({build.source})" if build.source else ""
        raise NotAProgram(f"the model{where} works along a time axis into which another one was folded.")
    frame = tensor.select(value.axis, 0)
    known = build.pasts.get((build.view(frame), value.clock, rows))
    if known is not None:
        return known
    if frame.dim() > 1:  # rows of the batch outermost: what one row's window shows then lies together
        shape = (frame.shape[0], rows, *frame.shape[1:])
        ring = build.state("past", shape, tensor).movedim(1, 0)
    else:
        ring = build.state("past", (rows, *frame.shape), tensor)
    build.emit("push", (frame,), (ring,), value.clock)
    build.pasts[build.view(frame), value.clock, rows] = ring
    return ring


def reached(clock: Clock, step: int) -> Clock:
    """`clock`, or so much later that it begins with `step` or behind it."""
    late = max(-(-(step - clock.first) // clock.every), 0)
    return Clock(clock.every, clock.first + late * clock.every)


def begin(build: Builder, state: Tensor, start: Tensor, clock: Clock) -> None:
    """At the first step of `clock` the state is `start`, which the step itself may make."""
    rows = start.expand(state.shape).unsqueeze(0)
    build.emit("before", (state, rows), (state,), clock, {"until": clock.first + 1})


def first(build: Builder, value: Value, number: int) -> Value:
    """Element `number` of a sequence, kept from the step on at which it comes; without a time axis."""
    tensor = value.tensor
    assert tensor is not None and value.axis is not None
    frame = tensor.select(value.axis, 0)
    clock = Clock(value.clock.every, value.clock.first + number * value.clock.every)
    state = build.state("first", frame.shape, tensor)
    begin(build, state, frame, clock)
    return Value(HELD, state, None, Clock(1, max(clock.first, 0)))


def ends_early(value: Value, steps: tuple[int, int]) -> bool:
    """Whether a step was cut off at its end: its next element would still be one of the sequence's own."""
    return any(n * value.clock.every + value.clock.first <= size - 1 for n, size in zip(value.lengths, steps))


def window(build: Builder, value: Value, size: int, dilation: int = 1, every: int = 1) -> tuple[Tensor, Clock]:
    """The last `size` elements, `dilation` apart, in the place of the time axis; and when they are complete.

    every: only each so many windows are wanted.
    """
    assert value.axis is not None and value.tensor is not None
    clock = value.clock
    rows = (size - 1) * dilation + 1
    late = Clock(clock.every * every, clock.first + (rows - 1) * clock.every)
    if rows == 1:
        return value.tensor, late
    return past(build, value, rows)[::dilation].movedim(0, value.axis), late


def delayed(build: Builder, value: Value, clock: Clock) -> Value:
    """A sequence whose elements come when those of `clock` do, at the same rate."""
    elements = (clock.first - value.clock.first) // value.clock.every
    if elements == 0:
        return value
    assert value.axis is not None
    oldest = past(build, value, elements + 1)[0].unsqueeze(value.axis)
    return value.but(oldest, clock=clock)
