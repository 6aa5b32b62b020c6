"""Along axes: sums, means, statistics and pooling pass where one channel stands along the axis."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter

from .. import operations as ops
from ..channels import pairs
from ..ledger import Ledger
from ..shadow import NONE, Shadow
from .movement import first
from .quantised import weight_range

ZERO_REDUCTIONS = (
    frozenset(
        """sum nansum mean nanmean amax amin max min median norm vector_norm cumsum cummax cummin sort topk
    linalg_norm linalg_vector_norm frobenius_norm diff fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft
    interpolate msort trapz trapezoid cumulative_trapezoid gradient nanmedian mode kthvalue quantile nanquantile renorm
    cumprod prod""".split()
    )
    | ops.FFT_OF_SEVERAL
)


def _axes(name: str, source: Tensor, rest: tuple, kw: dict) -> list[int]:
    position = {**ops.REDUCE, **ops.ALONG}.get(name, 1) - 1
    default: Any = _DEFAULT.get(name, None if name in ops.REDUCE else -1)
    given = kw.get("dim", kw.get("axis", rest[position] if len(rest) > position else default))
    if given is None or isinstance(given, bool) or given == ():
        return list(range(source.dim()))
    given = [given] if isinstance(given, int) else list(given)
    return [g % source.dim() for g in given] if source.dim() else []


# The axes where none are named, unless that means all (reductions) or the last one.
_DEFAULT: dict[str, Any] = {
    "normalize": 1,
    "msort": 0,
    **dict.fromkeys(("kthvalue", "mode", "trapz", "trapezoid"), -1),
    **dict.fromkeys(ops.FFT_OF_SEVERAL | {"gradient"}),
    **{name: (-2, -1) for name in ops.FFT_OF_SEVERAL if name.endswith("2")},
}


def along_axes(ledger: Ledger, name: str, args: Any, kwargs: Any, result: Any) -> list[Shadow] | None:
    source, rest, kw = first(args, kwargs)
    shadow = ledger.shadow(source)
    label = shadow.label
    if label is None:
        return weight_range(ledger, name, shadow, result) if shadow.weights else [NONE]
    ledger.keep_weights(shadow.weights)
    if name in ops.POOL:
        axes = list(range(source.dim() - ops.POOL[name], source.dim()))
    elif name == "renorm":  # of what one index along the given axis has
        apart = kw.get("dim", rest[1] if len(rest) > 1 else 0) % source.dim()
        axes = [axis for axis in range(source.dim()) if axis != apart]
    elif name in ops.STATISTICS:
        shape = kw.get("normalized_shape", rest[0] if rest else ())
        count = len(shape) if name in ("layer_norm", "rms_norm") else source.dim() - 1
        axes = list(range(source.dim() - count, source.dim()))
    else:
        axes = _axes(name, source, rest, kw)
    if name == "sum" and shadow.factors is not None and not ledger.collapse(label, axes)[1]:
        ledger.dot_along(*shadow.factors)
        return [NONE]
    merged, agree = ledger.collapse(label, axes)
    # Units lie along another axis than those that are reduced, or on the last one.
    elsewhere = label.dim() - 1 not in axes or any(ledger.varies(label, a) for a in range(label.dim()) if a not in axes)
    if not agree and name in ops.REDUCE and elsewhere:
        # Several units of one place are merged (two directions averaged): they go together.
        for axis in axes:
            for n in range(1, label.shape[axis]):
                ledger.channels.union(*pairs(label.narrow(axis, 0, 1), label.narrow(axis, n, 1)), ledger.site())
        agree = True
    if not agree and name.startswith("fft"):
        return None
    if not agree:
        ledger.keep(label, _WHY.get(name, f"{name} over the units mixes them without a weight"))
        return [NONE]
    if name in ops.STATISTICS:
        return None
    for other in tree_iter((rest, kw)):
        mine = ledger.label(other)
        if mine is not None and mine.dim() == label.dim():
            small, same = ledger.collapse(mine, axes)
            mine = None if same and torch.equal(small, merged) else mine
        if mine is not None:
            return None
    if name not in ZERO_REDUCTIONS and name not in ops.POOL:
        ledger.channels.shift(label)
    found = []
    for tensor in tree_iter(result):
        if isinstance(tensor, Tensor):
            small = merged if tensor.dim() == source.dim() else _without(merged, axes)
            several = kw.get("q", rest[0] if rest else None) if "quantile" in name else None
            if isinstance(several, Tensor) and several.dim() == 1:  # quantiles in front
                small = merged if kw.get("keepdim", len(rest) > 2 and rest[2]) else _without(merged, axes)
                small = small.unsqueeze(0)
            found.append(Shadow(small.expand(tensor.shape), state=shadow.state and name in ops.ALONG))
    return found


def _without(label: Tensor, axes: list[int]) -> Tensor:
    for axis in sorted(axes, reverse=True):
        label = label.squeeze(axis)
    return label


_WHY = {
    "layer_norm": "LayerNorm: its mean and variance are taken over all units",
    "rms_norm": "RMSNorm: its mean square is taken over all units",
    "softmax": "softmax over the units",
    "log_softmax": "softmax over the units",
    "normalize": "normalised over the units",
    **dict.fromkeys(["norm", "linalg_norm", "linalg_vector_norm"], "a norm over all units"),
    **dict.fromkeys(["sum", "mean"], "the units are added up without a weight that could be zero"),
    **dict.fromkeys(["max", "min", "amax", "amin", "argmax", "argmin"], "the largest or smallest of all units"),
    **dict.fromkeys(["var", "std", "var_mean", "std_mean"], "a variance over all units"),
    **dict.fromkeys(["any", "all"], "a question about all units at once"),
}
