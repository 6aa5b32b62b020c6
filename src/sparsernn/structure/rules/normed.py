"""Weights divided by a norm of their own: weight normalisation, spectral normalisation and what is built like them.

Along an axis that the norm leaves apart each plane has a norm of its own: there the scale has to be zero, never the
direction, whose norm would be 0 (0/0). Along every other axis a plane of zeros adds nothing to the norm, so it is
zero in the weight and can be cut, as long as something else is left of every norm (`spared`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..channels import Because, Channels, Reason
from ..ledger import Ledger
from ..shadow import Shadow, fit


def weight_norm(ledger: Ledger, v: Tensor, g: Tensor, dim: int = 0) -> list[Shadow] | None:
    """`torch._weight_norm`: v * g / norm(v), norm over all axes but `dim` (-1: over all; -2 counts from the end)."""
    numbering, shadows = ledger.numbering, (ledger.shadow(v), ledger.shadow(g))
    direction, scale = (numbering.whole(shadow) for shadow in shadows)
    if direction is None or scale is None:
        return None
    apart = [] if dim == -1 else [dim % v.dim()]
    others = [axis for axis in range(v.dim()) if axis not in apart]
    ledger.channels.norm(direction, apart, ledger.site())
    for axis in apart:
        for other in others:
            ledger.channels.chain((scale, axis), (direction, other))
    weights = [numbering.alias(w, axes) for s, axes in zip(shadows, (others, apart)) for w in s.weights]
    return [Shadow(weights=tuple(tuple(fit(p, v.shape) for p in w) for w in weights))]


def note_norm(ledger: Ledger, main: Shadow, operands: Sequence[Any]) -> None:
    """`main`, a weight, is multiplied with or divided by `operands`: by a number that was computed from itself?"""
    own = set(ledger.parameters_in(*main.weights))
    for operand in operands:
        if isinstance(operand, Tensor) and not ledger.shadow(operand).weights:
            for number in own & set(ledger.feedback.parameters(operand)):
                ledger.channels.norm(number, (), ledger.site())


def rows_in_norms(channels: Channels, names: Sequence[str]) -> Iterator[tuple[np.ndarray, Reason]]:
    """Channels whose own rows a norm runs over, so that it would change without them, and why they stay."""
    for number, (apart, site) in channels.norms.items():
        reason = Reason(f"{names[number]} is divided by a norm over all its rows", *site, Because.MEANING)
        for (parameter, axis), planes in channels.planes.items():
            if parameter == number and axis not in apart:
                yield planes.owner, reason


def spared(
    channels: Channels,
    names: Sequence[str],
    values: Mapping[str, Tensor],
    channel_class: np.ndarray,
    free: Tensor,
) -> dict[int, Reason]:
    """Classes that have to stay so that no norm is ever that of nothing, and why: those with the largest planes."""
    found: dict[int, Reason] = {}
    for number, (apart, site) in channels.norms.items():
        value = values[names[number]].detach().abs().double().cpu()
        for axis in range(value.dim()):
            planes = channels.planes.get((number, axis))
            if planes is None or axis in apart:
                continue
            rest = [a for a in range(value.dim()) if a != axis and a not in apart]
            size = (value.sum(rest, keepdim=True) if rest else value).movedim(axis, 0).reshape(value.shape[axis], -1)
            classes = torch.from_numpy(channel_class[planes.channel])
            going = (classes >= 0) & free[classes] & ~torch.isin(classes, torch.tensor(list(found), dtype=torch.long))
            while True:
                lacking = (size.sum(0) > 0) & ~(size[~going].sum(0) > 0)
                if not bool(lacking.any()):
                    break
                most = int(classes[going][size[going][:, lacking].sum(1).argmax()])
                text = f"{names[number]} is divided by its norm, of which something has to be left"
                found[most] = Reason(text, *site, Because.MEANING)
                going &= classes != most
    return found
