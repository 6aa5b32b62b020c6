"""Convolutions, transposed convolutions and poolings of one step: windows on places, tap after tap or as products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ..runtime.program.program import Operation
from .elementwise import larger
from .lowering import Lowering
from .maps import Fold, Map, copy, fill
from .places import Place
from .products import Product


def conv(low: Lowering, o: Operation) -> list[Any]:
    """A product for each place of the result; one input channel a group is folded tap after tap."""
    x, out = low.operand(o.inputs[0]), low.place(o.outputs[0])
    weight, bias = low.array(o.inputs[1]), low.array(o.inputs[2])
    assert isinstance(x, Place) and weight is not None
    steps, x = _padded(low, x, o.options["padding"])
    groups, nd = o.options["groups"], weight.ndim - 2
    if groups == x.shape[1] and groups > 1:
        fields = _fields(x, out.shape[2:], weight.shape[2:], o.options["stride"], o.options["dilation"])
        begin = fill(0.0, out) if bias is None else copy(_channels(low.table(bias), out), out)
        return [*steps, begin, *_depthwise(low, fields, weight, out)]
    channels, own = x.shape[1] // groups, len(weight) // groups
    for g in range(groups):
        part = x.cut(1, g * channels, channels)
        fields = _fields(part, out.shape[2:], weight.shape[2:], o.options["stride"], o.options["dilation"])
        kernel = weight[g * own : (g + 1) * own]
        target = out.cut(1, g * own, own)
        steps += _products(low, fields, kernel, None if bias is None else bias[g * own : (g + 1) * own], target, nd)
    return steps


def _products(
    low: Lowering, fields: Place, kernel: np.ndarray, bias: np.ndarray | None, out: Place, nd: int
) -> list[Any]:
    """fields: (batch, places..., channels, taps...). The columns of the product come as they lie in memory."""
    heads = nd + 1
    axes = sorted(range(nd + 1), key=lambda k: -fields.strides[heads + k])
    rows = fields.moved([*range(heads), *(heads + k for k in axes)])
    columns = kernel.transpose(0, *(1 + k for k in axes)).reshape(len(kernel), -1)
    matrix = low.matrix(columns, 1, out.size // out.shape[1])
    last = out.moved([0, *range(2, nd + 2), 1])
    target = last if last.strides[-1] == 1 or last.shape[-1] == 1 else low.scratch(*last.shape)
    begin = fill(0.0, target) if bias is None else copy(low.table(bias).spread(*last.shape[:-1]), target)
    merged = _follow(rows, heads)
    if merged:
        rows = replace(rows, shape=(*rows.shape[:heads], matrix.shape[1]), strides=(*rows.strides[:heads], 1))
    gathered = Product(matrix, rows, target, None if merged else low.scratch(matrix.shape[1]))
    return [begin, gathered, *([copy(target, last)] if target is not last else [])]


def _follow(rows: Place, heads: int) -> bool:
    """Whether the elements of the axes behind the first `heads` follow each other in memory."""
    expected = 1
    for size, stride in zip(reversed(rows.shape[heads:]), reversed(rows.strides[heads:])):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _depthwise(low: Lowering, fields: Place, weight: np.ndarray, out: Place) -> Iterator[Any]:
    """fields: (batch, places..., groups, taps...); out (batch, groups times m, places...)."""
    nd = weight.ndim - 2
    groups, taps = fields.shape[nd + 1], fields.shape[nd + 2 :]
    each = len(weight) // groups
    split = Place(out.array, (out.shape[0], groups, each, *out.shape[2:]),
                  (out.strides[0], each * out.strides[1], out.strides[1], *out.strides[2:]), out.offset)  # fmt: skip
    table = low.table(weight.reshape(groups, each, *taps))
    for numbers in product(*map(range, taps[:-1])):
        window = fields
        for axis, k in enumerate(numbers):
            window = window.cut(nd + 2 + axis, k, 1)
        window = replace(window, shape=(*window.shape[: nd + 2], taps[-1]),
                         strides=(*window.strides[: nd + 2], window.strides[-1]))  # fmt: skip
        x = window.moved([nd + 2, 0, nd + 1, *range(1, nd + 1)])  # (taps, batch, groups, places...)
        x = Place(x.array, (*x.shape[:3], each, *x.shape[3:]), (*x.strides[:3], 0, *x.strides[3:]), x.offset)
        own = table
        for axis, k in enumerate(numbers):
            own = own.cut(2 + axis, k, 1)
        w = Place(own.array, (taps[-1], split.shape[0], groups, each, *split.shape[3:]),
                  (own.strides[-1], 0, own.strides[0], own.strides[1], *[0] * nd), own.offset)  # fmt: skip
        yield Fold("taps", _multiply_add, (w, x), split)


def _multiply_add(total: Any, w: Any, x: Any) -> Any:
    return total + w * x


def conv_transpose(low: Lowering, o: Operation) -> list[Any]:
    """Each tap spreads what all channels give over the places that it reaches."""
    x, out = low.operand(o.inputs[0]), low.place(o.outputs[0])
    weight, bias = low.array(o.inputs[1]), low.array(o.inputs[2])
    assert isinstance(x, Place) and weight is not None
    groups = o.options["groups"]
    steps: list[Any] = [fill(0.0, out) if bias is None else copy(_channels(low.table(bias), out), out)]
    table = low.table(weight)  # (in, out / groups, taps...)
    channels, own = x.shape[1] // groups, weight.shape[1]
    for taps in product(*map(range, weight.shape[2:])):
        reached, read = out, x
        for axis, (k, s, d, p) in enumerate(
            zip(taps, o.options["stride"], o.options["dilation"], o.options["padding"])
        ):
            first, count = _reached(d * k - p, s, x.shape[2 + axis], out.shape[2 + axis])
            reached = reached.cut(2 + axis, first * s + d * k - p, count, s)
            read = read.cut(2 + axis, first, count)
        if reached.size == 0:
            continue
        for g in range(groups):
            target, part = reached.cut(1, g * own, own), read.cut(1, g * channels, channels)
            nd = len(taps)
            inputs = part.moved([1, 0, *range(2, nd + 2)])
            v = Place(inputs.array, (*inputs.shape[:2], own, *inputs.shape[2:]),
                      (*inputs.strides[:2], 0, *inputs.strides[2:]), inputs.offset)  # fmt: skip
            offset = table.offset + g * channels * table.strides[0]
            offset += sum(k * s for k, s in zip(taps, table.strides[2:]))
            w = Place(table.array, v.shape, (table.strides[0], 0, table.strides[1], *[0] * nd), offset)
            steps.append(Fold("taps", _multiply_add, (w, v), target))
    return steps


def _reached(shift: int, stride: int, inputs: int, outputs: int) -> tuple[int, int]:
    """The first p and how many with 0 <= stride p + shift < outputs, of those below `inputs`."""
    first = max(0, -(shift // stride))
    last = min(inputs - 1, (outputs - 1 - shift) // stride)
    return first, max(0, last - first + 1)


def pool(low: Lowering, o: Operation) -> list[Any]:
    """avg_pool (by the size of the kernel) and max_pool: one tap after the other."""
    x, out = low.operand(o.inputs[0]), low.place(o.outputs[0])
    assert isinstance(x, Place)
    kernel = o.options["kernel"]
    nd = len(kernel)
    dilation = o.options.get("dilation", (1,) * nd)
    most = o.kind == "max_pool"
    steps: list[Any] = [fill(-np.inf if most else 0.0, out)]
    for taps in product(*map(range, kernel)):
        read, reached = x, out
        for axis, (k, s, d, p) in enumerate(zip(taps, o.options["stride"], dilation, o.options["padding"])):
            at = len(x.shape) - nd + axis
            # Place n of the result reads s n + d k - p.
            first = max(0, -((d * k - p) // s))
            last = min(out.shape[at] - 1, (x.shape[at] - 1 - d * k + p) // s)
            count = max(0, last - first + 1)
            read, reached = read.cut(at, s * first + d * k - p, count, s), reached.cut(at, first, count)
        if reached.size:
            steps.append(Map("most" if most else "plus", larger if most else _plus, (reached, read), (reached,)))
    return steps if most else [*steps, Map("divided", lambda a: a / float(prod(kernel)), (out,), (out,))]


def _plus(a: Any, b: Any) -> Any:
    return a + b


def _channels(bias: Place, out: Place) -> Place:
    """A number for each channel, in the shape of (batch, channels, places...)."""
    return Place(bias.array, out.shape, (0, bias.strides[0], *[0] * (len(out.shape) - 2)), bias.offset)


def _padded(low: Lowering, x: Place, padding: Sequence[int]) -> tuple[list[Any], Place]:
    """x with zeros around it, in scratch if there are any."""
    if not any(padding):
        return [], x
    shape = [*x.shape[:2], *(n + 2 * p for n, p in zip(x.shape[2:], padding))]
    whole = low.scratch(*shape)
    inside = whole
    for axis, (n, p) in enumerate(zip(x.shape[2:], padding)):
        inside = inside.cut(2 + axis, p, n)
    return [fill(0.0, whole), copy(x, inside)], whole


def _fields(
    x: Place, places: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Place:
    """(batch, places..., channels, taps...) of x (batch, channels, n...)."""
    along = x.strides[2:]
    return Place(
        x.array,
        (x.shape[0], *places, x.shape[1], *kernel),
        (
            x.strides[0],
            *(a * s for a, s in zip(along, stride)),
            x.strides[1],
            *(a * d for a, d in zip(along, dilation)),
        ),
        x.offset,
    )
