"""Parts of a sequence along its time axis, and sequences put together: they move clocks, not elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..eliminate import Rule, Step, joined
from ..program import Clock
from ..values import CONST, NOW, SEQUENCE, Elements, Value
from ..windows import delayed, ends_early, first, past
from .moves import picked
from .pointwise import aligned, pointwise

LAST = "puts something in the place of the last steps, which a stream does not know for such: fill in front."


def select(step: Step) -> Value:
    """x[:, -1] is the value so far; along features a view."""
    x, dim, number = step["self"], step["dim"], step["index"]
    tensor = step.tensor(x)
    dim %= tensor.dim()
    if x.axis != dim:
        return x.but(tensor.select(dim, number), axis=_after(x.axis, dim), data=None)
    if not x.moves:
        return x.but(tensor.select(dim, 0), axis=None, lengths=(0, 0), data=None)
    behind = _from_end(step, x, number, "index")
    if behind is None:
        if number < 0 or number != step.other.args["index"]:
            step.fail("reads a step whose place depends on the length of the sequence.")
        return first(step.build, x, number)
    return latest(step, x, behind - 1)


def _after(axis: int | None, removed: int) -> int | None:
    return None if axis is None else axis - (removed < axis)


def _from_end(step: Step, x: Value, number: int, name: str) -> int | None:
    """How many elements lie from place `number` to the end; None where that depends on the length."""
    other = step.other.args[name]
    found = [-n if n < 0 else size - n for n, size in zip((number, other), _sizes(step, x))]
    return found[0] if found[0] == found[1] else None


def _sizes(step: Step, x: Value) -> tuple[int, int]:
    assert x.axis is not None
    if step.tensor(x).shape[x.axis] != 1:
        step.fail("cuts a time axis into which another one was folded.")
    return x.lengths


def settled(step: Step, x: Value) -> Value:
    """`x` so late that its last element of the whole call is the last that came; padding at the end can't be known."""
    lag = {(steps - 1) - ((n - 1) * x.clock.every + x.clock.first) for steps, n in zip(step.steps, x.lengths)}
    if len(lag) > 1:
        step.fail("takes the end of a sequence whose length does not follow the steps.")
    late = lag.pop()
    if late < 0:
        step.fail("takes the end of a sequence that padding at the end made longer.")
    elements = late // x.clock.every
    if elements == 0:
        return x
    return delayed(step.build, x, Clock(x.clock.every, x.clock.first + elements * x.clock.every))


def latest(step: Step, x: Value, back: int) -> Value:
    """The last element but `back`, as the value so far."""
    x = settled(step, x)
    if back:
        x = delayed(step.build, x, Clock(x.clock.every, x.clock.first + back * x.clock.every))
    assert x.axis is not None
    return Value(NOW, step.tensor(x).select(x.axis, 0), None, x.clock)


def cut(step: Step) -> Value:
    """x[:, a:b:c]: later, less often; what is left out at the end asks nothing of a step."""
    x, dim = step["self"], step["dim"]
    start, end, every = step["start"] or 0, step.get("end"), step.get("step", 1)
    tensor = step.tensor(x)
    dim %= tensor.dim()
    other = step.other.args.get("end")
    if step.name == "narrow":
        end, other = (begin + run.args["length"] or None for begin, run in
                      ((start, step.call), (step.other.args["start"], step.other)))  # fmt: skip
    if x.axis != dim:
        end = tensor.shape[dim] if end is None else end
        return x.but(tensor[(slice(None),) * dim + (slice(start, end, every),)], data=None)
    if not x.moves:
        return step.gives(tensor, x) if step.axis() is not None else step.fail("takes a fixed number of steps.")
    if step.axis() is None:
        return _last_few(step, x, start, (end, other), every)
    sizes = _sizes(step, x)
    begin = start + sizes[0] if start < 0 else start
    other = step.other.args["start"] or 0
    if begin != (other + sizes[1] if other < 0 else other):
        step.fail("starts at a step that depends on the length of the sequence.")
    clock = Clock(x.clock.every * every, x.clock.first + begin * x.clock.every)
    return step.gives(tensor, x, clock=clock)


def _last_few(step: Step, x: Value, start: int, ends: tuple[int | None, int | None], every: int) -> Value:
    """x[:, -n:]: the last n elements, with an axis of their own."""
    sizes = _sizes(step, x)
    assert x.axis is not None
    count = step.shapes()[0][x.axis]
    behind = {size - min(size if e is None else (e + size if e < 0 else e), size) for size, e in zip(sizes, ends)}
    begins = {size - (s + size if s < 0 else s) for size, s in zip(sizes, (start, step.other.args["start"] or 0))}
    begin = start if start == (step.other.args["start"] or 0) else -1
    if count == 1 and begin >= 0 and begin < min(sizes) and len(begins) > 1:
        kept = first(step.build, x, begin)
        return kept.but(step.tensor(kept).unsqueeze(x.axis))
    if len(behind) > 1 or len(begins) > 1:
        return step.gone(
            "takes fixed steps of the sequence, which a stream has passed: take the last ones, or single ones."
        )
    x = settled(step, x)
    assert x.axis is not None
    rows = begins.pop()
    ring = past(step.build, x, rows)[0 : rows - behind.pop() : every]
    assert len(ring) == count
    clock = Clock(x.clock.every, x.clock.first + (rows - 1) * x.clock.every)
    return Value(NOW, ring.movedim(0, x.axis), None, clock)


def unfold(step: Step) -> Value:
    """Overlapping windows, with an axis of their own behind the others."""
    x, dim, size, every = step["self"], step["dimension"], step["size"], step["step"]
    tensor = step.tensor(x)
    dim %= tensor.dim()
    if x.axis != dim:
        return x.but(tensor.unfold(dim, size, every), data=None)
    ring = past(step.build, x, size)
    clock = Clock(x.clock.every * every, x.clock.first + (size - 1) * x.clock.every)
    return step.gives(ring.movedim(0, -1).unsqueeze(dim), x, clock=clock)


def unbind(step: Step) -> Any:
    """Along features views; along time single elements, which a loop may read in their order."""
    x, dim = step["self"], step["dim"] % step.dim(step["self"])
    if x.axis == dim and x.moves:
        return Elements(x)
    step.kept_apart(x, [dim], "goes through")
    return [x.but(t, axis=_after(x.axis, dim), data=None) for t in step.tensor(x).unbind(dim)]


def begun(step: Step, x: Value, count: int, start: Any) -> Value:
    """A sequence with `count` elements in front: `start`, a number or a tensor (count, ...) without the time axis."""
    assert x.axis is not None
    tensor = step.tensor(x)
    clock = Clock(x.clock.every, x.clock.first - count * x.clock.every)
    _sizes(step, x)
    frame = tensor.select(x.axis, 0)
    out = step.build.made("before", (frame, start), frame.shape, clock, tensor, until=x.clock.first)
    lengths = (x.lengths[0] + count, x.lengths[1] + count)
    return x.but(out.unsqueeze(x.axis), clock=clock, lengths=lengths)


def cat(step: Step) -> Value:
    """Side by side along features; along time a constant may stand in front of a sequence, or behind it."""
    values: list[Value] = list(step["tensors"])
    dim = step["dim"] % len(step.shapes()[0])
    values = [v for v in values if not (v.data is not None and v.data.numel() == 0)]
    if step.axis() == dim:
        return _after_each_other(step, values, dim)
    values = aligned(step, values)
    kind, clock = joined(step, values)
    axis = step.axis()
    tensors = _one_length(step, values, axis)
    shape = list(tensors[0].shape)
    shape[dim] = sum(t.shape[dim] for t in tensors)
    out = step.build.work("cat", shape, step.call.result)
    start = 0
    for tensor in tensors:
        step.build.emit("copy", (tensor,), (out.narrow(dim, start, tensor.shape[dim]),), clock)
        start += tensor.shape[dim]
    lengths = next((v.lengths for v in values if v.axis is not None), (0, 0))
    return Value(kind, out, axis, clock, lengths)


def _one_length(step: Step, values: Sequence[Value], axis: int | None) -> list[Tensor]:
    for value in values:
        if value.axis != axis and axis is not None:
            step.fail("puts sequences side by side whose time axes differ.")
    size = next((step.tensor(v).shape[axis] for v in values if v.moves and axis is not None), 1)
    tensors = [step.tensor(v) for v in values]
    return [t if axis is None or t.shape[axis] == size else t.expand(*t.shape[:axis], size, *t.shape[axis + 1 :])
            for t in tensors]  # fmt: skip


def stack(step: Step) -> Value:
    """A new axis of features."""
    values = aligned(step, list(step["tensors"]))
    shapes = step.shapes()
    dim = step["dim"] % len(shapes[0])
    kind, clock = joined(step, values)
    if step.axis() == dim:
        step.fail("puts single steps together to a sequence.")
    tensors = [step.tensor(v) for v in values]
    shape = list(tensors[0].shape)
    shape.insert(dim, len(tensors))
    out = step.build.work("stack", shape, step.call.result)
    for n, tensor in enumerate(tensors):
        step.build.emit("copy", (tensor,), (out.select(dim, n),), clock)
    lengths = next((v.lengths for v in values if v.axis is not None), (0, 0))
    return Value(kind, out, step.axis(), clock, lengths)


def _after_each_other(step: Step, values: Sequence[Value], dim: int) -> Value:
    moving = [n for n, v in enumerate(values) if v.kind == SEQUENCE]
    if len(moving) != 1 or any(v.kind not in (SEQUENCE, CONST) for v in values):
        step.fail("puts sequences one after the other, or a value that is not constant before one.")
    x = values[moving[0]]
    for value in reversed(values[: moving[0]]):
        if value.axis is not None or value.data is None:
            step.fail("puts a sequence behind a tensor as long as itself.")
        data = value.data
        number = data.flatten()[0]
        start: Any = float(number)
        if not bool((data == number).all()):
            frames = step.build.constant(data.movedim(dim, 0).contiguous(), "start")
            start = frames.expand(data.shape[dim], *step.tensor(x).select(dim, 0).shape)
        x = begun(step, x, data.shape[dim], start)
    end = sum(step.tensor(v).shape[dim] for v in values[moving[0] + 1 :])
    if end and ends_early(x, step.steps):
        step.fail(LAST)
    return x.but(step.tensor(x), lengths=(x.lengths[0] + end, x.lengths[1] + end))


def _roll(step: Step) -> Value:
    x = step["self"]
    step.kept_apart(x, step["dims"] or [x.axis or 0], "turns round")
    tensor = step.tensor(x)
    for dim, shift in zip(step["dims"], step["shifts"]):
        size = tensor.shape[dim]
        tensor = picked(step, x, tensor, dim % tensor.dim(), [(n - shift) % size for n in range(size)])
    return x.but(tensor, data=None)


def _put(step: Step) -> Value:
    """x[mask] = number, the mask over the first axes of x or all of them."""
    x, places, value = step["self"], step["indices"], step["values"]
    mask = places[0] if len(places) == 1 else None
    one = not isinstance(value, Value) or step.tensor(value).numel() == 1
    if not isinstance(mask, Value) or step.tensor(mask).dtype != torch.bool or not one or step["accumulate"]:
        step.fail("writes at places that it looks up, or what is no number: of those only x[mask] = number streams.")
    last = step.dim(x) - step.dim(mask)
    wide = mask.but(step.tensor(mask)[(..., *[None] * last)], data=None)
    return pointwise(step, "where", [wide, value, x])


RULES: dict[str, Rule] = {
    "select": select, "slice": cut, "narrow": cut, "unfold": unfold, "unbind": unbind, "cat": cat, "concat": cat,
    "concatenate": cat, "stack": stack, "roll": _roll,
    "index_put": _put,
}  # fmt: skip
