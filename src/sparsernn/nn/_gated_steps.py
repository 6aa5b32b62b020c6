"""The time loop of a layer of which only some rows are computed, one direction, for LSTM, GRU and RNN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Step = Callable[[Tensor, list[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class GatedWeights:
    """Tensors of one layer and direction; see `GatedLSTM`. `rows` holds living, scaled and constant rows in turn."""

    mode: str
    width: int
    living: tuple[int, ...]
    scaled: int
    rows: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    constant: Tensor  # before the activation
    weight_hr: Tensor | None = None


def run_steps(w: GatedWeights, x: Tensor, sizes: list[int], states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Output and final states. x: (sum of sizes, features), sizes[t] sequences at step t, never rising, as packed."""
    step = {"LSTM": lstm_step, "GRU": gru_step}.get(w.mode, rnn_step)(w)
    count = len(w.weight_ih)
    bias = None
    if w.bias_ih is not None and w.bias_hh is not None:
        # The bias of the state's product joins the input's, apart from a GRU's n, where it lies inside the reset.
        plain = count - w.living[-1] if w.mode == "GRU" else count
        bias = torch.cat([w.bias_ih[:plain] + w.bias_hh[:plain], w.bias_ih[plain:count]])
    inputs = F.linear(x, w.weight_ih, bias)
    outputs: list[Tensor] = []
    ended: list[list[Tensor]] = []
    for now, size in zip(inputs.split(sizes), sizes):
        if size < len(states[0]):
            ended.append([state[size:] for state in states])
            states = [state[:size] for state in states]
        states = step(now, states)
        outputs.append(states[0])
    finals = [torch.cat(parts) for parts in zip(states, *reversed(ended))]
    return torch.cat(outputs), finals


def lstm_step(w: GatedWeights) -> Step:
    i, f, g, _ = w.living
    place = w.rows.argsort()
    ci, cf, cg, co = _constant_counts(w)
    parts = w.constant.split((ci, cf, cg, co))
    fixed = torch.cat([torch.tanh(p) if n == 2 else torch.sigmoid(p) for n, p in enumerate(parts)])

    def step(now: Tensor, states: list[Tensor]) -> list[Tensor]:
        h, c = states
        z = now + F.linear(h, w.weight_hh)
        values = torch.cat(
            [
                torch.sigmoid(z[:, : i + f]),
                torch.tanh(z[:, i + f : i + f + g]),
                torch.sigmoid(z[:, i + f + g :]),
                fixed.expand(len(z), -1),
            ],
            1,
        )
        gate_i, gate_f, gate_g, gate_o = values.index_select(1, place).chunk(4, 1)
        c = gate_f * c + gate_i * gate_g
        h = gate_o * torch.tanh(c)
        return [h if w.weight_hr is None else F.linear(h, w.weight_hr), c]

    return step


def gru_step(w: GatedWeights) -> Step:
    r, z, n = w.living
    count = r + z + n
    fixed_rz = sum(_constant_counts(w)[:2])
    start = count + w.scaled
    place_rz = torch.cat([w.rows[: r + z], w.rows[start : start + fixed_rz]]).argsort()
    rows_n = torch.cat([w.rows[r + z : start], w.rows[start + fixed_rz :]]) - 2 * w.width
    place_n = rows_n.argsort()
    with_reset = rows_n[: n + w.scaled]
    rz = torch.sigmoid(w.constant[:fixed_rz])
    fixed_n = torch.tanh(w.constant[fixed_rz:])
    bias_n = w.bias_hh[r + z :] if w.bias_hh is not None else None
    scaled_in = w.bias_ih[count:] if w.bias_ih is not None else w.constant[:0]

    def step(now: Tensor, states: list[Tensor]) -> list[Tensor]:
        (h,) = states
        product = F.linear(h, w.weight_hh)
        living_rz = torch.sigmoid(now[:, : r + z] + product[:, : r + z])
        gate_r, gate_z = torch.cat([living_rz, rz.expand(len(h), -1)], 1).index_select(1, place_rz).chunk(2, 1)
        inside = product[:, r + z :]
        if w.scaled:
            inside = F.pad(inside, (0, w.scaled))
        if bias_n is not None:
            inside = inside + bias_n
        outside = torch.cat([now[:, r + z :], scaled_in.expand(len(h), -1)], 1)
        living_n = torch.tanh(outside + gate_r.index_select(1, with_reset) * inside)
        gate_n = torch.cat([living_n, fixed_n.expand(len(h), -1)], 1).index_select(1, place_n)
        return [gate_n + gate_z * (h - gate_n)]

    return step


def rnn_step(w: GatedWeights) -> Step:
    activation = torch.relu if w.mode == "RNN_RELU" else torch.tanh
    place = w.rows.argsort()
    fixed = activation(w.constant)

    def step(now: Tensor, states: list[Tensor]) -> list[Tensor]:
        living = activation(now + F.linear(states[0], w.weight_hh))
        return [torch.cat([living, fixed.expand(len(living), -1)], 1).index_select(1, place)]

    return step


def _constant_counts(w: GatedWeights) -> list[int]:
    counts = [w.width - living for living in w.living]
    counts[-1] -= w.scaled
    return counts
