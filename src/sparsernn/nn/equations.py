"""The equations of LSTM, GRU, RNN and recurrent highway cells, once: gates before activation to the next state.

Shapes: B a batch (or any leading axes), H units, gates side by side in the order of `structure.cells`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..structure.cells import GRU, LSTM, RHN, Cell


def activate(pre: Tensor, cell: Cell, sizes: Sequence[int] | None = None) -> list[Tensor]:
    """Each gate of `pre` (B, all gates) with its activation. `sizes`: how many units of each gate there are."""
    gates = pre.chunk(len(cell.gates), -1) if sizes is None else pre.split(list(sizes), -1)
    return [getattr(torch, name)(gate) for gate, name in zip(gates, cell.activations)]


def lstm_state(gates: Sequence[Tensor], c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c from gates that are activated."""
    i, f, g, o = gates
    c = f * c + i * g
    return o * torch.tanh(c), c


def lstm(pre: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c from what input, state and biases add up to."""
    return lstm_state(activate(pre, LSTM), c)


def gru_candidate(n_x: Tensor, r: Tensor, n_h: Tensor) -> Tensor:
    """n: the reset gate multiplies what comes from the state, its bias too, and nothing else."""
    return torch.tanh(n_x + r * n_h)


def gru_state(n: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return n + z * (h - n)


def gru(inputs: Tensor, hidden: Tensor, h: Tensor) -> Tensor:
    """h from the products with input and state, each with its bias."""
    (r_x, z_x, n_x), (r_h, z_h, n_h) = (part.chunk(len(GRU.gates), -1) for part in (inputs, hidden))
    return gru_state(gru_candidate(n_x, torch.sigmoid(r_x + r_h), n_h), torch.sigmoid(z_x + z_h), h)


def step(cell: Cell, inputs: Tensor, hidden: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
    """The next [h] or [h, c] of an LSTM, GRU or RNN, h before any projection; states: [h] or [h, c]."""
    if cell == LSTM:
        return list(lstm(inputs + hidden, states[1]))
    if cell == GRU:
        return [gru(inputs, hidden, states[0])]
    return activate(inputs + hidden, cell)


def highway(pre: Tensor, s: Tensor) -> Tensor:
    """The state after one highway layer (one depth), its carry gate 1 - t."""
    h, t = activate(pre, RHN)
    # Under autocast the products come out in half precision, the state stays as it is.
    return torch.lerp(s, h.to(s.dtype), t.to(s.dtype))
