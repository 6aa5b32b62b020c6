"""Sums, means and extremes: along features at once, along time as the value so far."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import Any

import torch
from torch import Tensor

from ..eliminate import Rule, Step
from ..program import BOOL, INT, Clock
from ..values import NOW, SEQUENCE, Value
from .moves import clock_of
from .pointwise import pointwise
from .slices import settled

START = {"sum": 0.0, "mean": 0.0, "amax": -inf, "amin": inf}
JOIN = {"sum": "add", "mean": "add", "amax": "maximum", "amin": "minimum"}


def reduced(step: Step, kind: str, x: Value, dims: Sequence[int] | int | None, keep: bool) -> Value:
    """`kind` over the axes `dims`, None for all."""
    tensor = step.tensor(x)
    dims = [dims] if isinstance(dims, int) else list(dims) if dims else list(range(tensor.dim()))
    dims = sorted({d % tensor.dim() for d in dims})
    over_time = x.axis in dims and x.axis is not None
    if over_time and not x.moves:
        step.fail("reduces a tensor as long as the sequence that is the same at each step.")
    if over_time:
        x = settled(step, x)
        tensor = step.tensor(x)
    features = [d for d in dims if d != x.axis]
    clock = clock_of(x)
    kept = [d for d in range(tensor.dim()) if d not in features]
    if features:
        moved = tensor.permute([*kept, *features])
        tensor = step.build.made(kind, (moved,), moved.shape[: len(kept)], clock, tensor, axes=len(features))
    else:
        tensor = tensor.permute(kept)
    if over_time:
        tensor = _so_far(step, kind, tensor.select(kept.index(x.axis), 0), clock)  # type: ignore[arg-type]
    if keep:
        for d in dims:
            tensor = tensor.unsqueeze(d)
    if over_time:
        return Value(NOW, tensor, None, clock)
    axis = None if x.axis is None else x.axis - (0 if keep else sum(d < x.axis for d in dims))
    return x.but(tensor, axis=axis, data=None)


def _so_far(step: Step, kind: str, tensor: Tensor, clock: Clock) -> Tensor:
    """What `kind` is over the elements that came until now."""
    build = step.build
    if kind not in START:
        step.fail("needs all steps of the sequence at once.")
    start = tensor.new_full(tuple(tensor.shape), START[kind], device="cpu")
    total = build.state("so_far", tensor.shape, tensor, start)
    build.emit(JOIN[kind], (total, tensor), (total,), clock)
    if kind != "mean":
        return total
    count = build.state("count", (), tensor, start.new_zeros(()))
    build.emit("add", (count, 1.0), (count,), clock)
    return build.made("div", (total, count.expand(total.shape)), total.shape, clock)


def reduction(kind: str) -> Rule:
    def rule(step: Step) -> Any:
        x, dim, keep = step["self"], step.get("dim"), bool(step.get("keepdim", False))
        if step.call.target._overloadname == "other":
            return pointwise(step, {"amax": "maximum", "amin": "minimum"}[kind], [x, step["other"]])
        if step.call.target._overloadname == "dim" and kind in JOIN and kind[0] == "a":
            over_time = x.axis is not None and x.axis == dim % step.dim(x)
            where = step.gone("gives the place of a step, which a stream has passed.") if over_time else None
            return [reduced(step, kind, x, dim, keep), where or place(step, kind, x, dim, keep)]
        return reduced(step, kind, x, dim, keep)

    return rule


def place(step: Step, kind: str, x: Value, dim: int | None, keep: bool) -> Value:
    """Where the first of the largest or smallest features stands: the least of the numbers of those that equal it."""
    build, tensor = step.build, step.tensor(x)
    step.kept_apart(x, range(tensor.dim()) if dim is None else [dim], "looks for the place of a value among")
    clock = clock_of(x)
    if dim is None:
        tensor, dim, keep = build.reshape(tensor, (-1,), clock), 0, False
    tensor = tensor.movedim(dim, -1)
    shape, count = tensor.shape, tensor.shape[-1]
    most = build.made(kind, (tensor,), shape[:-1], clock, tensor, axes=1).unsqueeze(-1).expand(shape)
    equal = build.made("eq", (tensor, most), shape, clock, BOOL)
    numbers = build.constant(torch.arange(count, dtype=torch.float64, device="cpu"), "places").expand(shape)
    # NaN equals nothing: the last place stands for it.
    found = build.made("where", (equal, numbers, float(count - 1)), shape, clock)
    first = build.made("amin", (found,), shape[:-1], clock, axes=1)
    whole = build.made("copy", (first,), first.shape, clock, INT)
    if x.axis is None:
        return x.but(whole.unsqueeze(dim) if keep else whole, data=None)
    axis = x.axis - (0 if keep else x.axis > dim % len(shape))
    return x.but(whole.unsqueeze(dim) if keep else whole, axis=axis, data=None)


def _argument(kind: str) -> Rule:
    return lambda step: place(step, kind, step["self"], step.get("dim"), bool(step.get("keepdim", False)))


def _deviation(step: Step) -> Value:
    """Variance and standard deviation over features."""
    x, build = step["self"], step.build
    tensor = step.tensor(x)
    dims = step.get("dim")
    dims = [dims] if isinstance(dims, int) else list(dims) if dims else list(range(tensor.dim()))
    step.kept_apart(x, dims, "takes the deviation of")
    correction = step.get("correction", 1 if step.get("unbiased", True) else 0)
    clock = clock_of(x)
    mean = reduced(step, "mean", x, dims, True)
    apart = build.made("sub", (tensor, step.tensor(mean).expand(tensor.shape)), tensor.shape, clock)
    square = build.made("mul", (apart, apart), apart.shape, clock)
    total = reduced(step, "sum", x.but(square), dims, bool(step.get("keepdim", False)))
    count = prod(tensor.shape[d] for d in dims) - (1 if correction is None else correction)
    out = build.made("div", (step.tensor(total), float(count)), step.tensor(total).shape, clock)
    if step.name == "std":
        out = build.made("sqrt", (out,), out.shape, clock)
    return total.but(out)


def _norm(step: Step) -> Value:
    """Of order 1, 2 or infinity over features."""
    x, order = step["self"], step.get("ord", step.get("p", 2))
    order = 2 if order is None else order
    tensor, clock, build = step.tensor(x), clock_of(x), step.build
    kinds: dict[float, tuple[str, str]] = {1: ("abs", "sum"), 2: ("mul", "sum"), inf: ("abs", "amax")}
    if order not in kinds:
        step.fail(f"is a norm of order {order}.")
    before, over = kinds[order]
    inputs = (tensor, tensor) if before == "mul" else (tensor,)
    total = reduced(step, over, x.but(build.made(before, inputs, tensor.shape, clock)), step.get("dim"),
                    bool(step.get("keepdim", False)))  # fmt: skip
    if order != 2:
        return total
    out = step.tensor(total)
    return total.but(build.made("sqrt", (out,), out.shape, clock))


def _running(kind: str, start: float) -> Rule:
    """Along time: what `kind` makes of all elements until now."""

    def rule(step: Step) -> Any:
        x, dim = step["self"], step["dim"]
        tensor = step.tensor(x)
        if x.kind != SEQUENCE or x.axis != dim % tensor.dim():
            step.fail("goes along features, one after the other.")
        frame, result = tensor.select(dim, 0), step.call.result
        if tensor.dtype == torch.bool:  # counted
            frame = tensor = step.build.made("copy", (frame,), frame.shape, x.clock, result)
        begin = torch.full(frame.shape, start, dtype=torch.float64, device="cpu") if start else None
        total = step.build.state("so_far", frame.shape, tensor, begin)
        step.build.emit(kind, (total, frame), (total,), x.clock)
        so_far = x.but(total.unsqueeze(dim))
        if not step.name.startswith("cumm"):
            return so_far
        return [so_far, step.gone("gives the place of a step, which a stream has passed.")]

    return rule


def _mean_too(step: Step) -> Any:
    """var_mean and std_mean."""
    pair = step.name
    step.name = pair.removesuffix("_mean")
    apart = _deviation(step)
    return [apart, reduced(step, "mean", step["self"], step.get("dim"), bool(step.get("keepdim", False)))]


def _truth(kind: str) -> Rule:
    """any and all over features."""

    def rule(step: Step) -> Value:
        x = step["self"]
        tensor, clock = step.tensor(x), clock_of(x)
        dims = step.get("dim")
        step.kept_apart(x, range(tensor.dim()) if dims is None else [dims] if isinstance(dims, int) else dims, "joins")
        build = step.build
        truth = build.made("ne", (tensor, 0.0), tensor.shape, clock, BOOL)
        number = build.made("copy", (truth,), truth.shape, clock)
        found = reduced(step, kind, x.but(number, data=None), dims, bool(step.get("keepdim", False)))
        out = step.tensor(found)
        return found.but(build.made("gt", (out, 0.5), out.shape, clock, BOOL))

    return rule


def pooled(step: Step) -> Any:
    """adaptive_avg_pool and adaptive_max_pool to one element: a mean, or the largest."""
    x, size = step["self"], step["output_size"]
    sizes = [size] if isinstance(size, int) else list(size)
    if any(s != 1 for s in sizes):
        step.fail("pools to a number of elements that depends on the size: pool to 1, or by a fixed kernel.")
    axes = list(range(-len(sizes), 0))
    if "max" not in step.name:
        return reduced(step, "mean", x, axes, True)
    return [reduced(step, "amax", x, axes, True), step.gone("gives the place of a step, which a stream has passed.")]


RULES: dict[str, Rule] = {
    **{name: reduction(name) for name in ("sum", "mean", "amax", "amin", "prod")},
    "max": reduction("amax"), "min": reduction("amin"), "argmax": _argument("amax"), "argmin": _argument("amin"),
    "var": _deviation, "std": _deviation, "linalg_vector_norm": _norm, "norm": _norm,
    "cumsum": _running("add", 0.0), "cumprod": _running("mul", 1.0),
    "cummax": _running("maximum", -inf), "cummin": _running("minimum", inf), "var_mean": _mean_too,
    "std_mean": _mean_too, "any": _truth("amax"), "all": _truth("amin"),
    **{f"adaptive_{kind}_pool{axes}d": pooled for kind in ("avg", "max") for axes in (1, 2)},
}  # fmt: skip
