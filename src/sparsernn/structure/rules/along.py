"""Operations along time that change the shape: padding from itself, spectrograms, complex numbers, norms per channel.

Whatever an operation does along time, a unit that it keeps apart from the others can still go: its channel stands at
every place of the result that comes from places where it stood alone.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter

from ..ledger import Ledger
from ..shadow import NONE, Shadow, expand_constant
from .movement import first


def _short_time(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> list[Shadow] | None:
    """`stft` of (..., time) to (..., frequency, frame) with or without a last axis of 2; `istft` back."""
    source, _, _ = first(args, kwargs)
    label = ledger.label(source)
    if label is None:
        return None if ledger.shadow(source).weights else [NONE]
    front = source.dim() - 1 if result.dim() > source.dim() else result.dim() - 1
    merged, agree = ledger.collapse(label, range(front, source.dim()))
    if not agree:
        return None
    return [Shadow(merged.reshape(*merged.shape[:front], *[1] * (result.dim() - front)).expand(result.shape))]


def _as_complex(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> list[Shadow]:
    """Real and imaginary part of one number: two units that are one from here on go together."""
    source, _, _ = first(args, kwargs)
    label = ledger.label(source)
    return [Shadow(None if label is None else ledger.combine([label[..., 0], label[..., 1]], result.shape))]


def _as_real(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> list[Shadow]:
    source, _, _ = first(args, kwargs)
    label = ledger.label(source)
    return [Shadow(None if label is None else label.unsqueeze(-1).expand(result.shape))]


def _fold(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> list[Shadow] | None:
    """Overlapping blocks (batch, channels x kernel, places) added up."""
    source, rest, kw = first(args, kwargs)
    label = ledger.label(source)
    if label is None:
        return [NONE]
    kernel = kw.get("kernel_size", rest[1] if len(rest) > 1 else 1)
    size = kernel**2 if isinstance(kernel, int) else prod(kernel)
    split = label.reshape(*label.shape[:-2], -1, size, label.shape[-1])
    merged, agree = ledger.collapse(split, [split.dim() - 2, split.dim() - 1])
    return [Shadow(merged.expand(result.shape))] if agree else None


def _channel_norm(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> list[Shadow] | None:
    """GroupNorm of one channel a group, InstanceNorm: each channel by its own statistics over time."""
    x, rest, kw = first(args, kwargs)
    label = ledger.label(x)
    if label is None:
        return None if ledger.shadow(x).weights else [NONE]
    groups = kw.get("num_groups", rest[0] if rest and isinstance(rest[0], int) else x.shape[1])
    merged, agree = ledger.collapse(label, [a for a in range(x.dim()) if a != 1])
    if not agree or groups != x.shape[1]:
        text = "GroupNorm: its mean and variance are taken over several units"
        ledger.keep(label, text if agree else "its mean and variance are taken over several units")
        return [NONE]
    ledger.channels.shift(label)
    for tensor in tree_iter((rest, kw)):
        if isinstance(tensor, Tensor):
            for weight in ledger.shadow(tensor).weights:
                view = [1, -1] + [1] * (x.dim() - 2)
                ledger.own_along(merged, tuple(p.view(view) for p in weight), additive=True)
    return [Shadow(label)]


def _index_put(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> list[Shadow] | None:
    """`index_put`: values put where the indices say; where they are added up, both are tied."""
    target, index, value = args[:3]
    added = kwargs.get("accumulate", args[3] if len(args) > 3 else False)
    labels = [ledger.label(target), ledger.label(value)]
    for leaf in tree_iter(index):
        ledger.keep(ledger.label(leaf), "its value is used as an index")
    if added:
        return None
    blank = torch.zeros((), dtype=torch.long)
    place = (blank if labels[0] is None else labels[0]).expand(target.shape).contiguous()
    place[tuple(i if i is None else i.cpu() for i in index)] = blank if labels[1] is None else labels[1]
    return [Shadow(expand_constant(place))]


def _cosine(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> list[Shadow] | None:
    """The cosine of two sequences along time, for each unit by itself."""
    a, b = [*args, *(kwargs[n] for n in ("x1", "x2") if n in kwargs)][:2]
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 1)
    found = []
    for tensor in (a, b):
        label = ledger.label(tensor)
        small, agree = (None, True) if label is None else ledger.collapse(label, [dim % tensor.dim()])
        if not agree or (label is not None and tensor.dim() != max(a.dim(), b.dim())):
            return None
        found.append(None if small is None else small.squeeze(dim))
    return [Shadow(ledger.combine(found, result.shape))]


SHAPES: dict[str, Callable[[Ledger, Any, Any, Any], list[Shadow] | None]] = {
    **dict.fromkeys(["stft", "istft"], _short_time),
    "view_as_complex": _as_complex,
    "view_as_real": _as_real,
    "fold": _fold,
    "cosine_similarity": _cosine,
    **dict.fromkeys(["group_norm", "instance_norm"], _channel_norm),
    "index_put": _index_put,
}
