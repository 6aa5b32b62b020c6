"""Padding: in front of a sequence it moves the clock, along features it makes a new tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from ..eliminate import Rule, Step
from ..program import Clock
from ..values import Value
from ..windows import ends_early
from .moves import clock_of
from .slices import LAST, begun


def pad(step: Step) -> Value:
    """Padding in front of a sequence; that at its end asks nothing of a step. Along features into a new tensor."""
    x, sizes, mode = step["self"], list(step["pad"]), step.get("mode", "constant")
    if sizes != list(step.other.args["pad"]):
        step.fail("pads by a number of steps that depends on the length of the sequence.")
    if mode == "constant":
        return padded(step, x, sizes, float(step.get("value") or 0.0))
    for n in range(len(sizes) // 2):
        x = _padded_by_itself(step, x, step.dim(x) - 1 - n, sizes[2 * n], sizes[2 * n + 1], mode)
    return x


def _padded_by_itself(step: Step, x: Value, dim: int, front: int, behind: int, mode: str) -> Value:
    """With the tensor's own elements, as `mode` says: torch pads their numbers, and parts of them are picked."""
    if not front and not behind:
        return x
    if dim == x.axis:
        step.fail(f"pads by {mode}: pad with a number, or keep the frames yourself.")
    tensor = step.tensor(x)
    size, shape = tensor.shape[dim], list(tensor.shape)
    places = torch.arange(size, dtype=torch.float64, device="cpu")[None, None]
    numbers = functional.pad(places, (front, behind), mode).flatten().long().tolist()
    shape[dim] = len(numbers)
    out = step.build.work("pad", shape, tensor)
    begin, end = max(front, 0), len(numbers) - max(behind, 0)
    for a, b in ((0, begin), (begin, end), (end, len(numbers))):
        if a < b:
            to = out.narrow(dim, a, b - a).movedim(dim, 0)
            step.build.emit("pick", (tensor.movedim(dim, 0),), (to,), clock_of(x), {"index": tuple(numbers[a:b])})
    return x.but(out, data=None)


def padded(step: Step, x: Value, sizes: Sequence[int], value: float) -> Value:
    """sizes: in front and behind, of the last axis, of the one before it, ..."""
    for n in range(len(sizes) // 2):
        dim, front, behind = step.dim(x) - 1 - n, sizes[2 * n], sizes[2 * n + 1]
        if dim != x.axis:
            x = _padded_features(step, x, dim, front, behind, value)
        elif x.moves:
            if front > 0:
                x = begun(step, x, front, value)
            elif front < 0:
                x = x.but(step.tensor(x), clock=Clock(x.clock.every, x.clock.first - front * x.clock.every),
                          lengths=(x.lengths[0] + front, x.lengths[1] + front))  # fmt: skip
            if behind > 0 and ends_early(x, step.steps):
                step.fail(LAST)
            x = x.but(step.tensor(x), lengths=(x.lengths[0] + behind, x.lengths[1] + behind))
        elif front > 0 or behind > 0:
            step.fail("pads a tensor that is the same at each step.")
    return x


def _padded_features(step: Step, x: Value, dim: int, front: int, behind: int, value: float) -> Value:
    tensor, clock = step.tensor(x), clock_of(x)
    if front < 0 or behind < 0:
        tensor = tensor.narrow(dim, max(-front, 0), tensor.shape[dim] + min(front, 0) + min(behind, 0))
        front, behind = max(front, 0), max(behind, 0)
    if front or behind:
        shape = list(tensor.shape)
        shape[dim] += front + behind
        out = step.build.work("pad", shape, tensor)
        if value:  # buffers begin as zeros
            step.build.emit("copy", (value,), (out,), clock)
        step.build.emit("copy", (tensor,), (out.narrow(dim, front, tensor.shape[dim]),), clock)
        tensor = out
    return x.but(tensor, data=None)


RULES: dict[str, Rule] = {"pad": pad, "constant_pad_nd": pad}
