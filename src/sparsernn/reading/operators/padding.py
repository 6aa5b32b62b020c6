"""Padding, of an axis by numbers and of a window by what its attributes say."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from .table import operator, room, whole

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@operator("Pad", sizes=(1, 3), numbers=True)
def pad(step: Any, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    sizes = whole(step.get("pads", ()) if pads is None else pads)
    chosen = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in whole(axes)]
    if len(sizes) != 2 * len(chosen):
        raise ValueError(f"it pads {len(chosen)} axes by {len(sizes)} numbers; expected twice as many.")
    value = step.get("value", 0.0) if value is None else value
    number = float(value) if not isinstance(value, (Tensor, np.ndarray)) else value.reshape(-1)[0].item()
    before = dict(zip(chosen, sizes[: len(chosen)]))
    after = dict(zip(chosen, sizes[len(chosen) :]))
    room([size + before.get(axis, 0) + after.get(axis, 0) for axis, size in enumerate(x.shape)])
    mode = _MODES.get(step.get("mode", "constant"))
    if mode is None:
        raise ValueError(f"it pads in a mode that is not read: {step.get('mode')}.")
    if mode == "constant":
        return F.pad(x, _torch_order(before, after, x.dim()), value=number)
    for axis in chosen:  # torch pads by what is there only at the last axes of three: one axis after another
        if before[axis] or after[axis]:
            rows = x.transpose(axis, -1)
            flat = rows.reshape(1, -1, rows.shape[-1])
            flat = F.pad(flat, (before[axis], after[axis]), mode=mode)
            x = flat.reshape(*rows.shape[:-1], flat.shape[-1]).transpose(axis, -1)
    return x


def _torch_order(before: dict[int, int], after: dict[int, int], rank: int) -> list[int]:
    """Pairs from the last axis backwards, as far as any is padded."""
    touched = [axis for axis in range(rank) if before.get(axis, 0) or after.get(axis, 0)]
    first = min(touched, default=rank)
    return [n for axis in range(rank - 1, first - 1, -1) for n in (before.get(axis, 0), after.get(axis, 0))]


def around(x: Tensor, step: Any, kernel: list[int], stride: list[int], dilation: list[int], value: float) -> Tensor:
    """`x` (batch, channels, *sizes) with the border that `pads` or `auto_pad` asks for."""
    count, sizes = len(kernel), [int(size) for size in x.shape[2:]]
    way = step.get("auto_pad", "NOTSET")
    pads = whole(step.get("pads", [0] * 2 * count)) if way in ("NOTSET", "") else [0] * 2 * count
    if way not in ("NOTSET", "", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"it pads by a rule that is not read: {way}.")
    if way.startswith("SAME"):
        for n, size in enumerate(sizes):
            steps = -(-size // stride[n])
            total = max((steps - 1) * stride[n] + (kernel[n] - 1) * dilation[n] + 1 - size, 0)
            less, more = total // 2, total - total // 2
            pads[n], pads[n + count] = (less, more) if way == "SAME_UPPER" else (more, less)
    if not any(pads):
        return x
    order = [n for axis in range(count - 1, -1, -1) for n in (pads[axis], pads[axis + count])]
    return F.pad(x, order, value=value)
