"""The construction of the original graph study, for comparison: masked layers that step through time in Python.

As in the code of Darji (arXiv 2407.20601) and Stier and Granitzer (arXiv 2107.12917): one masked recurrent layer for
each layer of the graph and one more, with recurrent weights of its own, for each pair of layers that an edge skips to;
masks are multiplied in at every time step. Its masks of gates, which were scrambled, are right here, so that both
compute the same function.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsernn.nn.layering import INPUT


class MaskedLayer(nn.Module):
    """One recurrent layer whose input weights are masked, a Python loop over time. x_TBI -> h_TBH."""

    def __init__(self, mode: str, weights: list[Tensor], mask: Tensor | None) -> None:
        super().__init__()
        self.mode = mode
        self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh = (nn.Parameter(w.detach().clone()) for w in weights)
        self.register_buffer("mask", torch.ones_like(self.weight_ih) if mask is None else mask.to(self.weight_ih.dtype))

    def forward(self, x_TBI: Tensor) -> Tensor:
        h = x_TBI.new_zeros(x_TBI.shape[1], self.weight_hh.shape[1])
        c = h
        steps = []
        for x_BI in x_TBI:
            a = F.linear(x_BI, self.weight_ih * self.mask, self.bias_ih)
            b = F.linear(h, self.weight_hh, self.bias_hh)
            if self.mode == "LSTM":
                i, f, g, o = (a + b).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
            elif self.mode == "GRU":
                (r, z, n), (r_h, z_h, n_h) = a.chunk(3, 1), b.chunk(3, 1)
                z = torch.sigmoid(z + z_h)
                h = (1 - z) * torch.tanh(n + torch.sigmoid(r + r_h) * n_h) + z * h
            else:
                h = torch.tanh(a + b)
            steps.append(h)
        return torch.stack(steps)


class OriginalGraphNet(nn.Module):
    """The layers of a `sparsernn.nn.GraphLSTM` (GRU, RNN) with skips="added" and its weights, as the original ran them.

    x_TBI -> the outputs of the units that are read out, (time, batch, outputs).
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.plan = net.layering
        self.layers = nn.ModuleList()
        for layer, (width, parts) in enumerate(zip(self.plan.widths, self.plan.parts)):
            rows = torch.arange(net.gates * parts * width).view(net.gates, parts, width)
            weights = [getattr(net, f"{n}_l{layer}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            mask = getattr(net, f"mask_ih_l{layer}")
            begin = 0
            own = nn.ModuleList()
            for part in range(parts):
                mine = rows[:, part].flatten()
                source = self.plan.sources[layer][part]
                size = net.input_size if source == INPUT else self.plan.widths[source]
                inputs, units = slice(begin, begin + size), slice(part * width, (part + 1) * width)
                begin += size
                ih, hh, b_ih, b_hh = (w[mine] for w in weights)
                own.append(
                    MaskedLayer(
                        net.mode,
                        [ih[:, inputs], hh[:, units], b_ih, b_hh],
                        None if mask is None else mask[mine][:, inputs],
                    )
                )
            self.layers.append(own)

    def forward(self, x_TBI: Tensor) -> Tensor:
        heard = {INPUT: x_TBI}
        for layer, sources in enumerate(self.plan.sources):
            own: Any = self.layers[layer]
            heard[layer] = torch.stack([part(heard[source]) for part, source in zip(own, sources)]).sum(0)
        return torch.cat([heard[n][..., list(units)] for n, units in enumerate(self.plan.readout)], -1)
