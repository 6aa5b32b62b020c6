"""The time loop of a layer with multipliers of its inputs, gates and units: one direction of an LSTM, GRU or RNN.

Shapes: x_NI holds the steps one after the other, `sizes[t]` sequences at step t, never rising (as packed). Multipliers
belong to a sequence and are constant over time: input_BI of the features, gate_BG of the gates' rows (B, gates * K),
unit_BK of the units; None where there are none. What comes back is the output that others read, h * z, so it is scaled
once and for all readers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .noisy_lstm import Layer, run_lstm, steps_of


def run(layer: Layer, x_NI: Tensor, sizes: Sequence[int], states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Output (N, K) and final states, each (B, K)."""
    if layer.mode == "LSTM":
        return run_lstm(layer, x_NI, tuple(sizes), states)
    if layer.input_BI is not None:
        x_NI = x_NI * steps_of(layer.input_BI, sizes)
    # Hoisted: one product for all steps; so is what needs no multiplier of its own at each step.
    inputs = F.linear(x_NI, layer.weight_ih)
    steps = _GRU(layer, inputs, sizes) if layer.mode == "GRU" else _RNN(layer, inputs)
    outputs: list[Tensor] = []
    ended: list[Tensor] = []
    read = carried = states[0]  # what matrices read, h * z; a GRU carries h itself
    for now, size in zip(steps.inputs.split(tuple(sizes)), sizes):
        if size < len(read):
            ended.append(read[size:])
            read, carried = read[:size], carried[:size]
        gate = None if layer.gate_BG is None else layer.gate_BG[:size]
        carried = steps(now, read, carried, gate)
        read = carried if layer.unit_BK is None else carried * layer.unit_BK[:size]
        outputs.append(read)
    return torch.cat(outputs), [torch.cat([read, *reversed(ended)])]


class _GRU:
    """One step from the input's share, which holds its multipliers and bias already."""

    def __init__(self, layer: Layer, inputs_NG: Tensor, sizes: Sequence[int]) -> None:
        if layer.gate_BG is not None:
            inputs_NG = inputs_NG * steps_of(layer.gate_BG, sizes)
        self.inputs = inputs_NG if layer.bias_ih is None else inputs_NG + layer.bias_ih
        self.turned, self.bias = layer.weight_hh.t(), layer.bias_hh

    def __call__(self, now: Tensor, read: Tensor, carried: Tensor, gate: Tensor | None) -> Tensor:
        k = carried.shape[1]
        if gate is None:
            product = read @ self.turned if self.bias is None else torch.addmm(self.bias, read, self.turned)
        else:
            product = read @ self.turned
            product = product * gate if self.bias is None else torch.addcmul(self.bias, product, gate)
        r, z = torch.sigmoid(now[:, : 2 * k] + product[:, : 2 * k]).chunk(2, 1)
        n = torch.tanh(torch.addcmul(now[:, 2 * k :], r, product[:, 2 * k :]))
        return torch.lerp(n, carried, z)


class _RNN:
    """One step from the input's share."""

    def __init__(self, layer: Layer, inputs_NK: Tensor) -> None:
        both = layer.bias_ih is not None and layer.bias_hh is not None
        self.bias = layer.bias_ih + layer.bias_hh if both else None  # type: ignore[operator]
        # The bias lies outside the gate's multiplier, so it is hoisted only where there is none.
        self.inputs = inputs_NK if self.bias is None or layer.gate_BG is not None else inputs_NK + self.bias
        self.turned = layer.weight_hh.t()
        self.curve = torch.relu if layer.mode == "RNN_RELU" else torch.tanh

    def __call__(self, now: Tensor, read: Tensor, carried: Tensor, gate: Tensor | None) -> Tensor:
        before = torch.addmm(now, read, self.turned)
        if gate is not None:
            before = before * gate if self.bias is None else torch.addcmul(self.bias, before, gate)
        return self.curve(before)
