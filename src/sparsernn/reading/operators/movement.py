"""Operators that move numbers: cut, join, turn, repeat and look up."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .table import axes_of, operator, room, whole


@operator("Concat")
def concat(step: Any, *values: Tensor) -> Tensor:
    return torch.cat(values, step.get("axis"))


@operator("Split", sizes=(1,))
def split(step: Any, x: Tensor, sizes: Any = None) -> tuple[Tensor, ...]:
    axis, count = step.get("axis", 0), len(step.outputs)
    given = step.get("split") if sizes is None else sizes
    if given is not None:
        return x.split(whole(given), axis)
    part = -(-x.shape[axis] // count)
    last = x.shape[axis] - part * (count - 1)
    return x.split([part] * (count - 1) + [last], axis)


@operator("Slice", sizes=(1, 2, 3, 4))
def cut(step: Any, x: Tensor, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Tensor:
    first, last = (whole(step.get(n) if v is None else v) for n, v in (("starts", starts), ("ends", ends)))
    chosen = axes_of(step, axes) or list(range(len(first)))
    strides = [1] * len(first) if steps is None else whole(steps)
    for axis, begin, end, stride in zip(chosen, first, last, strides, strict=True):
        size = x.shape[axis]
        places = range(size)[slice(begin, end if stride > 0 or end >= -size else None, stride)]
        if stride > 0:
            where = [slice(None)] * (axis % x.dim()) + [slice(places.start, max(places.stop, places.start), stride)]
            x = x if len(places) == size else x[tuple(where)]
        elif len(places) == size and stride == -1:
            x = x.flip(axis)
        else:
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=x.device))
    return x


@operator("Reshape", sizes=(1,))
def reshape(step: Any, x: Tensor, shape: Any) -> Tensor:
    sizes = whole(shape)
    if not step.get("allowzero", 0):
        sizes = [x.shape[n] if size == 0 else size for n, size in enumerate(sizes)]
    return x.reshape(sizes)


@operator("Flatten")
def flatten(step: Any, x: Tensor) -> Tensor:
    axis = step.get("axis", 1)
    rows = int(np.prod(x.shape[: axis % x.dim() if axis < 0 else axis]))
    return x.reshape(rows, -1) if rows else x.reshape(0, int(np.prod(x.shape[axis:])))


@operator("Transpose")
def transpose(step: Any, x: Tensor) -> Tensor:
    return x.permute(tuple(step.get("perm", range(x.dim() - 1, -1, -1))))


@operator("Squeeze", sizes=(1,))
def squeeze(step: Any, x: Tensor, axes: Any = None) -> Tensor:
    chosen = axes_of(step, axes)
    if chosen is None:
        return x.squeeze()
    for axis in sorted((axis % x.dim() for axis in chosen), reverse=True):
        if x.shape[axis] != 1:
            raise ValueError(f"it takes away axis {axis} of a tensor of shape {tuple(x.shape)}.")
        x = x.squeeze(axis)
    return x


@operator("Unsqueeze", sizes=(1,))
def unsqueeze(step: Any, x: Tensor, axes: Any = None) -> Tensor:
    chosen = axes_of(step, axes) or []
    for axis in sorted(axis % (x.dim() + len(chosen)) for axis in chosen):
        x = x.unsqueeze(axis)
    return x


@operator("Expand", sizes=(1,))
def expand(step: Any, x: Tensor, shape: Any) -> Tensor:
    return x.expand(room(list(torch.broadcast_shapes(x.shape, whole(shape)))))


@operator("Tile", sizes=(1,))
def tile(step: Any, x: Tensor, repeats: Any) -> Tensor:
    room([size * count for size, count in zip(x.shape, whole(repeats), strict=True)])
    return x.repeat(whole(repeats))


@operator("Gather", sizes=(1,))
def gather(step: Any, x: Tensor, places: Any) -> Tensor:
    axis = step.get("axis", 0) % x.dim()
    if isinstance(places, np.ndarray):
        if places.ndim == 0:
            return x.select(axis, int(places))
        places = torch.from_numpy(np.where(places < 0, places + x.shape[axis], places)).to(x.device)
    else:
        places = torch.where(places < 0, places + x.shape[axis], places)
    found = x.index_select(axis, places.reshape(-1))
    return found.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


@operator("GatherElements")
def gather_elements(step: Any, x: Tensor, places: Tensor) -> Tensor:
    axis = step.get("axis", 0)
    return x.gather(axis, torch.where(places < 0, places + x.shape[axis], places))


@operator("GatherND")
def gather_nd(step: Any, x: Tensor, places: Tensor) -> Tensor:
    if step.get("batch_dims", 0):
        raise ValueError("it looks up in each row of a batch by itself (batch_dims), which is not read.")
    return x[tuple(places.unbind(-1))]


@operator("ScatterND")
def scatter_nd(step: Any, x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    if step.get("reduction", "none") not in ("none", "add"):
        raise ValueError(f"it combines by {step.get('reduction')}, which is not read.")
    return x.index_put(tuple(places.unbind(-1)), values, accumulate=step.get("reduction", "none") == "add")


@operator("ScatterElements")
def scatter_elements(step: Any, x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    axis, way = step.get("axis", 0), step.get("reduction", "none")
    places = torch.where(places < 0, places + x.shape[axis], places)
    if way not in ("none", "add"):
        raise ValueError(f"it combines by {way}, which is not read.")
    return x.scatter(axis, places, values) if way == "none" else x.scatter_add(axis, places, values)


@operator("Trilu", sizes=(1,))
def triangle(step: Any, x: Tensor, above: Any = None) -> Tensor:
    diagonal = 0 if above is None else whole(above)[0]
    return x.triu(diagonal) if step.get("upper", 1) else x.tril(diagonal)
