"""Operators that go along axes: sums, means, the largest and its place, softmax, norms, pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .padding import around
from .table import TABLE, Operator, axes_of, operator, whole

Reduce = Callable[[Tensor, list[int], bool], Tensor]


def product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


_REDUCE: dict[str, Reduce] = {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": product,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
}


def _reducing(reduce: Reduce) -> Operator:
    def run(step: Any, x: Tensor, axes: Any = None) -> Tensor:
        chosen = axes_of(step, axes)
        if not chosen:
            if step.get("noop_with_empty_axes", 0):
                return x
            chosen = list(range(x.dim()))
        return reduce(x, chosen, bool(step.get("keepdims", 1)))

    return Operator(run, sizes=(1,))


TABLE.update({name: _reducing(reduce) for name, reduce in _REDUCE.items()})


@operator("ArgMax", "ArgMin")
def place(step: Any, x: Tensor) -> Tensor:
    axis, keep = step.get("axis", 0), bool(step.get("keepdims", 1))
    find = torch.argmax if step.op == "ArgMax" else torch.argmin
    if not step.get("select_last_index", 0):
        return find(x, axis, keepdim=keep)
    return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=keep)


@operator("TopK", sizes=(1,))
def largest_few(step: Any, x: Tensor, count: Any) -> tuple[Tensor, ...]:
    few = x.topk(whole(count)[0], step.get("axis", -1), bool(step.get("largest", 1)), bool(step.get("sorted", 1)))
    return few.values, few.indices


@operator("CumSum", sizes=(1,))
def running_sum(step: Any, x: Tensor, axis: Any) -> Tensor:
    along = whole(axis)[0]
    x = x.flip(along) if step.get("reverse", 0) else x
    total = x.cumsum(along)
    total = total - x if step.get("exclusive", 0) else total
    return total.flip(along) if step.get("reverse", 0) else total


@operator("Softmax", "LogSoftmax")
def softmax(step: Any, x: Tensor) -> Tensor:
    run = torch.softmax if step.op == "Softmax" else torch.log_softmax
    axis = step.get("axis", -1 if step.version >= 13 else 1)
    if step.version >= 13 or axis % x.dim() == x.dim() - 1:
        return run(x, axis)
    return run(x.flatten(axis % x.dim()), -1).reshape(x.shape)  # over all axes from this one on


@operator("InstanceNormalization", numbers=True)
def instance_norm(step: Any, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, use_input_stats=True, eps=step.get("epsilon", 1e-5))


@operator("GroupNormalization")
def group_norm(step: Any, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = step.get("num_groups")
    if step.version < 21:  # scale and bias of each group
        scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
    return F.group_norm(x, groups, scale, bias, step.get("epsilon", 1e-5))


@operator("LayerNormalization")
def layer_norm(step: Any, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Over the last axes; scale and bias of other shapes than these are spread over them."""
    axes = list(range(step.get("axis", -1) % x.dim(), x.dim()))
    y = F.layer_norm(x, [x.shape[axis] for axis in axes], eps=step.get("epsilon", 1e-5)) * scale
    return y if bias is None else y + bias


@operator("RMSNormalization")
def rms_norm(step: Any, x: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(step.get("axis", -1) % x.dim(), x.dim()))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + step.get("epsilon", 1e-5)) * scale


@operator("LpNormalization")
def lp_norm(step: Any, x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x, step.get("p", 2), step.get("axis", -1), keepdim=True)


@operator("GlobalAveragePool", "GlobalMaxPool")
def pool_all(step: Any, x: Tensor) -> Tensor:
    axes = list(range(2, x.dim()))
    return x.mean(axes, keepdim=True) if step.op == "GlobalAveragePool" else x.amax(axes, keepdim=True)


@operator("MaxPool")
def max_pool(step: Any, x: Tensor) -> Tensor:
    _refuse_rounding_up(step)
    kernel, stride, dilation = _window(step, x)
    x = around(x, step, kernel, stride, dilation, float("-inf"))
    return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1](x, kernel, stride, 0, dilation)


@operator("AveragePool")
def average_pool(step: Any, x: Tensor) -> Tensor:
    _refuse_rounding_up(step)
    kernel, stride, dilation = _window(step, x)
    if any(size != 1 for size in dilation):
        raise ValueError("it has dilations, which torch's average pooling lacks.")
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    padded = around(x, step, kernel, stride, dilation, 0.0)
    y = pool(padded, kernel, stride)
    if padded is x or step.get("count_include_pad", 0):
        return y
    inside = around(torch.ones_like(x[:1, :1]), step, kernel, stride, dilation, 0.0)
    return y / pool(inside, kernel, stride)


def _window(step: Any, x: Tensor) -> tuple[list[int], list[int], list[int]]:
    kernel = whole(step.get("kernel_shape"))
    if len(kernel) != x.dim() - 2 or len(kernel) > 3:
        raise ValueError(f"its window has {len(kernel)} axes, its input {x.dim()}.")
    ones = [1] * len(kernel)
    return kernel, whole(step.get("strides", ones)), whole(step.get("dilations", ones))


def _refuse_rounding_up(step: Any) -> None:
    if step.get("ceil_mode", 0):
        raise ValueError("its last window may stand over the end (ceil_mode), which is not read.")
