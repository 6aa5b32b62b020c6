"""Operators that make tensors of sizes and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .hosted import objects
from .table import operator, room, whole


@operator("Shape")
def shape(step: Any, x: Tensor) -> np.ndarray:
    return objects(list(x.shape)[step.get("start", 0) : step.get("end", None)])


@operator("Size")
def size(step: Any, x: Tensor) -> np.ndarray:
    return np.prod(objects(list(x.shape)), keepdims=True).reshape(())


@operator("ConstantOfShape", sizes=(0,), like=True)
def filled(step: Any, like: Tensor, sizes: Any) -> Any:
    value = step.get("value", np.zeros(1, dtype=np.float32)).reshape(-1)[0]
    if isinstance(value, (np.integer, np.bool_)):
        return np.full(room(whole(sizes)), value)
    return torch.full(room(whole(sizes)), float(value), dtype=like.dtype, device=like.device)


@operator("Range", numbers=True, like=True)
def numbers_from(step: Any, like: Tensor, start: Any, end: Any, by: Any) -> Tensor:
    first, last, stride = (v.item() if isinstance(v, Tensor) else v for v in (start, end, by))
    room([max(int((last - first) / stride), 0)])
    return torch.arange(first, last, stride, device=like.device)


@operator("OneHot", sizes=(1,))
def one_hot(step: Any, places: Tensor, depth: Any, values: Tensor) -> Tensor:
    count = whole(depth)[0]
    room([places.numel(), count])
    axis = step.get("axis", -1) % (places.dim() + 1)
    inside = torch.where(places < 0, places + count, places).unsqueeze(axis)
    line = torch.arange(count, device=places.device).reshape([-1] + [1] * (places.dim() - axis))
    return torch.where(inside == line, values[1], values[0])
