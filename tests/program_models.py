"""Causal models as people write them, each with an example; what streams and what is refused."""

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


def _residual_forward(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)[0]
    y = m.n1(y + x)
    return m.head(m.n2(y + m.b(y)[0]) * 2)


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


def _time_first(m: Any, x: Tensor) -> Tensor:
    return m.n2(m.b(m.n1(m.a(x)[0]))[0])


def _masked(m: Any, x: Tensor) -> Any:
    y, h = m.g(x)
    mask = torch.sigmoid(m.l(y))
    return {"masked": x * mask, "last": y[:, -1], "h": h, "pair": (mask, y.mean(1))}


def _glu(m: Any, x: Tensor) -> Tensor:
    return F.glu(m.l(x), -1) + F.softplus(x) - F.leaky_relu(x, 0.2) * F.hardswish(x) + F.gelu(x) / 3


def _unfolded(m: Any, x: Tensor) -> Tensor:
    frames = F.pad(x, (0, 0, 4, 0)).unfold(1, 5, 1)  # (B, T, F, 5)
    return m.l(frames.flatten(2))


def _shifted(m: Any, x: Tensor) -> Tensor:
    before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
    return m.l(torch.cat([x, before, x - before], -1))


def _learned_start(m: Any, x: Tensor) -> Tensor:
    start = m.l.weight[:1].expand(x.shape[0], 1, -1)
    return m.l(torch.cat([start, x[:, :-1]], 1))


def _conditioned(m: Any, x: Tensor, speaker: Tensor) -> Tensor:
    c = m.l(speaker).unsqueeze(1).expand(-1, x.shape[1], -1)
    return m.g(torch.cat([x, c], -1))[0]


def _memory(m: Any, x: Tensor, memory: Tensor) -> Tensor:
    y = m.g(x)[0]
    weights = (m.l(y) @ memory.transpose(1, 2)).softmax(-1)
    return torch.cat([y, weights @ memory], -1)


def _stacked_frames(m: Any, x: Tensor) -> Tensor:
    b, t, f = x.shape
    return m.g(x.reshape(b, t // 4, 4 * f))[0]


def _folded(m: Any, x: Tensor) -> Tensor:
    b, t, f = x.shape
    return torch.relu(m.l(x.reshape(b * t, f))).view(b, t, -1)


def _einsum(m: Any, x: Tensor) -> Tensor:
    heads = m.l(x).unflatten(-1, (2, 3))
    return torch.einsum("bthd,hde->bthe", heads, m.w.weight.view(2, 3, 4)).flatten(2).log_softmax(-1)


def _pooled(m: Any, x: Tensor) -> Tensor:
    y = F.max_pool1d(F.pad(x.transpose(1, 2), (2, 0)), 3, 1)
    y = F.avg_pool1d(y, 2, 2)
    return m.g(y.transpose(1, 2))[0]


def _depthwise(m: Any, x: Tensor) -> Tensor:
    y = m.c(x.transpose(1, 2))
    return m.p(F.silu(y)).transpose(1, 2) + x


def _dual_path(m: Any, x: Tensor) -> Tensor:
    """(B, T, bands, F): a bidirectional layer along bands, a layer along time."""
    b, t, k, f = x.shape
    y = x + m.across(x.reshape(b * t, k, f))[0].view(b, t, k, -1)
    z = y.transpose(1, 2).reshape(b * k, t, f)
    return y + m.along(z)[0].view(b, k, t, f).transpose(1, 2)


def _running(m: Any, x: Tensor) -> Any:
    y = m.g(x)[0]
    return m.l(y.mean(1)), y.amax(1), y.cumsum(1), x[:, -3:].flatten(1)


def _norms(m: Any, x: Tensor) -> Tensor:
    y = x / x.norm(dim=-1, keepdim=True).clamp_min(1e-5)
    y = (y - y.mean(-1, keepdim=True)) / (y.std(-1, keepdim=True) + 1e-5)
    return m.n(y) + m.r(x) + torch.where(x > 0, x, 0.1 * x).clamp(-1, 2)


def _group(m: Any, x: Tensor) -> Tensor:
    b, t, f = x.shape
    return m.n(x.reshape(b * t, f)).view(b, t, f)


def _inplace(m: Any, x: Tensor) -> Tensor:
    y = m.l(x)
    y += x
    y[..., 0] = 0
    y[..., 1:3] *= 2
    return y.relu_()


def _valid(m: Any, x: Tensor) -> Any:
    y = m.c(x.transpose(1, 2)).transpose(1, 2)
    y, h = m.g(y)
    return y, h


def _two_rates(m: Any, x: Tensor) -> Any:
    return m.a(x)[0], m.b(m.a(x)[0][:, ::2])[0]


def _delayed_add(m: Any, x: Tensor) -> Tensor:
    y = m.c(x.transpose(1, 2)).transpose(1, 2)  # valid: two steps later
    return y + x[:, 2:]


def _xlstm(m: Any, tokens: Tensor) -> Any:
    y, (h, c) = m.rnn(m.e(tokens))
    return m.head(m.d(y)).log_softmax(-1), h, c


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
    """Two loops: a cell written out over unbound steps, and one that fills a tensor; the last state as well."""

    def __init__(self) -> None:
        super().__init__()
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
            out[:, t] = g + 1
        return F.relu(out), g


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


def _projected(m: Any, x: Tensor) -> Tensor:
    y, _ = m.r(x)
    return torch.cat([m.s(y)[0], y], -1)


def _unbatched(m: Any, x: Tensor) -> Tensor:
    return m.l(m.g(x)[0])


def _highway(m: Any, x: Tensor) -> Tensor:
    t = torch.sigmoid(m.t(x))
    return t * torch.tanh(m.h(x)) + (1 - t) * x


def _mixture(m: Any, x: Tensor) -> Any:
    pi, mu, sigma = m.l(m.g(x)[0]).split([3, 3, 3], -1)
    return pi.softmax(-1), mu, torch.exp(sigma.clamp(-5, 5)) + 1e-3


def _film(m: Any, x: Tensor, other: Tensor) -> Tensor:
    gamma, beta = m.c(other)[:, None].chunk(2, -1)
    return m.g(x * (1 + gamma) + beta)[0]


def _context(m: Any, x: Tensor) -> Tensor:
    y = F.pad(x, (0, 0, 2, 0))
    n = x.shape[1]
    return m.l(torch.cat([y[:, k : k + n] for k in range(3)], -1))


def _log_features(m: Any, x: Tensor) -> Tensor:
    power = x[..., :3].square() + x[..., 3:] ** 2
    return m.g(torch.log(power.clamp(min=1e-6)))[0]


def _smoothed(m: Any, x: Tensor) -> Tensor:
    """A one-pole filter, written as a loop."""
    y, out = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        y = 0.9 * y + 0.1 * x[:, t]
        out.append(y)
    return m.l(torch.stack(out, 1) - x)


def _separable(m: Any, x: Tensor) -> Tensor:
    y = m.p(F.gelu(m.n(m.d(x.transpose(1, 2)).transpose(1, 2)), approximate="tanh"))
    return x + y


def _heads(m: Any, x: Tensor) -> Any:
    """Attention among four channels of one frame, and the largest of each frame."""
    b, t, f = x.shape
    q = m.q(x).view(b, t, 4, f // 4)
    y = F.scaled_dot_product_attention(q, q, q).flatten(2)
    return y, x.amax(-1), (x > 0).to(x.dtype).mean(-1)


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
STREAMS: dict[str, tuple[Any, ...]] = {
    "WaveNet": (WaveNet, lambda: R(2, 1, 9), {"time": 2}),
    "time last": (Bands, lambda: R(2, 2, 7, 9), {"time": 3}),
    "projections": (
        lambda: Function(
            _projected,
            r=nn.LSTM(4, 6, proj_size=3, batch_first=True),
            s=nn.RNN(3, 4, nonlinearity="relu", batch_first=True),
        ),
        lambda: R(2, 9, 4),
    ),
    "without a batch": (lambda: Function(_unbatched, g=nn.GRU(4, 5), l=L(5, 2)), lambda: R(9, 4), {"time": 0}),
    "highway": (lambda: Function(_highway, t=L(4, 4), h=L(4, 4)), lambda: R(2, 9, 4)),
    "mixture": (lambda: Function(_mixture, g=nn.GRU(4, 6, batch_first=True), l=L(6, 9)), lambda: R(2, 9, 4)),
    "feature-wise modulation": (
        lambda: Function(_film, c=L(3, 8), g=nn.GRU(4, 5, batch_first=True)),
        lambda: (R(2, 9, 4), R(2, 3)),
        {"time": {"x": 1, "other": None}},
    ),
    "context frames": (lambda: Function(_context, l=L(12, 3)), lambda: R(2, 9, 4)),
    "log features": (lambda: Function(_log_features, g=nn.LSTM(3, 4, batch_first=True)), lambda: R(2, 9, 6)),
    "one-pole filter": (lambda: Function(_smoothed, l=L(4, 2)), lambda: R(2, 9, 4)),
    "features padded with themselves": (Mirrored, lambda: R(2, 9, 6)),
    "separable convolution": (
        lambda: Function(_separable, d=CausalConv(4, 4, 5, groups=4), n=nn.LayerNorm(4), p=L(4, 4)),
        lambda: R(2, 9, 4),
    ),
    "heads within a frame": (lambda: Function(_heads, q=L(8, 8)), lambda: R(2, 9, 8)),
    "loop over a cell": (Loop, lambda: R(2, 9, 4)),
    "two loops": (Filled, lambda: R(2, 9, 4)),
    "layers of a cell of one's own": (Custom, lambda: R(2, 9, 3)),
    "its own output": (Previous, lambda: R(2, 9, 4)),
    "language model": (
        lambda: Function(
            _xlstm, e=nn.Embedding(13, 6), rnn=nn.LSTM(6, 7, 2, batch_first=True), d=nn.Dropout(0.5), head=L(7, 13)
        ),
        lambda: torch.randint(13, (2, 9)),
    ),
    "residual norms": (
        lambda: Function(
            _residual_forward,
            a=nn.GRU(6, 6, batch_first=True),
            n1=nn.LayerNorm(6),
            b=nn.LSTM(6, 6, batch_first=True),
            n2=nn.LayerNorm(6),
            head=L(6, 3),
        ),
        lambda: R(2, 9, 6),
    ),
    "causal conv GRU": (
        lambda: Function(
            lambda m, x: m.g(m.c(x.transpose(1, 2)).relu().transpose(1, 2))[0],
            c=CausalConv(4, 6, 3, 2),
            g=nn.GRU(6, 5, batch_first=True),
        ),
        lambda: R(2, 9, 4),
    ),
    "TCN and GRU": (Tcn, lambda: R(2, 9, 6)),
    "CRN": (Crn, lambda: R(2, 1, 9, 16), {"time": 2}),
    "stride 2": (Strided, lambda: R(2, 9, 3)),
    "time first": (
        lambda: Function(_time_first, a=nn.LSTM(5, 6), n1=nn.LayerNorm(6), b=nn.LSTM(6, 4), n2=nn.LayerNorm(4)),
        lambda: R(9, 2, 5),
    ),
    "masks and heads": (lambda: Function(_masked, g=nn.GRU(5, 6, batch_first=True), l=L(6, 5)), lambda: R(2, 9, 5)),
    "activations": (lambda: Function(_glu, l=L(5, 10)), lambda: R(2, 9, 5)),
    "unfold": (lambda: Function(_unfolded, l=L(20, 3)), lambda: R(2, 9, 4)),
    "differences": (lambda: Function(_shifted, l=L(12, 3)), lambda: R(2, 9, 4)),
    "learned start": (lambda: Function(_learned_start, l=L(4, 4)), lambda: R(2, 9, 4)),
    "speaker": (
        lambda: Function(_conditioned, l=L(3, 4), g=nn.GRU(9, 5, batch_first=True)),
        lambda: (R(2, 9, 5), R(2, 3)),
        {"time": {"x": 1, "other": None}},
    ),
    "attention over a memory": (
        lambda: Function(_memory, g=nn.GRU(5, 6, batch_first=True), l=L(6, 4)),
        lambda: (R(2, 9, 5), R(2, 7, 4)),
        {"time": {"x": 1, "other": None}},
    ),
    "stacked frames": (lambda: Function(_stacked_frames, g=nn.GRU(12, 5, batch_first=True)), lambda: R(2, 12, 3)),
    "folded batch": (lambda: Function(_folded, l=L(4, 6)), lambda: R(2, 9, 4)),
    "einsum": (lambda: Function(_einsum, l=L(4, 6), w=L(6, 4, bias=False)), lambda: R(2, 9, 4)),
    "pooling": (lambda: Function(_pooled, g=nn.GRU(4, 5, batch_first=True)), lambda: R(2, 10, 4)),
    "depthwise": (
        lambda: Function(_depthwise, c=CausalConv(4, 4, 3, groups=4), p=nn.Conv1d(4, 4, 1)),
        lambda: R(2, 9, 4),
    ),
    "dual path": (
        lambda: Function(
            _dual_path, across=nn.GRU(4, 2, batch_first=True, bidirectional=True), along=nn.LSTM(4, 4, batch_first=True)
        ),
        lambda: R(2, 9, 3, 4),
    ),
    "values so far": (lambda: Function(_running, g=nn.GRU(4, 5, batch_first=True), l=L(5, 2)), lambda: R(2, 9, 4)),
    "norms": (lambda: Function(_norms, n=nn.LayerNorm(5), r=nn.RMSNorm(5)), lambda: R(2, 9, 5)),
    "group norm": (lambda: Function(_group, n=nn.GroupNorm(2, 6)), lambda: R(2, 9, 6)),
    "in place": (lambda: Function(_inplace, l=L(5, 5)), lambda: R(2, 9, 5)),
    "valid conv": (
        lambda: Function(_valid, c=nn.Conv1d(4, 6, 3), g=nn.GRU(6, 5, batch_first=True)),
        lambda: R(2, 9, 4),
    ),
    "two rates": (
        lambda: Function(_two_rates, a=nn.GRU(4, 5, batch_first=True), b=nn.GRU(5, 3, batch_first=True)),
        lambda: R(2, 10, 4),
    ),
    "delayed sum": (lambda: Function(_delayed_add, c=nn.Conv1d(4, 4, 3)), lambda: R(2, 9, 4)),
}


class Silero(nn.Module):
    """A voice activity detector as it is shipped: one chunk, its state given and returned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 6, 4, stride=4)
        self.encoder = nn.Conv1d(6, 5, 3, padding=1)
        self.rnn = nn.LSTMCell(5, 5)
        self.head = nn.Conv1d(5, 1, 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.encoder(F.relu(self.conv(x.unsqueeze(1))))).mean(-1)
        h, c = self.rnn(y, (state[0], state[1]))
        out = torch.sigmoid(self.head(F.relu(h).unsqueeze(-1))).mean(2)
        return out, torch.stack([h, c])


class Predictor(nn.Module):
    """A transducer's prediction net, its states in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 5)
        self.rnn = nn.LSTMCell(5, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, token: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        h, c = self.rnn(self.embedding(token), (state["h"], state["c"]))
        return self.norm(h), {"h": h, "c": c}


class Policy(nn.Module):
    """A recurrent policy that keeps its state itself: one attribute set anew, one buffer written in place."""

    def __init__(self, rows: int = 2) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.ELU())
        self.cell = nn.GRUCell(6, 6)
        self.actor, self.critic = nn.Linear(6, 2), nn.Linear(6, 1)
        self.h = torch.zeros(rows, 6)
        self.register_buffer("mean", torch.zeros(rows, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.mean.copy_(0.9 * self.mean + 0.1 * x)
        self.h = self.cell(self.trunk(x - self.mean), self.h)
        return torch.tanh(self.actor(self.h)), self.critic(self.h)


class Lazy(nn.Module):
    """An attribute that the first call makes."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(4, 5)
        self.h: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.h is None:
            self.h = x.new_zeros(x.shape[0], 5)
        self.h = self.cell(x, self.h)
        return self.h


class Decoder(nn.Module):
    """One step of an attention decoder over a memory that stays."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.cell = nn.GRUCell(4 + 6, 5)
        self.query, self.head = nn.Linear(5, 6), nn.Linear(5 + 6, 9)

    def forward(self, token: Tensor, h: Tensor, context: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.cell(torch.cat([self.embedding(token), context], -1), h)
        weights = torch.softmax(torch.bmm(memory, self.query(h).unsqueeze(-1)).squeeze(-1), -1)
        context = torch.bmm(weights.unsqueeze(1), memory).squeeze(1)
        return self.head(torch.cat([h, context], -1)), h, context


def _swap(m: Any, x: Tensor, other: Any) -> Any:
    """Two states that change places."""
    return m.l(other[0] + x), (other[1] * 0.5, other[0] - x)


class Written(nn.Module):
    """A window of past frames, moved on through views of its buffer, and a level that is changed twice in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.zeros(3, 4))
        self.register_buffer("level", torch.ones(4))
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.window[:-1] = self.window[1:].clone()
        self.window[-1] = x.mean(0)
        self.level.mul_(0.9).add_(x.amax(0), alpha=0.1)
        return x / (1 + self.level**2) + self.head(self.window.view(-1))


def _late(m: Any, x: Tensor, past: Tensor) -> Any:
    """What was given three steps ago."""
    return past[:, 0], torch.cat([past[:, 1:], x[:, None]], 1)


STEPS: dict[str, tuple[Any, ...]] = {
    "voice detector": (Silero, lambda: (R(2, 16), torch.zeros(2, 2, 5)), {"states": {"state": 1}}),
    "transducer": (
        Predictor,
        lambda: (torch.randint(11, (2,)), {"h": R(2, 6), "c": R(2, 6)}),
        {"states": {"state": 1}},
    ),
    "policy": (Policy, lambda: R(2, 4)),
    "state made by the first call": (Lazy, lambda: R(2, 4)),
    "attention decoder": (
        Decoder,
        lambda: (torch.randint(9, (2,)), torch.zeros(2, 5), torch.zeros(2, 6), R(2, 7, 6)),
        {"states": {"h": 1, "context": 2}},
    ),
    "crossed states": (
        lambda: Function(_swap, l=L(3, 2)),
        lambda: (R(2, 3), (R(2, 3), R(2, 3))),
        {"states": {"other": 1}},
    ),
    "buffers written in place": (Written, lambda: R(2, 4)),
    "a state handed out as it was": (lambda: Function(_late), lambda: (R(2, 4), R(2, 3, 4)), {"states": {"other": 1}}),
}


class Counting(nn.Module):
    """One step that counts in Python, and does something else each thirtieth time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.h, self.t = nn.GRUCell(4, 5), torch.zeros(2, 5), 0

    def forward(self, x: Tensor) -> Tensor:
        self.t += 1
        self.h = self.cell(x, self.h if self.t % 30 else torch.zeros_like(self.h))
        return self.h


def _attention(m: Any, x: Tensor) -> Tensor:
    return (m.l(x) @ x.transpose(1, 2)).softmax(-1) @ x


def _branch(m: Any, x: Tensor) -> Tensor:
    return m.l(x) if float(x.sum()) > 0 else x


def _reversed_loop(m: Any, x: Tensor) -> Tensor:
    h, out = x.new_zeros(x.shape[0], 4), []
    for t in reversed(range(x.shape[1])):
        h = m.g(x[:, t], h)
        out.append(h)
    return torch.stack(out[::-1], 1)


def _squeeze_excite(m: Any, x: Tensor) -> Tensor:
    return x * torch.sigmoid(m.l(x.mean(1, keepdim=True)))


REFUSED: dict[str, tuple[Any, ...]] = {
    "a count in Python": (
        Counting,
        lambda: R(2, 4),
        {},
        "changes t from step to step, in Python.*a tensor in a buffer",
    ),
    "bidirectional": (
        lambda: Function(lambda m, x: m.g(x)[0], g=nn.GRU(4, 5, batch_first=True, bidirectional=True)),
        lambda: R(2, 9, 4),
        {},
        "gru.*is bidirectional: its backward direction needs the whole sequence",
    ),
    "symmetric conv": (
        lambda: Function(lambda m, x: m.c(x.transpose(1, 2)).transpose(1, 2), c=nn.Conv1d(4, 4, 7, padding=3)),
        lambda: R(2, 9, 4),
        {},
        "needs 3 steps of look-ahead.*pass delay=3",
    ),
    "self-attention": (
        lambda: Function(_attention, l=L(4, 4)),
        lambda: R(2, 9, 4),
        {},
        "each step with every other one",
    ),
    "branch on a value": (
        lambda: Function(_branch, l=L(4, 4)),
        lambda: R(2, 9, 4),
        {},
        "reads a tensor.s value into Python",
    ),
    "squeeze and excite": (
        lambda: Function(_squeeze_excite, l=L(4, 4)),
        lambda: R(2, 9, 4),
        {},
        "combines each step with a value of the whole sequence",
    ),
    "softmax over time": (
        lambda: Function(lambda m, x: x.softmax(1)),
        lambda: R(2, 9, 4),
        {},
        "softmax.*compares the steps",
    ),
    "norm over time": (
        lambda: Function(lambda m, x: m.n(x.transpose(1, 2)), n=nn.InstanceNorm1d(4)),
        lambda: R(2, 9, 4),
        {},
        "instance_norm.*normalises over the steps",
    ),
    "group norm over time": (
        lambda: Function(lambda m, x: m.n(x.transpose(1, 2)), n=nn.GroupNorm(2, 4)),
        lambda: R(2, 9, 4),
        {},
        "group_norm.*normalises over the steps",
    ),
    "flipped": (
        lambda: Function(lambda m, x: m.g(x.flip(1))[0], g=nn.GRU(4, 5, batch_first=True)),
        lambda: R(2, 9, 4),
        {},
        "flip.*turns round the steps",
    ),
    "a later step": (
        lambda: Function(lambda m, x: m.g(x)[0] + x[:, 3:4, :1], g=nn.GRU(4, 5, batch_first=True)),
        lambda: R(2, 9, 4),
        {},
        "needs 3 steps of look-ahead.*pass delay=3",
    ),
    "random": (
        lambda: Function(lambda m, x: m.g(x)[0] + torch.randn(5), g=nn.GRU(4, 5, batch_first=True)),
        lambda: R(2, 9, 4),
        {},
        "random",
    ),
    "upsampling": (
        lambda: Function(lambda m, x: m.c(x.transpose(1, 2)), c=nn.ConvTranspose1d(4, 4, 2, stride=2)),
        lambda: R(2, 9, 4),
        {},
        "several steps for one",
    ),
    "reflected padding": (
        lambda: Function(lambda m, x: F.pad(x.transpose(1, 2), (2, 0), mode="reflect")),
        lambda: R(2, 9, 4),
        {},
        "pad.*reflect",
    ),
    "length as a number": (
        lambda: Function(lambda m, x: m.g(x / x.shape[1])[0], g=nn.GRU(4, 5, batch_first=True)),
        lambda: R(2, 9, 4),
        {},
        "the length of the sequence",
    ),
    "time as features": (
        lambda: Function(lambda m, x: m.l(x.transpose(1, 2)), l=L(24, 4)),
        lambda: R(2, 24, 4),
        {},
        "fails on its example with 24 time steps",
    ),
    "packed": (
        lambda: Function(
            lambda m, x: nn.utils.rnn.pad_packed_sequence(
                m.g(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([x.shape[1]] * len(x)), batch_first=True))[0]
            )[0],
            g=nn.GRU(4, 5, batch_first=True),
        ),
        lambda: R(2, 9, 4),
        {},
        "packs its sequences",
    ),
    "transposed weights of the input": (
        lambda: Function(lambda m, x: m.l(x) @ x.mT, l=L(4, 4)),
        lambda: R(2, 9, 4),
        {},
        "every other|fails",
    ),
    "batch norm over time": (
        lambda: Function(lambda m, x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)),
        lambda: R(2, 9, 4),
        {},
        "of the whole sequence|whole of it",
    ),
    "sorted": (
        lambda: Function(lambda m, x: x.sort(1)[0]),
        lambda: R(2, 9, 4),
        {},
        "sort.*is not among the operations",
    ),
    "reversed loop": (
        lambda: Function(_reversed_loop, g=nn.GRUCell(4, 4)),
        lambda: R(2, 9, 4),
        {},
        "number of the step|loop",
    ),
    "a list as long as the sequence": (
        lambda: Function(lambda m, x: list(x.unbind(1))),
        lambda: R(2, 9, 4),
        {},
        "more parts the longer",
    ),
    "several rates": (
        lambda: Function(
            lambda m, x: x[:, 1::2] + m.c(x.transpose(1, 2)).transpose(1, 2)[:, : x.shape[1] // 2], c=nn.Conv1d(4, 4, 1)
        ),
        lambda: R(2, 8, 4),
        {},
        "different rates",
    ),
    "stft": (
        lambda: Function(
            lambda m, x: torch.stft(x, 8, 4, window=torch.ones(8, dtype=x.dtype), return_complex=True).abs()
        ),
        lambda: R(2, 32),
        {},
        "stft|reflect|complex",
    ),
    "upsampled": (
        lambda: Function(lambda m, x: x.repeat_interleave(2, 1)),
        lambda: R(2, 9, 4),
        {},
        "repeat_interleave.*gives several steps for one",
    ),
}
