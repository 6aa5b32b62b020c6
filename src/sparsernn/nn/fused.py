"""One layer through torch's own kernels, by weights rather than by module."""

from __future__ import annotations

import torch
from torch import _VF, Tensor
from torch.nn import functional as F


def run_fused(
    mode: str,
    x: Tensor,
    batch_sizes: Tensor | None,
    states: list[Tensor],
    weights: list[Tensor],
    *,
    bias: bool,
    projected: bool,
    training: bool,
    both: bool,
    batch_first: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Output and final states of one layer, one direction or two of equal width (`both`).

    states: [h] or [h, c], each (directions, batch, width); the same comes back. weights: weight_ih, weight_hh, the
    biases and weight_hr, those that exist, for each direction.
    """
    kernel = getattr(_VF, mode.lower())
    width = states[-1].size(-1)
    if projected and states[0].size(-1) >= width:
        # The kernels know a projection by its being narrower than the cell: zero cells, which stay zero, widen it.
        states, weights = _widen_cells(states, weights, states[0].size(-1) + 1 - width, both)
    hx = tuple(states) if len(states) > 1 else states[0]
    options = (bias, 1, 0.0, training, both)
    if batch_sizes is None:
        y, *finals = kernel(x, hx, weights, *options, batch_first)
    else:
        y, *finals = kernel(x, batch_sizes, hx, weights, *options)
    if finals[-1].size(-1) != width:
        finals[-1] = finals[-1][..., :width]
    return y, finals


def reverse(x: Tensor, backwards: Tensor | None, batch_first: bool) -> Tensor:
    """Every sequence from its last step to its first; packed data by the order `backwards`."""
    if backwards is not None:
        return x.index_select(0, backwards)
    return x.flip(1 if batch_first else 0)


def backward_order(batch_sizes: Tensor) -> Tensor:
    """Row numbers of packed data that make every sequence run from its last step to its first.

    batch_sizes: (time,), on the CPU, never rising. The packed layout stays the same, since no length changes; the
    order is its own inverse.
    """
    steps = torch.arange(len(batch_sizes))
    time = torch.repeat_interleave(steps, batch_sizes)
    offsets = batch_sizes.cumsum(0) - batch_sizes
    place = torch.arange(len(time)) - offsets[time]
    # Sequence b is as long as the number of steps that hold more than b sequences.
    lengths = (batch_sizes.unsqueeze(0) > torch.arange(int(batch_sizes[0])).unsqueeze(1)).sum(1)
    return offsets[lengths[place] - 1 - time] + place


def _widen_cells(
    states: list[Tensor], weights: list[Tensor], more: int, both: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Add `more` cells that are zero for ever: gates of zero weight and bias, a zero column of weight_hr."""
    width = states[1].size(-1)

    def widen_gates(weight: Tensor) -> Tensor:
        by_gate = weight.unflatten(0, (-1, width))
        return F.pad(by_gate, (0, 0) * (weight.dim() - 1) + (0, more)).flatten(0, 1)

    count = len(weights) // (2 if both else 1)
    wide = [F.pad(w, (0, more)) if n % count == count - 1 else widen_gates(w) for n, w in enumerate(weights)]
    return [states[0], F.pad(states[1], (0, more))], wide
