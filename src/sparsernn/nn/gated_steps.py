"""The time loop of a layer of which only some rows are computed, one direction, for LSTM, GRU and RNN."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..structure.cells import GRU, LSTM, Cell
from .equations import activate, gru_candidate, gru_state, lstm_state
from .time_loop import Step, over_time


@dataclass(frozen=True)
class GatedWeights:
    """Tensors of one layer and direction; see `GatedLSTM`. `rows` holds living, scaled and constant rows in turn."""

    cell: Cell
    width: int
    living: tuple[int, ...]
    scaled: int
    rows: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor  # of all rows, in the order of `rows`; zeros for a layer without biases
    bias_hh: Tensor
    weight_hr: Tensor | None = None

    @property
    def count(self) -> int:
        """How many rows live."""
        return len(self.weight_ih)

    def dense(self, weight: Tensor) -> Tensor:
        """`weight` (living rows) among rows of zeros, as in a torch.nn module."""
        zeros = weight.new_zeros(len(self.living) * self.width, weight.shape[1])
        return zeros.index_copy(0, self.rows[: self.count], weight)

    @property
    def constants(self) -> list[int]:
        """How many units of each gate are constant."""
        counts = [self.width - living for living in self.living]
        counts[-1] -= self.scaled
        return counts


def is_loop_faster(w: GatedWeights, batch: int) -> bool:
    """Whether the products that are saved outweigh what a step in Python costs more than one in a fused kernel.

    A step of the loop takes some 60 microseconds besides its products, in which a core does some 3 million
    multiply-adds, and its products and activations run at less than half of the kernel's speed. Under a mode that
    watches the operations it is always the loop: there every parameter is used as it is, so that it can be followed.
    """
    if torch._C._is_torch_function_mode_enabled():
        return True
    rows = len(w.living) * w.width
    saved = (rows - w.count) * (w.weight_ih.shape[1] + w.weight_hh.shape[1])
    return 4 * w.count < rows and saved * batch > 8_000_000


def run_steps(w: GatedWeights, x: Tensor, sizes: list[int], states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Output and final states. x: (sum of sizes, features), sizes[t] sequences at step t, never rising, as packed."""
    step = {LSTM.name: lstm_step, GRU.name: gru_step}.get(w.cell.name, rnn_step)(w)
    # The bias of the state's product joins the input's, apart from a GRU's last gate n: there it is inside the reset.
    plain = w.count - sum(n for n, gate in zip(w.living, w.cell.gates) if gate in w.cell.apart)
    bias = torch.cat([w.bias_ih[:plain] + w.bias_hh[:plain], w.bias_ih[plain : w.count]])
    inputs = F.linear(x, w.weight_ih, bias)
    return over_time(step, inputs.split(sizes), states)


def lstm_step(w: GatedWeights) -> Step:
    place = w.rows.argsort()
    fixed = torch.cat(activate((w.bias_ih + w.bias_hh)[w.count :], w.cell, w.constants))

    def step(now: Tensor, states: list[Tensor]) -> list[Tensor]:
        h, c = states
        living = activate(now + F.linear(h, w.weight_hh), w.cell, w.living)
        values = torch.cat([*living, fixed.expand(len(h), -1)], 1).index_select(1, place)
        h, c = lstm_state(values.split(w.width, 1), c)
        return [h if w.weight_hr is None else F.linear(h, w.weight_hr), c]

    return step


def gru_step(w: GatedWeights) -> Step:
    r, z, n = w.living
    constant_r, constant_z, _ = w.constants
    start, end = w.count + w.scaled, w.count + w.scaled + constant_r + constant_z
    place_rz = torch.cat([w.rows[: r + z], w.rows[start:end]]).argsort()
    rows_n = torch.cat([w.rows[r + z : start], w.rows[end:]]) % w.width
    place_n = rows_n.argsort()
    with_reset = rows_n[: n + w.scaled]
    rz = torch.sigmoid(w.bias_ih[start:end] + w.bias_hh[start:end])
    # A constant n has a constant r, or a b_hn of zero and any r.
    fixed_r = rz.new_zeros(w.width).index_copy(0, w.rows[start : start + constant_r], rz[:constant_r])
    fixed_n = gru_candidate(w.bias_ih[end:], fixed_r[rows_n[n + w.scaled :]], w.bias_hh[end:])
    bias_n, scaled_in = w.bias_hh[r + z : start], w.bias_ih[w.count : start]

    def step(now: Tensor, states: list[Tensor]) -> list[Tensor]:
        (h,) = states
        product = F.linear(h, w.weight_hh)
        living_rz = torch.sigmoid(now[:, : r + z] + product[:, : r + z])
        gate_r, gate_z = torch.cat([living_rz, rz.expand(len(h), -1)], 1).index_select(1, place_rz).split(w.width, 1)
        inside = product[:, r + z :]
        if w.scaled:
            inside = F.pad(inside, (0, w.scaled))
        inside = inside + bias_n
        outside = torch.cat([now[:, r + z :], scaled_in.expand(len(h), -1)], 1)
        living_n = gru_candidate(outside, gate_r.index_select(1, with_reset), inside)
        gate_n = torch.cat([living_n, fixed_n.expand(len(h), -1)], 1).index_select(1, place_n)
        return [gru_state(gate_n, gate_z, h)]

    return step


def rnn_step(w: GatedWeights) -> Step:
    place = w.rows.argsort()
    (fixed,) = activate((w.bias_ih + w.bias_hh)[w.count :], w.cell)

    def step(now: Tensor, states: list[Tensor]) -> list[Tensor]:
        (living,) = activate(now + F.linear(states[0], w.weight_hh), w.cell)
        return [torch.cat([living, fixed.expand(len(living), -1)], 1).index_select(1, place)]

    return step
