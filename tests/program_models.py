"""Causal models as people write them, functions of a few layers, each with an example; all that streams."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from program_networks import NETWORKS, CausalConv, Function


def _residual_forward(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)[0]
    y = m.n1(y + x)
    return m.head(m.n2(y + m.b(y)[0]) * 2)


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


R, L = torch.randn, nn.Linear

STREAMS: dict[str, tuple[Any, ...]] = {
    **NETWORKS,
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
    "separable convolution": (
        lambda: Function(_separable, d=CausalConv(4, 4, 5, groups=4), n=nn.LayerNorm(4), p=L(4, 4)),
        lambda: R(2, 9, 4),
    ),
    "heads within a frame": (lambda: Function(_heads, q=L(8, 8)), lambda: R(2, 9, 8)),
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
