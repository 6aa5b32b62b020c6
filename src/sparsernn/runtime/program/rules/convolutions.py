"""Convolutions and poolings: over time they read a window of the past, over features they stay what they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..eliminate import Rule, Step
from ..program import Clock
from ..values import CONST, Value
from ..windows import window
from .moves import clock_of
from .padding import padded


def _numbers(value: int | Sequence[int], count: int) -> list[int]:
    if isinstance(value, int):
        return [value] * count
    return list(value) * count if len(value) == 1 else list(value)


def conv(step: Step) -> Value:
    """conv1d, conv2d, conv3d and convolution; transposed ones over time at stride 1."""
    x, weight, bias = step["input"], step["weight"], step.get("bias")
    if weight.data is None:
        step.fail("has a kernel that the model computes.")
    if step.name.startswith("conv_transpose") or step.get("transposed"):
        return _transposed(step)
    nd = step.dim(weight) - 2
    stride, dilation = _numbers(step["stride"], nd), _numbers(step["dilation"], nd)
    padding = step["padding"]
    if isinstance(padding, str):
        kernel = weight.data.shape[2:]
        whole = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel)]
        pairs = [(n // 2, n - n // 2) for n in whole]
    else:
        pairs = [(n, n) for n in _numbers(padding, nd)]
    return convolved(step, x, weight, bias, stride, dilation, pairs, step["groups"])


def convolved(
    step: Step,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: list[int],
    dilation: list[int],
    pairs: list[tuple[int, int]],
    groups: int,
) -> Value:
    """pairs: padding in front and behind, of each axis of the kernel."""
    assert weight.data is not None
    nd = len(stride)
    if step.dim(x) == nd + 1:  # without a batch
        axis = None if x.axis is None else x.axis + 1
        x = x.but(step.tensor(x).unsqueeze(0), axis=axis, data=None)
        out = convolved(step, x, weight, bias, stride, dilation, pairs, groups)
        return out.but(step.tensor(out).squeeze(0), axis=None if out.axis is None else out.axis - 1)
    step.kept_apart(x, [1])
    time = None if x.axis is None or x.axis < 2 else x.axis - 2
    uneven = any(front != behind for n, (front, behind) in enumerate(pairs) if n != time)
    sizes = [0, 0] * nd
    for n, (front, behind) in enumerate(pairs):
        if n == time or uneven:
            sizes[2 * (nd - 1 - n)], sizes[2 * (nd - 1 - n) + 1] = front, behind
    x = padded(step, x, sizes, 0.0)
    rest = [0 if uneven or n == time else front for n, (front, _) in enumerate(pairs)]
    tensor, clock = step.tensor(x), clock_of(x)
    if time is not None:
        tensor, clock = window(step.build, x, weight.data.shape[2 + time], dilation[time], stride[time])
        stride, dilation = list(stride), list(dilation)
        stride[time] = dilation[time] = 1
    out = _emitted(step, tensor, weight, bias, clock, stride, rest, dilation, groups, time)
    return _timed(step, x, out, clock)


def _timed(step: Step, x: Value, out: Tensor, clock: Clock) -> Value:
    """The result, whose clock may be another than the input's."""
    if x.axis is None:
        return x.but(out, data=None)
    shapes = step.shapes()
    axis = step.axis()
    assert axis is not None
    if out.dim() != len(shapes[0]):  # a batch of one was added
        axis = x.axis
    lengths = tuple(s[axis - (out.dim() - len(s))] // out.shape[axis] for s in shapes)
    return x.but(out, axis=axis, clock=clock, lengths=lengths, data=None)


def _emitted(
    step: Step,
    tensor: Tensor,
    weight: Value,
    bias: Value | None,
    clock: Clock,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    time: int | None,
) -> Tensor:
    data = weight.data
    assert data is not None
    build = step.build
    if groups == 1 and data.dim() == 3 and time == 0:
        # One frame of the result: a product of the window with the kernel, taps outermost as the past keeps them.
        rows = build.reshape(tensor.movedim(1, 2), (tensor.shape[0], -1), clock)
        flat = Value(CONST, build.constant(_flat(step, weight), "kernel"))
        out = build.made("linear", (rows, step.tensor(flat), step.tensor(bias)), (len(rows), len(data)), clock)
        return out.unsqueeze(2)
    shape = [tensor.shape[0], data.shape[0]]
    for size, k, s, p, d in zip(tensor.shape[2:], data.shape[2:], stride, padding, dilation):
        shape.append((size + 2 * p - d * (k - 1) - 1) // s + 1)
    options: dict[str, Any] = {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation)}
    inputs = (tensor, step.tensor(weight), step.tensor(bias))
    return build.made("conv", inputs, shape, clock, **options, groups=groups)


def _flat(step: Step, weight: Value) -> Tensor:
    """(out, in, taps) as (out, taps in)."""
    assert weight.data is not None
    return weight.data.detach().movedim(1, 2).flatten(1).contiguous()


def _transposed(step: Step) -> Value:
    x, weight, bias = step["input"], step["weight"], step.get("bias")
    data = weight.data
    nd = data.dim() - 2
    stride, dilation = _numbers(step["stride"], nd), _numbers(step["dilation"], nd)
    padding, extra = _numbers(step["padding"], nd), _numbers(step["output_padding"], nd)
    if step.dim(x) != nd + 2:
        step.fail("has no batch: add one.")
    step.kept_apart(x, [1])
    time = None if x.axis is None or x.axis < 2 else x.axis - 2
    tensor, clock, groups = step.tensor(x), clock_of(x), step["groups"]
    if time is not None:
        if stride[time] != 1:
            step.fail("gives several steps for one: give them as features of one.")
        if groups != 1:
            step.fail("is transposed in groups over time.")
        front = dilation[time] * (data.shape[2 + time] - 1) - padding[time]
        x = padded(step, x, _only(nd, time, front), 0.0)
        tensor, clock = window(step.build, x, data.shape[2 + time], dilation[time])
        # The taps become channels: one frame of the result needs each of them once.
        taps = tensor.movedim(x.axis, 2)  # type: ignore[arg-type]
        tensor = step.build.reshape(taps, (tensor.shape[0], -1, *taps.shape[3:]), clock)
        data = data.detach().flip(2 + time).movedim(2 + time, 1).flatten(0, 1).contiguous()
        for numbers in (stride, dilation, padding, extra):
            del numbers[time]
        if not stride:
            return _as_linear(step, x, tensor, data, bias, clock)
    shape = [tensor.shape[0], data.shape[1] * groups]
    for size, k, s, p, d, e in zip(tensor.shape[2:], data.shape[2:], stride, padding, dilation, extra):
        shape.append((size - 1) * s - 2 * p + d * (k - 1) + e + 1)
    options: dict[str, Any] = {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation)}
    options |= {"output_padding": tuple(extra), "groups": groups}
    kernel = step.build.constant(data, "kernel") if time is not None else step.tensor(weight)
    out = step.build.made("conv_transpose", (tensor, kernel, step.tensor(bias)), shape, clock, **options)
    return _timed(step, x, out if time is None else out.unsqueeze(2 + time), clock)


def _as_linear(step: Step, x: Value, rows: Tensor, data: Tensor, bias: Value | None, clock: Clock) -> Value:
    weight = step.build.constant(data.mT.contiguous(), "kernel")
    out = step.build.made("linear", (rows, weight, step.tensor(bias)), (len(rows), len(weight)), clock)
    return _timed(step, x, out.unsqueeze(2), clock)


def _only(nd: int, time: int, front: int) -> list[int]:
    sizes = [0, 0] * nd
    sizes[2 * (nd - 1 - time)] = front
    return sizes


def pool(step: Step) -> Value:
    """avg_pool and max_pool: over time of a window of the past."""
    x = step["self"]
    nd = int(step.name[-2])
    kind = "max_pool" if "max" in step.name else "avg_pool"
    kernel = _numbers(step["kernel_size"], nd)
    stride = _numbers(step["stride"], nd) if step["stride"] else list(kernel)
    padding, dilation = _numbers(step["padding"], nd), _numbers(step.get("dilation", 1), nd)
    if step.get("ceil_mode") or not step.get("count_include_pad", True) or step.get("divisor_override"):
        step.fail("rounds up, or divides by another number than its kernel's size.")
    time = None if x.axis is None else x.axis - (step.dim(x) - nd)
    if time is not None and time >= 0:
        front = _only(nd, time, padding[time])
        x = padded(step, x, front, float("-inf") if kind == "max_pool" else 0.0)
        tensor, clock = window(step.build, x, kernel[time], dilation[time], stride[time])
        moved = tensor.movedim(x.axis, -1)  # type: ignore[arg-type]
        over = "amax" if kind == "max_pool" else "mean"
        out = step.build.made(over, (moved,), moved.shape[:-1], clock, axes=1).unsqueeze(x.axis)  # type: ignore[arg-type]
        if all(k == 1 for n, k in enumerate(kernel) if n != time):
            return _timed(step, x, out, clock)
        x = x.but(out, clock=clock)
        kernel[time] = stride[time] = dilation[time] = 1
        padding[time] = 0
    tensor, clock = step.tensor(x), clock_of(x)
    options: dict[str, Any] = {"kernel": tuple(kernel), "stride": tuple(stride), "padding": tuple(padding)}
    if kind == "max_pool":
        options["dilation"] = tuple(dilation)
    shape = list(tensor.shape[: tensor.dim() - nd])
    for size, k, s, p, d in zip(tensor.shape[tensor.dim() - nd :], kernel, stride, padding, dilation):
        shape.append((size + 2 * p - d * (k - 1) - 1) // s + 1)
    out = step.build.made(kind, (tensor,), shape, clock, **options)
    return _timed(step, x, out, clock)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), conv),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d"), pool),
}  # fmt: skip
