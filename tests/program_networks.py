"""Causal networks of convolutions, recurrent layers and loops over cells written out, each with an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Function(nn.Module):
    """A module whose forward is a function of itself; parts are modules by name."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Any, other: Any = None) -> Any:
        return self.run(self, x) if other is None else self.run(self, x, other)


class CausalConv(nn.Module):
    def __init__(self, i: int, o: int, k: int, d: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.left = (k - 1) * d
        self.conv = nn.Conv1d(i, o, k, dilation=d, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.left, 0)))


class Block(nn.Module):
    """A TCN's block: padding on both sides and a chomp, batch norm, a residual."""

    def __init__(self, channels: int, k: int, d: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, k, padding=(k - 1) * d, dilation=d)
        self.norm = nn.BatchNorm1d(channels)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)[..., : x.shape[-1]]
        return x + self.act(self.norm(y))


class Tcn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(6, 8, 1)
        self.blocks = nn.Sequential(*(Block(8, 3, d) for d in (1, 2, 4)))
        self.gru = nn.GRU(8, 10, batch_first=True)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.front(x.transpose(1, 2))).transpose(1, 2)
        return self.head(self.gru(y)[0])


class Crn(nn.Module):
    """Convolutional recurrent net for spectrograms, (B, 1, T, F): skip connections and a mask."""

    def __init__(self, frequencies: int = 16) -> None:
        super().__init__()
        self.e1 = nn.Conv2d(1, 4, (2, 3), stride=(1, 2), padding=(1, 1))
        self.e2 = nn.Conv2d(4, 6, (2, 3), stride=(1, 2), padding=(1, 1))
        inner = 6 * (frequencies // 4)
        self.lstm = nn.LSTM(inner, inner, batch_first=True)
        self.d2 = nn.ConvTranspose2d(12, 4, (2, 3), stride=(1, 2), padding=(0, 1), output_padding=(0, 1))
        self.d1 = nn.ConvTranspose2d(8, 1, (2, 3), stride=(1, 2), padding=(0, 1), output_padding=(0, 1))
        self.n1, self.n2 = nn.BatchNorm2d(4), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[2]
        a = F.elu(self.n1(self.e1(x)[:, :, :steps]))
        b = F.elu(self.n2(self.e2(a)[:, :, :steps]))
        z = b.permute(0, 2, 1, 3).flatten(2)
        z, _ = self.lstm(z)
        z = z.unflatten(2, (b.shape[1], b.shape[3])).permute(0, 2, 1, 3)
        z = F.elu(self.d2(torch.cat([z, b], 1))[:, :, :steps])
        return x * torch.sigmoid(self.d1(torch.cat([z, a], 1))[:, :, :steps])


class Strided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 6, 4, stride=2)
        self.lstm = nn.LSTM(6, 7, 2, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.lstm(self.conv(F.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2))


class Loop(nn.Module):
    """A loop over an LSTMCell, as tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 5)
        outputs = []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


class Filled(nn.Module):
    """Two loops: a cell written out over unbound steps, and one that fills a tensor, or a view of it; the last state as
    well."""

    def __init__(self, view: bool = False) -> None:
        super().__init__()
        self.view = view
        self.w, self.u = nn.Linear(4, 6), nn.Linear(6, 6, bias=False)
        self.cell = nn.GRUCell(6, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, states = torch.zeros(x.shape[0], 6), []
        for frame in x.unbind(1):
            h = torch.tanh(self.w(frame) + self.u(h)) * 0.5 + 0.5 * h
            states.append(h.unsqueeze(1))
        y = F.layer_norm(torch.cat(states, 1), (6,))
        out, g = x.new_zeros(x.shape[0], x.shape[1], 5), x.new_zeros(x.shape[0], 5)
        for t in range(x.shape[1]):
            g = self.cell(y[:, t], g)
            (out[:] if self.view else out)[:, t] = g + 1
        return F.relu(out[0:]), g


def _places(m: Any, x: Tensor) -> Any:
    """Steps of tensors as a loop fills them: by a slice, by parts, by numbers, in place, after what stood there."""
    batch, steps, _ = x.shape
    h, g = x.new_zeros(batch, 5), x.new_zeros(batch, 5)
    one, two = torch.zeros(batch, steps, 5), torch.ones(batch, steps, 5)
    three, four = torch.zeros(batch, 5, steps) + 0.5, torch.empty(steps, batch, 5)
    for t in range(steps):
        h = m.cell(x[:, t], h)
        one[:, t : t + 1] = h.unsqueeze(1)
        one[:, t, 0] = 1.5
        two[:, t] *= h
        two[:, t, 3:] = h[:, :2] * 2
        two[:, t].sub_(0.25)
        two[:, t][h > 0.1] = 3.0
        g = three[..., t] + g
        three.narrow(2, t, 1).copy_(torch.sigmoid(h + g).unsqueeze(2))
        four[t].fill_(0.5)
        four[t, :, :2] = h.mean(-1, keepdim=True)
        h = h + four[t] + three[:, :, t]
    return one, two, three.transpose(1, 2), four.transpose(0, 1)


def _of_constants(m: Any, x: Tensor) -> Any:
    """What depends on no input in a loop: numbers written and read, carried, stacked; memory that a round makes."""
    one, two, stacked = torch.zeros_like(x), torch.zeros_like(x), []
    before, start = torch.zeros(x.shape[0], 4), m.l.bias.expand(x.shape[0], 4)
    for t in range(x.shape[1]):
        one[:, t] = 0.5
        room = torch.empty(x.shape[0], 4)
        room[:, :2] = m.l(x[:, t])[:, 2:]
        room[:, 2:].fill_(0.25)
        two[:, t] = x[:, t] + one[:, t] * 0.3 + before
        two[:, t] += room
        before = torch.tanh(start)
        stacked.append(start * 2)
    return two, torch.stack(stacked, 1)


def _by_masks(m: Any, x: Tensor) -> Tensor:
    y, marks = m.g(x)[0], torch.zeros_like(x)
    y[y < 0] = 0.0
    y[:, 1:][x.sum(-1)[:, 1:] > 1] = -1.0  # all features of a step
    marks[x > 0.5] = 1
    return torch.cat([y, marks], -1)


class Custom(nn.Module):
    """A coupled-gate LSTM after a valid convolution, its gates chunked; layers in an outer loop."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3)
        self.layers = nn.ModuleList(nn.Linear(8, 12) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.transpose(1, 2)).transpose(1, 2)
        for layer in self.layers:
            h, c, outputs = x.new_zeros(x.shape[0], 4), x.new_zeros(x.shape[0], 4), []
            for t in range(y.shape[1]):
                f, o, g = layer(torch.cat([y[:, t], h], -1)).chunk(3, -1)
                f = torch.sigmoid(f)
                c = f * c + (1 - f) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
                outputs += [h]
            y = torch.stack(outputs, dim=1)
        return y


class Previous(nn.Module):
    """A decoder that reads what it gave in the step before."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4 + 2, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, y, ys = x.new_zeros(x.shape[0], 5), x.new_zeros(x.shape[0], 2), []
        for frame in x.unbind(1):
            h = self.cell(torch.cat([frame, y], -1), h)
            y = torch.softmax(self.head(h), -1)
            ys.append(y)
        return torch.stack(ys, 1)


class WaveNet(nn.Module):
    """Gated dilated layers, residuals and a sum of skips, on (B, C, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(1, 6, 1)
        self.filters = nn.ModuleList(CausalConv(6, 12, 2, 2**n) for n in range(3))
        self.mixes = nn.ModuleList(nn.Conv1d(6, 6, 1) for _ in range(3))
        self.head = nn.Conv1d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, skips = self.front(x), 0
        for f, m in zip(self.filters, self.mixes):
            a, b = f(y).chunk(2, 1)
            z = m(torch.tanh(a) * torch.sigmoid(b))
            skips = skips + z
            y = y + z
        return self.head(F.relu(skips))


class Bands(nn.Module):
    """Convolutions on (B, C, F, T), time last, and a GRU behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0))
        self.norm = nn.BatchNorm2d(3)
        self.gru = nn.GRU(12, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.norm(self.conv(F.pad(x, (1, 0)))))
        return self.gru(y.flatten(1, 2).transpose(1, 2))[0]


class Mirrored(nn.Module):
    """Convolutions along features that pad with the features themselves, in all three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, (1, 3), padding=(0, 1), padding_mode="reflect")
        self.ring = nn.Conv2d(2, 2, (1, 3), padding=(0, 1), padding_mode="circular")

    def forward(self, x: Tensor) -> Tensor:
        y = self.ring(self.conv(x[:, None]))[:, 0]
        return F.pad(F.pad(y, (2, 1), mode="replicate"), (3, 0), mode="reflect")


R = torch.randn

L = nn.Linear


R = torch.randn
NETWORKS: dict[str, tuple[Any, ...]] = {
    "WaveNet": (WaveNet, lambda: R(2, 1, 9), {"time": 2}),
    "time last": (Bands, lambda: R(2, 2, 7, 9), {"time": 3}),
    "features padded with themselves": (Mirrored, lambda: R(2, 9, 6)),
    "loop over a cell": (Loop, lambda: R(2, 9, 4)),
    "two loops": (Filled, lambda: R(2, 9, 4)),
    "numbers by masks": (lambda: Function(_by_masks, g=nn.GRU(4, 5, batch_first=True)), lambda: R(2, 9, 4)),
    "constants in a loop": (lambda: Function(_of_constants, l=L(4, 4)), lambda: R(2, 9, 4)),
    "steps filled by parts": (lambda: Function(_places, cell=nn.GRUCell(4, 5)), lambda: R(2, 9, 4)),
    "two loops, a view": (lambda: Filled(True), lambda: R(2, 9, 4)),
    "layers of a cell of one's own": (Custom, lambda: R(2, 9, 3)),
    "its own output": (Previous, lambda: R(2, 9, 4)),
    "TCN and GRU": (Tcn, lambda: R(2, 9, 6)),
    "CRN": (Crn, lambda: R(2, 1, 9, 16), {"time": 2}),
    "stride 2": (Strided, lambda: R(2, 9, 3)),
}
