"""Arithmetic on sizes: what a file computes with shapes stays plain numbers, so that no layer and no trace sees it.

Values are arrays, of dtype object where they come from a shape: their elements may be sizes that are being traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from .table import MAX_NUMBERS, axes_of, whole

HOSTED: dict[str, Callable[..., Any]] = {}


def objects(values: list[Any]) -> np.ndarray:
    """A vector of these, whatever they are."""
    made = np.empty(len(values), dtype=object)
    for n, value in enumerate(values):
        made[n] = value
    return made


def hosted(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def put(run: Callable[..., Any]) -> Callable[..., Any]:
        HOSTED.update(dict.fromkeys(names, run))
        return run

    return put


_PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b, "Pow": lambda a, b: a**b,
    "Equal": lambda a, b: a == b, "Less": lambda a, b: a < b, "LessOrEqual": lambda a, b: a <= b,
    "Greater": lambda a, b: a > b, "GreaterOrEqual": lambda a, b: a >= b, "And": np.logical_and,
    "Or": np.logical_or, "Xor": np.logical_xor, "Max": np.maximum, "Min": np.minimum,
}  # fmt: skip
_ALONE: dict[str, Callable[[Any], Any]] = {
    "Neg": lambda a: -a, "Abs": abs, "Not": np.logical_not, "Identity": lambda a: a,
    "Shape": lambda a: np.array(a.shape, dtype=np.int64), "Size": lambda a: np.array(a.size, dtype=np.int64),
    "Floor": lambda a: np.floor(a.astype(float)), "Ceil": lambda a: np.ceil(a.astype(float)),
    "Sqrt": lambda a: np.sqrt(a.astype(float)),
}  # fmt: skip
_REDUCE: dict[str, Callable[..., Any]] = {
    "ReduceProd": np.prod, "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min,
}  # fmt: skip

HOSTED.update({name: lambda step, a, b, run=run: run(a, b) for name, run in _PAIRS.items()})
HOSTED.update({name: lambda step, a, run=run: run(a) for name, run in _ALONE.items()})


@hosted(*_REDUCE)
def reduce(step: Any, a: np.ndarray, axes: Any = None) -> Any:
    chosen = axes_of(step, axes)
    return _REDUCE[step.op](a, axis=None if not chosen else tuple(chosen), keepdims=bool(step.get("keepdims", 1)))


@hosted("Div")
def divide(step: Any, a: np.ndarray, b: np.ndarray) -> Any:
    numbers = [number for part in (a, b) for number in part.reshape(-1).tolist()]
    if any(isinstance(number, float) for number in numbers):
        return a / b
    if not all(isinstance(number, int) for number in numbers):
        return a // b  # sizes that are only known at a call are never negative
    return np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))  # towards zero, as ONNX divides


@hosted("Mod")
def modulo(step: Any, a: np.ndarray, b: np.ndarray) -> Any:
    return np.vectorize(math.fmod, otypes=[float])(a, b) if step.get("fmod", 0) else a % b


@hosted("Cast")
def cast(step: Any, a: np.ndarray) -> Any:
    kind = step.get("to")
    if kind == 9:
        return a.astype(bool)
    if kind in (1, 10, 11):
        return objects([n if isinstance(n, Tensor) else float(n) for n in a.reshape(-1)]).reshape(a.shape)
    return objects([n if isinstance(n, Tensor) else int(n) for n in a.reshape(-1)]).reshape(a.shape)


@hosted("Concat")
def concat(step: Any, *values: np.ndarray) -> Any:
    return np.concatenate(values, step.get("axis"))


@hosted("Gather")
def gather(step: Any, a: np.ndarray, places: np.ndarray) -> Any:
    return np.take(a, places.astype(np.int64), step.get("axis", 0))


@hosted("Slice")
def cut(step: Any, a: np.ndarray, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
    first, last = (whole(step.get(n) if v is None else v) for n, v in (("starts", starts), ("ends", ends)))
    strides = [1] * len(first) if steps is None else whole(steps)
    where = [slice(None)] * a.ndim
    for axis, begin, end, stride in zip(axes_of(step, axes) or range(len(first)), first, last, strides, strict=True):
        where[axis] = slice(begin, end if stride > 0 or end >= -a.shape[axis] else None, stride)
    return a[tuple(where)]


@hosted("Split")
def split(step: Any, a: np.ndarray, sizes: Any = None) -> Any:
    given, axis = step.get("split") if sizes is None else sizes, step.get("axis", 0)
    part = -(-a.shape[axis] // len(step.outputs))
    each = [part] * len(step.outputs) if given is None else whole(given)
    return tuple(np.split(a, np.cumsum(each)[:-1], axis))


@hosted("Squeeze")
def squeeze(step: Any, a: np.ndarray, axes: Any = None) -> Any:
    chosen = axes_of(step, axes)
    return a.squeeze() if chosen is None else a.squeeze(tuple(chosen))


@hosted("Unsqueeze")
def unsqueeze(step: Any, a: np.ndarray, axes: Any = None) -> Any:
    return np.expand_dims(a, tuple(axes_of(step, axes) or ()))


@hosted("Reshape")
def reshape(step: Any, a: np.ndarray, shape: Any) -> Any:
    return a.reshape([a.shape[n] if size == 0 else size for n, size in enumerate(whole(shape))])


@hosted("Transpose")
def transpose(step: Any, a: np.ndarray) -> Any:
    return a.transpose(step.get("perm"))


@hosted("Where")
def where(step: Any, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> Any:
    return np.where(condition.astype(bool), a, b)


@hosted("Expand")
def expand(step: Any, a: np.ndarray, shape: Any) -> Any:
    wanted = np.broadcast_shapes(a.shape, tuple(whole(shape)))
    if np.prod([float(size) for size in wanted]) > MAX_NUMBERS:
        raise ValueError(f"it asks for an array of shape {wanted[:8]}.")
    return np.broadcast_to(a, wanted)


@hosted("Range")
def numbers_from(step: Any, start: np.ndarray, end: np.ndarray, by: np.ndarray) -> Any:
    given = [v.reshape(-1).tolist()[0] for v in (start, end, by)]
    if any(isinstance(number, float) for number in given):
        count = max(0, math.ceil((given[1] - given[0]) / given[2]))
        if count > MAX_NUMBERS:
            raise ValueError(f"it asks for {count} numbers.")
        return (given[0] + given[2] * np.arange(count)).astype(np.float32)
    first, last, stride = (whole(v)[0] for v in (start, end, by))
    found = range(first, last, stride)
    if len(found) > MAX_NUMBERS:
        raise ValueError(f"it asks for {len(found)} numbers.")
    return np.array(found, dtype=np.int64)
