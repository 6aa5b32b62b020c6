"""The time loop of a layer with multipliers of its inputs, gates and units: one direction of an LSTM, GRU or RNN.

Shapes: x_NI holds the steps one after the other, `sizes[t]` sequences at step t, never rising (as packed). Multipliers
belong to a sequence and are constant over time: input_BI of the features, gate_BG of the gates' rows (B, gates * K),
unit_BK of the units; None where there are none. What comes back is the output that others read, h * z, so it is scaled
once and for all readers.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from ...nn.equations import gru
from ...nn.time_loop import over_time
from .lstm import Layer, run_lstm, steps_of
from .rnn import run_rnn


def run(layer: Layer, x_NI: Tensor, sizes: Sequence[int], states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Output (N, K) and final states, each (B, K)."""
    if layer.mode == "LSTM":
        return run_lstm(layer, x_NI, tuple(sizes), states)
    if layer.mode != "GRU":
        return run_rnn(layer, x_NI, tuple(sizes), states)
    if layer.input_BI is not None:
        x_NI = x_NI * steps_of(layer.input_BI, sizes)
    inputs = F.linear(x_NI, layer.weight_ih)  # hoisted: one product for all steps, the bias after the multipliers

    def step(now: Tensor, states: list[Tensor]) -> list[Tensor]:
        read, carried = states  # what matrices read, h * z; h itself is carried
        gate = None if layer.gate_BG is None else layer.gate_BG[: len(now)]
        carried = _gru_step(layer, now, read, carried, gate)
        return [carried if layer.unit_BK is None else carried * layer.unit_BK[: len(now)], carried]

    y, finals = over_time(step, inputs.split(tuple(sizes)), [states[0], states[0]])
    return y, finals[:1]


def _gru_step(layer: Layer, now: Tensor, read: Tensor, carried: Tensor, gate: Tensor | None) -> Tensor:
    product = F.linear(read, layer.weight_hh)
    if gate is not None:
        now, product = now * gate, product * gate
    if layer.bias_ih is not None and layer.bias_hh is not None:
        now, product = now + layer.bias_ih, product + layer.bias_hh
    return gru(now, product, carried)
