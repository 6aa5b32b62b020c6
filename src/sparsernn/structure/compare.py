"""Whether two outputs are the same numbers: of any type, and never where one of them is not a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._modules import in_precision
from .examples import NUMBERS

_EXACT = (torch.float64, torch.complex128)


def difference(a: Any, b: Any, tolerance: float, rounded: float = 1e-5) -> str | None:
    """None if `b` is `a`, else how they differ; both are tensors, arrays, numbers or strings.

    `tolerance` is relative to the largest value of `a` (at least 1), and is that of float64; `rounded` that of any
    narrower type, or that of half precision, 4 units in the last place. Two NaN are never the same; infinities may be.
    """
    if not isinstance(a, NUMBERS):
        return None if type(a) is type(b) and a == b else f"{b!r:.60} instead of {a!r:.60}"
    if type(a) is not type(b):
        return f"{describe(b)} instead of {describe(a)}"
    a, b = _dense(a), _dense(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{describe(b)} instead of {describe(a)}"
    if not a.is_floating_point() and not a.is_complex():
        return None if bool((a == b).all()) else "other whole numbers"
    if a.dtype not in _EXACT:
        tolerance = max(rounded, 4 * torch.finfo(a.dtype).eps if a.dtype.itemsize < 4 else 0.0)
    a, b = in_precision(a, torch.float64), in_precision(b, torch.float64)
    for values in (a, b):
        if bool(values.isnan().any()):
            return f"{int(values.isnan().sum())} of {values.numel()} values are NaN"
    size = a.abs()
    size = size[size.isfinite()]
    allowed = tolerance * max(1.0, float(size.max()) if size.numel() else 1.0)
    if bool(torch.isclose(a, b, rtol=0.0, atol=allowed).all()):
        return None
    return f"differs by {float((a - b).abs().nan_to_num(float('inf')).max()):.3g} (allowed {allowed:.3g})"


def describe(value: Any) -> str:
    if isinstance(value, (Tensor, np.ndarray)):
        return f"shape {list(value.shape)}, {value.dtype}"
    return f"{value!r:.60}"


def _dense(value: Any) -> Tensor:
    value = value.detach() if isinstance(value, Tensor) else torch.as_tensor(value)
    if value.is_nested:
        value = value.to_padded_tensor(0.0)
    if value.is_quantized:
        value = value.dequantize()
    return value if value.layout == torch.strided else value.to_dense()
