"""Convolutions and pools: a packed product where one output place or few read numbers side by side, else taps."""

from __future__ import annotations

from itertools import product as places_of
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...pack import WIDTH
from ..program import Operation, View
from .axes import side_by_side, together
from .code import CannotCompile, Code, Operand
from .elementwise import apply
from .matrices import adding, packed, product, rows_of
from .moves import as_numbers, copy

OUTER = 4  # axes that the kernels of taps walk one by one


def conv(code: Code, operation: Operation) -> None:
    x, weight, bias = _given(code, operation)
    (to,) = map(code.operand, operation.outputs)
    o, axes = operation.options, len(x.shape) - 2
    stride, dilation, groups = _each(o.get("stride", 1), axes), _each(o.get("dilation", 1), axes), o.get("groups", 1)
    padding = o.get("padding", 0)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:])]
        margins = [(t // 2, t - t // 2) for t in total]
    else:
        margins = [(p, p) for p in _each(0 if padding == "valid" else padding, axes)]
    _valid(code, _padded(code, x, margins), weight, bias, to, stride, dilation, groups)


def conv_transpose(code: Code, operation: Operation) -> None:
    """A convolution of the input with zeros between its numbers and round them, with the kernel turned round."""
    x, weight, bias = _given(code, operation)
    (to,) = map(code.operand, operation.outputs)
    o, axes = operation.options, len(x.shape) - 2
    stride, padding = _each(o.get("stride", 1), axes), _each(o.get("padding", 0), axes)
    dilation, more = _each(o.get("dilation", 1), axes), _each(o.get("output_padding", 0), axes)
    groups = o.get("groups", 1)
    kernel = weight.shape[2:]
    before = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding)]
    margins = [(b, b + m) for b, m in zip(before, more)]
    turned = weight.flip(list(range(2, weight.dim()))).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    _valid(code, _padded(code, x, margins, stride), turned, bias, to, [1] * axes, dilation, groups)


def _given(code: Code, operation: Operation) -> tuple[Operand, Tensor, Tensor | None]:
    x, weight, bias = operation.inputs
    assert isinstance(x, View) and isinstance(weight, View)
    known, start = code.value(weight), code.value(bias) if isinstance(bias, View) else None
    if known is None or (start is None and bias is not None):
        raise CannotCompile("a convolution whose weights are computed at each step")
    return as_numbers(code, code.operand(x)), known, start


def _each(value: Any, axes: int) -> list[int]:
    numbers = [int(v) for v in value] if isinstance(value, (tuple, list)) else [int(value)]
    return numbers * axes if len(numbers) == 1 else numbers


def _padded(
    code: Code, x: Operand, margins: list[tuple[int, int]], apart: list[int] | None = None, fill: float = 0.0
) -> Operand:
    """x with numbers `fill` round it, and, of transposed convolutions, between its numbers. Negative margins cut."""
    apart = apart or [1] * len(margins)
    if all(m == (0, 0) for m in margins) and all(a == 1 for a in apart):
        return x
    sizes = [(n - 1) * a + 1 for n, a in zip(x.shape[2:], apart)]
    grown = [(max(a, 0), max(b, 0)) for a, b in margins]
    whole = code.temporary((*x.shape[:2], *(n + a + b for n, (a, b) in zip(sizes, grown))), fill=fill)
    at = whole.at
    for (before, _), step in zip(grown, whole.steps[2:]):
        at += before * step
    inner = (*whole.steps[:2], *(s * a for s, a in zip(whole.steps[2:], apart)))
    copy(code, x, Operand(at, x.shape, inner))
    at, shape = whole.at, list(whole.shape)
    for n, (before, after) in enumerate(margins):
        at += max(-before, 0) * whole.steps[2 + n]
        shape[2 + n] += min(before, 0) + min(after, 0)
    return Operand(at, tuple(shape), whole.steps)


def _valid(
    code: Code, x: Operand, weight: Tensor, bias: Tensor | None, to: Operand, stride: list[int], dilation: list[int],
    groups: int,
) -> None:  # fmt: skip
    """Without padding."""
    kernel, spatial = weight.shape[2:], to.shape[2:]
    inner = [s * d for s, d in zip(x.steps[2:], dilation)]
    moved = [s * d for s, d in zip(x.steps[2:], stride)]
    places = prod(spatial)
    # The input of each output: (batch, places, channels, kernel).
    window = Operand(
        x.at, (x.shape[0], *spatial, x.shape[1], *kernel), (x.steps[0], *moved, x.steps[1], *inner)
    )  # fmt: skip
    if groups == 1 and places < WIDTH:
        _by_products(code, window, weight, bias, to, len(spatial))
    elif groups == x.shape[1] == weight.shape[0] and (x.shape[1] == 1 or x.steps[1] == 4) and places < WIDTH:
        _depthwise(code, window, weight, bias, to)
    else:
        _by_taps(code, window, weight, bias, to, groups)


def _by_products(code: Code, window: Operand, weight: Tensor, bias: Tensor | None, to: Operand, axes: int) -> None:
    """Rows of what each place reads, times the weights."""
    batch, spatial = window.shape[0], window.shape[1 : 1 + axes]
    rows = (batch, *spatial)
    to_rows = Operand(to.at, (*rows, to.shape[1]), (to.steps[0], *to.steps[2:], to.steps[1]), to.dtype, to.ends)
    row, steps = window.shape[1 + axes :], window.steps[1 + axes :]
    # The order of channels and taps in memory is the one that the weights are put in.
    order = sorted(range(len(row)), key=lambda n: -steps[n] if row[n] > 1 else 0)
    walked = together([row[n] for n in order], [[steps[n] for n in order]], keep_order=True)
    columns = prod(row)
    turned = weight.permute(0, *(1 + n for n in order))
    if columns == 1 or (len(walked) == 1 and walked[0][1] == (4,)):
        x = Operand(window.at, (*rows, columns), (*window.steps[: 1 + axes], 4))
        rows_of(code, x, turned.flatten(1), bias, to_rows)
        return
    taps = row[1:]
    frame = (row[0], (steps[0],))
    if frame[1] == (4,) and row[0] >= WIDTH // 2 and _in_parts(code, window, weight, bias, to_rows, axes, taps):
        return
    gathered = code.temporary((*rows, columns))
    shown = gathered.shown_as(window.shape, side_by_side(window.shape))
    copy(code, window, shown)
    rows_of(code, gathered, weight.flatten(1), bias, to_rows)


def _in_parts(
    code: Code, window: Operand, weight: Tensor, bias: Tensor | None, to: Operand, axes: int, taps: tuple[int, ...]
) -> bool:
    """One product for each tap, of the channels side by side, each adding to those before; False where it can't be."""
    if to.steps[-1] != 4 or to.dtype != "float":
        return False
    rows = together(to.shape[:-1], [window.steps[: 1 + axes], to.steps[:-1]])
    count, (step, to_step) = rows[0] if rows else (1, (0, 0))
    if len(rows) > 1 or adding(code, weight[:, :, *[0] * len(taps)], count) is None:
        return False
    for number, tap in enumerate(places_of(*map(range, taps))):
        own = weight[(slice(None), slice(None), *tap)]
        matrix = packed(code, own, bias, count, to.ends) if number == 0 else adding(code, own, count)
        assert matrix is not None
        at = window.at + sum(n * s for n, s in zip(tap, window.steps[2 + axes :]))
        product(code, matrix, at, step, count, to.at, to_step)
    return True


def _taps(window_taps: tuple[int, ...], steps: tuple[int, ...]) -> Tensor:
    """Bytes from the first number that an output reads to each of them."""
    offsets = [sum(n * s for n, s in zip(tap, steps)) for tap in places_of(*map(range, window_taps))]
    return torch.tensor(offsets, dtype=torch.int64, device="cpu")


def _outer(axes: list[tuple[int, tuple[int, ...]]]) -> list[int]:
    """Places, and sizes and bytes of the axes, as the kernels have them."""
    full = [(1, (0, 0))] * (OUTER - len(axes)) + axes
    places = prod(size for size, _ in axes)
    return [places, *(size for size, _ in full), *(s[0] for _, s in full), *(s[1] for _, s in full)]


def _depthwise(code: Code, window: Operand, weight: Tensor, bias: Tensor | None, to: Operand) -> None:
    axes = len(to.shape) - 2
    channels = to.shape[1]
    made = to if (channels == 1 or to.steps[1] == 4) and to.dtype == "float" else _channels_last(code, to)
    walked = together(
        (to.shape[0], *to.shape[2:]), [window.steps[: 1 + axes], (made.steps[0], *made.steps[2:])]
    )  # fmt: skip
    taps = window.shape[2 + axes :]
    rows = torch.zeros(prod(taps), -(-channels // WIDTH) * WIDTH, dtype=torch.float64, device="cpu")
    rows[:, :channels] = weight.flatten(1).T
    start = torch.zeros(channels, dtype=torch.float64, device="cpu") if bias is None else bias
    code.call(
        "kernels.taps.depthwise", window.at, made.at, channels, _taps(taps, window.steps[2 + axes :]), prod(taps),
        code.constant(rows).at, code.constant(start).at, *_outer(walked),
    )  # fmt: skip
    if made is not to:
        copy(code, made, to)


def _channels_last(code: Code, to: Operand) -> Operand:
    made = code.temporary((to.shape[0], *to.shape[2:], to.shape[1]))
    return made.shown_as(to.shape, (made.steps[0], made.steps[-1], *made.steps[1:-1]))


def _by_taps(code: Code, window: Operand, weight: Tensor, bias: Tensor | None, to: Operand, groups: int) -> None:
    axes = len(to.shape) - 2
    spatial = to.shape[2:]
    made = to if (spatial[-1] == 1 or to.steps[-1] == 4) and to.dtype == "float" else code.temporary(to.shape)
    walked = together((to.shape[0], *spatial[:-1]), [window.steps[:axes], (made.steps[0], *made.steps[2:-1])])
    own = weight.shape[1]
    row, steps = (own, *window.shape[2 + axes :]), window.steps[1 + axes :]
    start = torch.zeros(weight.shape[0], dtype=torch.float64, device="cpu") if bias is None else bias
    code.call(
        "kernels.taps.conv", window.at, made.at, spatial[-1], window.steps[axes], _taps(row, steps), prod(row),
        code.constant(weight.flatten(1)).at, weight.shape[0] // groups, made.steps[1], code.constant(start).at,
        groups, own * steps[0], *_outer(walked),
    )  # fmt: skip
    if made is not to:
        copy(code, made, to)


def pool(code: Code, operation: Operation) -> None:
    """avg_pool, max_pool."""
    view = operation.inputs[0]
    assert isinstance(view, View)
    x, (to,) = as_numbers(code, code.operand(view)), map(code.operand, operation.outputs)
    o, axes, average = operation.options, len(x.shape) - 2, operation.kind == "avg_pool"
    kernel = _each(o["kernel"], axes)
    stride = _each(o.get("stride") or kernel, axes)
    padding, dilation = _each(o.get("padding", 0), axes), _each(o.get("dilation", 1), axes)
    reach = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(to.shape[2:], stride, kernel, dilation)]
    margins = [(p, max(r - n - p, 0)) for p, r, n in zip(padding, reach, x.shape[2:])]
    full = _padded(code, x, margins, fill=0.0 if average else -torch.inf)
    made = to if (to.shape[-1] == 1 or to.steps[-1] == 4) and to.dtype == "float" else code.temporary(to.shape)
    moved = [s * d for s, d in zip(full.steps[2:], stride)]
    inner = tuple(s * d for s, d in zip(full.steps[2:], dilation))
    outer = (*full.shape[:2], *to.shape[2:-1])
    walked = together(outer, [(*full.steps[:2], *moved[:-1]), made.steps[:-1]])
    taps, factor = _taps(tuple(kernel), inner), 1.0
    divisors = _divisors(o, x.shape[2:], to.shape[2:], kernel, stride, padding) if average else None
    if divisors is not None and len(set(divisors.flatten().tolist())) == 1:
        factor, divisors = 1.0 / float(divisors.flatten()[0]), None
    code.call(
        f"kernels.taps.{'add' if average else 'max'}_pool", full.at, made.at, to.shape[-1], moved[-1], taps,
        len(taps), factor, *_outer(walked),
    )  # fmt: skip
    if divisors is not None:
        apply(code, "div", [made, code.constant(divisors.expand(to.shape).contiguous())], made)
    if made is not to:
        copy(code, made, to)


def _divisors(options: Any, size: Any, places: Any, kernel: Any, stride: Any, padding: Any) -> Tensor:
    """What the sum of each place is divided by, as torch counts it."""
    if options.get("divisor_override"):
        return torch.full(tuple(places), float(options["divisor_override"]), dtype=torch.float64, device="cpu")
    found = torch.ones((), dtype=torch.float64, device="cpu")
    for n, count, k, s, p in zip(size, places, kernel, stride, padding):
        begin = torch.arange(count, dtype=torch.float64, device="cpu") * s - p
        if options.get("count_include_pad", True):
            own = (begin + k).clamp(max=n + p) - begin
        else:
            own = (begin + k).clamp(max=n) - begin.clamp(min=0)
        found = found[..., None] * own
    return found
