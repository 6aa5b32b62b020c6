"""Cells of the literature that carry their units from step to step without a matrix, or by way of two of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..architecture import HAND, Architecture, features, gate_rows, reads


class SimpleRecurrentUnit(nn.Module):
    """SRU (Lei et al., arXiv 1709.02755): one product for all steps, then a loop of gates with peepholes."""

    def __init__(self, hidden=6):
        super().__init__()
        self.W = nn.Linear(5, 4 * hidden, bias=False)
        self.v_f, self.v_r, self.b_f, self.b_r = (nn.Parameter(torch.zeros(hidden)) for _ in range(4))
        self.fc = nn.Linear(hidden, 3)

    def forward(self, x):
        u, f_in, r_in, highway = self.W(x).chunk(4, -1)
        c, outputs = torch.zeros_like(u[:, 0]), []
        for t in range(x.size(1)):
            f = torch.sigmoid(f_in[:, t] + self.v_f * c + self.b_f)
            r = torch.sigmoid(r_in[:, t] + self.v_r * c + self.b_r)
            c = f * c + (1 - f) * u[:, t]
            outputs.append(r * c + (1 - r) * highway[:, t])
        return self.fc(torch.stack(outputs, 1))


class QuasiRecurrent(nn.Module):
    """QRNN (Bradbury et al., arXiv 1611.01576): gates from a masked convolution, then pooling over time."""

    def __init__(self, hidden=6):
        super().__init__()
        self.conv = nn.Conv1d(5, 3 * hidden, 2, padding=1)
        self.fc = nn.Linear(hidden, 3)

    def forward(self, x):
        z, f, o = self.conv(x.transpose(1, 2))[..., : x.size(1)].chunk(3, 1)
        z, f, o = z.tanh(), f.sigmoid(), o.sigmoid()
        c, outputs = torch.zeros_like(z[..., 0]), []
        for t in range(x.size(1)):
            c = f[..., t] * c + (1 - f[..., t]) * z[..., t]
            outputs.append(o[..., t] * c)
        return self.fc(torch.stack(outputs, 1))


class IndependentCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.weight_ih = nn.Parameter(torch.randn(hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.rand(hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, x, h):
        return F.relu(F.linear(x, self.weight_ih, self.bias) + self.weight_hh * h)


class IndependentRNN(nn.Module):
    """IndRNN (Li et al., arXiv 1803.04831): each unit feeds back into itself alone."""

    def __init__(self, hidden=6):
        super().__init__()
        self.cell, self.fc = IndependentCell(5, hidden), nn.Linear(hidden, 3)

    def forward(self, x):
        h = x.new_zeros(x.size(0), self.cell.hidden_size)
        for x_t in x.unbind(1):
            h = self.cell(x_t, h)
        return self.fc(h)


class MultiplicativeLSTM(nn.Module):
    """mLSTM (Krause et al., arXiv 1609.07959): the state feeds back through two matrices in a row."""

    def __init__(self, hidden=6):
        super().__init__()
        self.w_mx, self.w_mh = nn.Linear(5, hidden, bias=False), nn.Linear(hidden, hidden, bias=False)
        self.w_x, self.w_m = nn.Linear(5, 4 * hidden), nn.Linear(hidden, 4 * hidden)
        self.fc = nn.Linear(hidden, 3)

    def forward(self, x):
        h = c = x.new_zeros(x.size(0), self.w_mh.in_features)
        outputs = []
        for x_t in x.unbind(1):
            m = self.w_mx(x_t) * self.w_mh(h)
            i, o, f, u = (self.w_x(x_t) + self.w_m(m)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * u.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(self.fc(h))
        return torch.stack(outputs, 1)


class ClockworkRNN(nn.Module):
    """Clockwork RNN (Koutnik et al., arXiv 1402.3511): a mask on the weights, and a period for each unit."""

    def __init__(self, hidden=6, groups=3):
        super().__init__()
        self.w_i, self.w_h = nn.Linear(5, hidden), nn.Linear(hidden, hidden, bias=False)
        size = hidden // groups
        mask = torch.zeros(hidden, hidden)
        for group in range(groups):
            mask[group * size : (group + 1) * size, group * size :] = 1
        self.register_buffer("mask", mask)
        self.register_buffer("periods", torch.tensor([2**group for group in range(groups)]).repeat_interleave(size))
        self.fc = nn.Linear(hidden, 3)

    def forward(self, x):
        h = x.new_zeros(x.size(0), self.w_h.in_features)
        outputs = []
        for t in range(x.size(1)):
            new = torch.tanh(self.w_i(x[:, t]) + F.linear(h, self.w_h.weight * self.mask))
            h = torch.where((t % self.periods) == 0, new, h)
            outputs.append(self.fc(h))
        return torch.stack(outputs, 1)


class LiquidTimeConstant(nn.Module):
    """LTC (Hasani et al., arXiv 2006.04439) with the fused solver: a division, and one over a parameter."""

    def __init__(self, hidden=6):
        super().__init__()
        self.hidden = hidden
        self.w_in, self.w = nn.Parameter(torch.rand(5, hidden)), nn.Parameter(torch.rand(hidden, hidden))
        self.tau, self.A, self.b = (nn.Parameter(torch.rand(hidden) + 1) for _ in range(3))
        self.fc = nn.Linear(hidden, 3)

    def forward(self, x):
        v = torch.zeros(x.size(0), self.hidden, dtype=x.dtype)
        for t in range(x.size(1)):
            f = torch.sigmoid(x[:, t] @ self.w_in + v @ self.w + self.b)
            v = (v + 0.1 * f * self.A) / (1 + 0.1 * (1 / (self.tau**2 + 1) + f))
        return self.fc(v)


class GraphGRU(nn.Module):
    """DCRNN (Li et al., arXiv 1707.01926): gates from a Linear on neighbours, mixed by a fixed matrix of nodes."""

    def __init__(self, nodes=4, hidden=6):
        super().__init__()
        self.hidden = hidden
        near = torch.rand(nodes, nodes)
        self.register_buffer("near", near / near.sum(1, keepdim=True))
        self.gates, self.candidate = nn.Linear(2 * (2 + hidden), 2 * hidden), nn.Linear(2 * (2 + hidden), hidden)
        self.fc = nn.Linear(hidden, 1)

    def mix(self, x, h):
        own = torch.cat([x, h], -1)
        return torch.cat([own, torch.einsum("nm,bmf->bnf", self.near.to(own), own)], -1)

    def forward(self, x):
        h = x.new_zeros(x.size(0), x.size(2), self.hidden)
        for x_t in x.unbind(1):
            r, u = torch.sigmoid(self.gates(self.mix(x_t, h))).chunk(2, -1)
            c = torch.tanh(self.candidate(self.mix(x_t, r * h)))
            h = u * h + (1 - u) * c
        return self.fc(h).squeeze(-1)


ARCHITECTURES = [
    Architecture(
        "simple_recurrent_unit",
        SimpleRecurrentUnit,
        features,
        {HAND: [reads("fc.weight")]},
        owns={HAND: [gate_rows("W.weight", 6, 4), *(reads(p, 0) for p in ("v_f", "v_r", "b_f", "b_r"))]},
    ),
    Architecture(
        "quasi_recurrent",
        QuasiRecurrent,
        features,
        {HAND: [reads("fc.weight")]},
        owns={HAND: [gate_rows("conv.weight", 6, 3), gate_rows("conv.bias", 6, 3)]},
    ),
    Architecture(
        "independent_rnn",
        IndependentRNN,
        features,
        {HAND: [reads("fc.weight")]},
        owns={HAND: [reads(f"cell.{p}", 0) for p in ("weight_ih", "weight_hh", "bias")]},
    ),
    Architecture(
        "multiplicative_lstm",
        MultiplicativeLSTM,
        features,
        {HAND: [reads("w_mh.weight"), reads("fc.weight")]},
        owns={HAND: [gate_rows(f"{w}.{p}", 6, 4) for w in ("w_x", "w_m") for p in ("weight", "bias")]},
    ),
    Architecture(
        "clockwork_rnn",
        ClockworkRNN,
        features,
        {HAND: [reads("w_h.weight"), reads("fc.weight")]},
        owns={HAND: [reads(p, 0) for p in ("w_i.weight", "w_i.bias", "w_h.weight")]},
    ),
    Architecture(
        "liquid_time_constant",
        LiquidTimeConstant,
        features,
        {HAND: [reads("w", 0), reads("fc.weight")]},
        owns={HAND: [reads("w_in", 1), reads("w", 1), *(reads(p, 0) for p in ("tau", "A", "b"))]},
    ),
    Architecture(
        "graph_gru",
        GraphGRU,
        lambda b, t: torch.randn(b, t, 4, 2),
        {HAND: [*(reads(f"{p}.weight", 1, 2, 10) for p in ("gates", "candidate")), reads("fc.weight")]},
        owns={
            HAND: [
                *(gate_rows(f"gates.{p}", 6, 2) for p in ("weight", "bias")),
                reads("candidate.weight", 0),
                reads("candidate.bias", 0),
            ]
        },
    ),
]
