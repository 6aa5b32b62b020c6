"""The time loop of one layer and direction of a recurrent highway network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class RHNWeights:
    """weight_ih (2 H, I), for each depth weight_hh (2 H, H) and bias (2 H,) or None; rows of h before those of t."""

    ih: Tensor
    hh: list[Tensor]
    bias: list[Tensor | None]


def run_steps(
    w: RHNWeights, x: Tensor, sizes: list[int] | None, state: Tensor, keep: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Output and final state. x: (time, batch, features); with `sizes`, as packed: (sum of sizes, features), sizes[t]
    sequences at step t, never rising. state: (batch, H). keep: (batch, H), multiplies what the matrices read, or None.

    The input product is one for all steps, those of h and t of a depth are one.
    """
    inputs = F.linear(x, w.ih, w.bias[0])
    columns = [weight.t() for weight in w.hh]
    outputs: list[Tensor] = []
    ended: list[Tensor] = []
    for now in inputs.unbind(0) if sizes is None else inputs.split(sizes):
        if len(now) < len(state):
            ended.append(state[len(now) :])
            state = state[: len(now)]
            keep = None if keep is None else keep[: len(now)]
        for d, weight in enumerate(columns):
            seen = state if keep is None else state * keep
            start = w.bias[d] if d else now
            both = seen @ weight if start is None else torch.addmm(start, seen, weight)
            h, t = both.chunk(2, -1)
            # Under autocast the products come out in half precision, the state stays as it is.
            state = torch.lerp(state, h.tanh().to(state.dtype), t.sigmoid().to(state.dtype))
        outputs.append(state)
    last = torch.cat([state, *reversed(ended)]) if ended else state
    return torch.stack(outputs) if sizes is None else torch.cat(outputs), last
