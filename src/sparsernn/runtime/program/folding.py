"""Operations that a step need not do: of constants alone, factors and terms of what a product gives, plain copies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from .operations import BINARY, OPERATIONS, UNARY
from .program import CONSTANT, EACH_STEP, FLOAT, INPUT, STATE, WORK, Buffer, Clock, Operation, Program, View, whole

_PRODUCTS = ("linear", "conv", "conv_transpose")
_SAME_EACH_TIME = {*UNARY, *BINARY, "linear", "matmul", "softmax", "log_softmax", "sum", "mean", "amax", "amin", "prod"}


def folded(program: Program) -> Program:
    """The same function in fewer operations; numbers are worked out in float64."""
    with torch.no_grad():
        return _without_copies(_without_factors(_without_constants(program)))


def _alike(a: Clock, b: Clock) -> bool:
    """Whether two clocks are due at the same steps of a sequence."""
    each = (a.every == 1 and a.first <= 0, b.every == 1 and b.first <= 0)
    return a == b or all(each)


def _writers(program: Program, name: str) -> list[Operation]:
    return [o for o in program.operations if any(v.buffer == name for v in o.outputs)]


def _kinds(program: Program, views: Iterable[View]) -> set[str]:
    return {program.buffers[v.buffer].kind for v in views}


def _value(program: Program, value: View | float) -> Tensor:
    if not isinstance(value, View):
        return torch.tensor(float(value), dtype=torch.float64, device="cpu")
    content = program.buffers[value.buffer].value
    assert content is not None
    return value.of(content.double() if program.buffers[value.buffer].dtype == FLOAT else content)


def _without_constants(program: Program) -> Program:
    """What depends on constants alone is one."""
    operations, buffers = [], dict(program.buffers)
    for o in program.operations:
        program = replace(program, buffers=buffers)
        read = [v for v in o.inputs if isinstance(v, View)]
        alone = (
            o.kind in _SAME_EACH_TIME and read and _kinds(program, read) == {CONSTANT} and _alike(o.clock, EACH_STEP)
        )
        out = o.outputs[0]
        whole_of = out.contiguous and out.size == buffers[out.buffer].size and len(_writers(program, out.buffer)) == 1
        if not (alone and whole_of and buffers[out.buffer].kind == WORK and buffers[out.buffer].dtype == FLOAT):
            operations.append(o)
            continue
        given = [None if v is None else _value(program, v) for v in o.inputs]
        result = OPERATIONS[o.kind](*given, **o.options)
        buffers[out.buffer] = replace(
            buffers[out.buffer], kind=CONSTANT, value=result.double().contiguous().reshape(-1)
        )
    return replace(program, operations=tuple(operations), buffers=buffers)


def _without_factors(program: Program) -> Program:
    """A product that is scaled or shifted channel by channel, as a norm in inference does it, has other weights."""
    while True:
        for at, o in enumerate(program.operations):
            if o.kind in _PRODUCTS and (found := _joined(program, at)) is not None:
                program = found
                break
        else:
            return program


def _joined(program: Program, at: int) -> Program | None:
    """With the operation behind product number `at` taken into it; None where that is no factor or term of channels."""
    product = program.operations[at]
    (out,), (_, weight, bias) = product.outputs, product.inputs
    known = [v for v in (weight, bias) if v is not None]
    if not all(isinstance(v, View) for v in known) or _kinds(program, known) != {CONSTANT}:  # type: ignore[arg-type]
        return None
    readers = [
        n for n, o in enumerate(program.operations) if any(v.buffer == out.buffer for v in o.views()) and n != at
    ]
    shown = [p for p in program.outputs if p.view.buffer == out.buffer]
    if not readers or readers[0] < at or program.buffers[out.buffer].kind != WORK:
        return None
    after = program.operations[readers[0]]
    (target,) = after.outputs if len(after.outputs) == 1 else (None,)
    if after.kind not in ("mul", "add", "sub", "div") or not _alike(after.clock, product.clock) or target is None:
        return None
    in_place = target.buffer == out.buffer and target in after.inputs
    if target.buffer == out.buffer and not in_place:
        return None
    if len(readers) > 1 and not in_place:  # others read what the product gave
        return None
    if (shown and not in_place) or (not in_place and _touched(program, target.buffer, at, readers[0])):
        return None
    x, other = after.inputs
    if after.kind in ("mul", "add") and not (isinstance(x, View) and x.buffer == out.buffer):
        x, other = other, x
    if not isinstance(x, View) or x.buffer != out.buffer or other is None:
        return None
    if isinstance(other, View) and (_kinds(program, [other]) != {CONSTANT} or other.buffer == out.buffer):
        return None
    own = _channels(program, product, out, x, _value(program, other))
    place = _moved(out, x, target)
    if own is None or place is None:
        return None
    return _rewritten(program, at, readers[0], after.kind, own, place)


def _touched(program: Program, name: str, first: int, last: int) -> bool:
    """Whether an operation between these two has to do with buffer `name`, or it is no plain work."""
    between = program.operations[first:last]
    busy = any(v.buffer == name for o in between for v in o.views())
    return busy or program.buffers[name].kind not in (WORK, STATE)


def _channels(program: Program, product: Operation, out: View, x: View, value: Tensor) -> Tensor | None:
    """`value`, which meets `x`, as one number for each channel of the product; None where it is not that."""
    size = program.buffers[out.buffer].size
    axis = len(out.shape) - 1 if product.kind == "linear" else 1
    count = out.shape[axis]
    shape = [count if n == axis else 1 for n in range(len(out.shape))]
    channel = torch.full((size,), -1, dtype=torch.int64, device="cpu")
    out.of(channel).copy_(torch.arange(count, dtype=torch.int64, device="cpu").view(shape).expand(out.shape))
    met = x.of(channel).reshape(-1)
    if (
        x.size != out.size
        or bool((met < 0).any())
        or not all(x.strides[n] for n in range(len(x.shape)) if x.shape[n] > 1)
    ):
        return None
    own = torch.zeros(count, dtype=torch.float64, device="cpu")
    spread = value.expand(x.shape).reshape(-1)
    own[met] = spread
    return own if torch.equal(own[met], spread) else None


def _moved(out: View, x: View, target: View) -> View | None:
    """Where the product writes so that `target` holds what `x`, another view of `out`, would have become."""
    mine = [(n, s) for n, s in zip(out.shape, out.strides) if n != 1]
    theirs = [(n, s) for n, s in zip(x.shape, x.strides) if n != 1]
    if mine != theirs or out.offset != x.offset:
        return None
    steps = iter([s for n, s in zip(target.shape, target.strides) if n != 1])
    return View(target.buffer, out.shape, tuple(next(steps) if n != 1 else 1 for n in out.shape), target.offset)


def _rewritten(program: Program, at: int, after: int, kind: str, own: Tensor, place: View) -> Program:
    product = program.operations[at]
    x, weight, bias = product.inputs
    assert isinstance(weight, View)
    new, start = _value(program, weight).clone(), None if bias is None else _value(program, bias).reshape(-1).clone()
    if kind in ("mul", "div"):
        factor = own if kind == "mul" else 1 / own
        new = _scaled(product, new, factor)
        start = None if start is None else start * factor
    else:
        start = (torch.zeros_like(own) if start is None else start) + (own if kind == "add" else -own)
    buffers = dict(program.buffers)
    views: list[View | None] = []
    for value, name in ((new, "weight"), (start, "bias")):
        if value is None:
            views.append(None)
            continue
        name = f"{product.outputs[0].buffer}.{name}.{len(buffers)}"
        buffers[name] = Buffer(name, value.numel(), FLOAT, CONSTANT, value.reshape(-1))
        views.append(whole(name, tuple(value.shape)))
    operations = list(program.operations)
    operations[at] = replace(product, inputs=(x, *views), outputs=(place,))
    del operations[after]
    return _used(replace(program, buffers=buffers, operations=tuple(operations)))


def _scaled(product: Operation, weight: Tensor, factor: Tensor) -> Tensor:
    if product.kind != "conv_transpose":
        return weight * factor.view(-1, *[1] * (weight.dim() - 1))
    groups = product.options.get("groups", 1)  # its weight is (in, out / groups, ...)
    each = factor.view(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1).reshape(weight.shape[:2])
    return weight * each.view(*each.shape, *[1] * (weight.dim() - 2))


def _used(program: Program) -> Program:
    """Without constants and work that nothing refers to any more."""
    names = {v.buffer for o in program.operations for v in o.views()}
    names |= {p.view.buffer for p in (*program.inputs, *program.outputs, *program.states)}
    kept = {n: b for n, b in program.buffers.items() if n in names or b.kind in (STATE, INPUT)}
    return replace(program, buffers=kept)


def _without_copies(program: Program) -> Program:
    """What is only another name of a value is read in its place."""
    while True:
        for at, o in enumerate(program.operations):
            if o.kind in ("copy", "before") and o.options.get("until", 0) <= 0 and _is_name(program, at):
                program = _renamed(program, at)
                break
        else:
            return _used(program)


def _is_name(program: Program, at: int) -> bool:
    """Whether all of a buffer is copied to all of another, and the two never differ when one is read."""
    o = program.operations[at]
    source, target = o.inputs[0], o.outputs[0]
    if not isinstance(source, View) or not _is_all(program, source) or not _is_all(program, target):
        return False
    ours, other = program.buffers[source.buffer], program.buffers[target.buffer]
    if source.size != target.size or ours.dtype != other.dtype or other.kind != WORK:
        return False
    makers = _writers(program, source.buffer)
    if ours.kind == WORK:
        once = len(makers) == 1 and makers[0] in program.operations[:at] and _alike(makers[0].clock, o.clock)
    else:
        shown = any(p.view.buffer == target.buffer for p in program.outputs)
        once = ours.kind == INPUT and not makers and _alike(o.clock, EACH_STEP) and not shown
    early = [v for earlier in program.operations[:at] for v in earlier.views() if v.buffer == target.buffer]
    return once and not early and len(_writers(program, target.buffer)) == 1


def _renamed(program: Program, at: int) -> Program:
    o = program.operations[at]
    old, new = o.outputs[0].buffer, next(o.views()).buffer
    operations = tuple(_named(p, old, new) for n, p in enumerate(program.operations) if n != at)
    outputs = tuple(
        replace(p, view=replace(p.view, buffer=new)) if p.view.buffer == old else p for p in program.outputs
    )
    return replace(program, operations=operations, outputs=outputs)


def _is_all(program: Program, view: View) -> bool:
    return view.contiguous and view.size == program.buffers[view.buffer].size


def _named(operation: Operation, old: str, new: str) -> Operation:
    inputs = tuple(replace(v, buffer=new) if isinstance(v, View) and v.buffer == old else v for v in operation.inputs)
    outputs = tuple(replace(v, buffer=new) if v.buffer == old else v for v in operation.outputs)
    return replace(operation, inputs=inputs, outputs=outputs)
