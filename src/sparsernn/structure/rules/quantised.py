"""Fake quantisation: values rounded to a grid that holds zero, per tensor or per channel (torch.ao, LSQ and its kin).

Zero stays zero, so a fake-quantised weight is read, owned and cut as the weight itself; scales and zero points of
single channels are cut with them. Ranges of observers hold zero as well, so planes of zeros leave them as they are. The
range of activations is another matter: it is taken over all units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..ledger import Ledger
from ..shadow import NONE, Shadow, fit
from .movement import first


def _rounded(ledger: Ledger, x: Tensor, channelled: Sequence[Tensor], axis: int) -> Shadow:
    """The shadow of `x` on a grid; `channelled` are vectors along `axis` of x (others have one number for all)."""
    shadow = ledger.shadow(x)
    view = [-1 if a == axis % max(x.dim(), 1) else 1 for a in range(x.dim())]
    vectors = [t for t in channelled if x.dim() and t.numel() == x.shape[axis] and t.numel() > 1]
    weights = [tuple(p.reshape(view) for p in w) for t in vectors for w in ledger.shadow(t).weights if t.dim() == 1]
    if shadow.label is not None:
        for weight in weights:
            ledger.own_along(shadow.label, weight, additive=False)
        return Shadow(shadow.label)
    factors = tuple(tuple(fit(p, x.shape) for p in ledger.as_factor(w)) for w in weights)
    return Shadow(weights=(*shadow.weights, *factors)) if shadow.weights else NONE


def _per_tensor(ledger: Ledger, args: Any, kwargs: Any) -> list[Shadow]:
    x, _, _ = first(args, kwargs)
    return [_rounded(ledger, x, (), 0)]


def _per_channel(ledger: Ledger, args: Any, kwargs: Any) -> list[Shadow]:
    x, rest, kw = first(args, kwargs)
    names = ("scale", "zero_point", "axis")
    scale, zero, axis = (rest[n] if len(rest) > n else kw[name] for n, name in enumerate(names))
    return [_rounded(ledger, x, (scale, zero), axis)]


def _observed(ledger: Ledger, args: Any, kwargs: Any) -> list[Shadow] | None:
    """`fused_moving_avg_obs_fake_quant`: an observer and the grid of what it saw, in one call."""
    if len(args) < 13:
        return None
    x, observes, buffers, axis = args[0], args[1], args[3:7], args[10]
    label = ledger.label(x) if ledger.shadow(x).label is not None else None
    if label is not None and bool(observes[0]) and not ledger.collapse(label, range(x.dim()))[1]:
        ledger.keep(label, "rounded to a grid whose range is taken over all units")
        return [NONE]
    return [_rounded(ledger, x, buffers if args[11] else (), axis)]


GRIDS: dict[str, Callable[[Ledger, Any, Any], list[Shadow] | None]] = {
    "fake_quantize_per_tensor_affine": _per_tensor,
    "_fake_quantize_learnable_per_tensor_affine": _per_tensor,
    "fake_quantize_per_channel_affine": _per_channel,
    "_fake_quantize_learnable_per_channel_affine": _per_channel,
    "fused_moving_avg_obs_fake_quant": _observed,
}


def weight_range(ledger: Ledger, name: str, shadow: Shadow, result: Any) -> list[Shadow] | None:
    """The largest values of a weight, over zero: planes of zeros change nothing. None for anything else."""
    from_zero = name == "aminmax" or (shadow.magnitude and name in ("amax", "max"))
    if shadow.label is not None or not from_zero:
        return None
    results = [result] if isinstance(result, Tensor) else list(result)
    ledger.feedback.derived(results, ledger.parameters_in(*shadow.weights))
    return [NONE] * len(results)
