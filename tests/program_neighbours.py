"""Causal models of papers and of everyday use: recurrences written out, gated stacks, experts, filters, other rates."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from program_networks import Function
from program_strangers import Weights

R, L = torch.randn, nn.Linear


class Scored(NamedTuple):
    score: Tensor
    hidden: Tensor


def _gated_skips(m: Any, x: Tensor) -> Tensor:
    y, total = m.first(x), None
    for n, (conv, res, skip) in enumerate(zip(m.convs, m.res, m.skip)):
        a, b = conv(F.pad(y, (2**n, 0))).chunk(2, dim=1)
        z = torch.tanh(a) * torch.sigmoid(b)
        total = skip(z) if total is None else total + skip(z)
        y = (y + res(z)) * math.sqrt(0.5)
    return m.last(F.relu(total)).log_softmax(1)


def gated_skips() -> nn.Module:
    return Function(
        _gated_skips, first=nn.Conv1d(2, 4, 1), last=nn.Sequential(nn.Conv1d(5, 5, 1), nn.ReLU(), nn.Conv1d(5, 6, 1)),
        convs=nn.ModuleList([parametrizations.weight_norm(nn.Conv1d(4, 8, 2, dilation=2**n)) for n in range(3)]),
        res=nn.ModuleList([nn.Conv1d(4, 4, 1) for _ in range(3)]),
        skip=nn.ModuleList([nn.Conv1d(4, 5, 1) for _ in range(3)]),
    )  # fmt: skip


def _lru(m: Any, x: Tensor) -> Tensor:
    """Linear recurrent unit, its complex states as two real ones."""
    size, angle = torch.exp(-torch.exp(m.p.nu)), torch.exp(m.p.theta)
    re, im = size * torch.cos(angle), size * torch.sin(angle)
    gamma = torch.sqrt(1 - size**2)
    a = b = torch.zeros(x.shape[0], 5)
    out = []
    for u in x.unbind(1):
        a, b = re * a - im * b + gamma * (u @ m.p.br), re * b + im * a + gamma * (u @ m.p.bi)
        out.append(a @ m.p.cr - b @ m.p.ci + u * m.p.d)
    return torch.stack(out, 1)


def _mogrifier(m: Any, x: Tensor) -> Tensor:
    h = c = x.new_zeros(x.shape[0], 5)
    out = []
    for t in range(x.shape[1]):
        u = x[:, t, :]
        for n, part in enumerate(m.r):
            if n % 2:
                h = 2 * torch.sigmoid(part(u)) * h
            else:
                u = 2 * torch.sigmoid(part(h)) * u
        h, c = m.c(u, (h, c))
        out.append(h)
    return torch.stack(out, dim=1)


def _window_attention(m: Any, x: Tensor) -> Tensor:
    """Of each step with the four before it: padded and unfolded."""
    q, k, v = m.q(x), F.pad(m.k(x), (0, 0, 4, 0)), F.pad(m.v(x), (0, 0, 4, 0))
    k, v = k.unfold(1, 5, 1), v.unfold(1, 5, 1)
    scores = torch.einsum("btd,btdw->btw", q, k) / math.sqrt(q.size(-1))
    return torch.einsum("btw,btdw->btd", scores.softmax(-1), v)


def _temporal_shift(m: Any, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 1:, :2] = x[:, :-1, :2]
    y[:, :, 2:] = x[:, :, 2:]
    return x + m.l(y)


def _keywords(m: Any, x: Any) -> Any:
    y, h = m.g(torch.cat([x["mel"], x["pitch"].unsqueeze(-1)], dim=-1))
    return Scored(m.o(y).squeeze(-1), h)


def _gaps(m: Any, x: Tensor) -> Tensor:
    """Missing values: the last one that was seen, and for how long there was none."""
    seen = x.isnan().logical_not()
    last, age, out = torch.zeros(x.shape[0], 4), torch.zeros(x.shape[0], 4), []
    for t in range(x.shape[1]):
        last = torch.where(seen[:, t], x[:, t], last)
        age = torch.where(seen[:, t], torch.zeros_like(age), age + 1)
        out.append(torch.cat([last, torch.exp(-F.relu(m.d(age)))], 1))
    return m.g(torch.stack(out, 1))[0]


def _first_expert(m: Any, x: Tensor) -> Tensor:
    number = F.one_hot(m.w(x).argmax(-1), 3).to(x.dtype)
    return (torch.stack([e(x) for e in m.e], -2) * number[..., None]).sum(-2)


def _rotary(m: Any, x: Tensor) -> Tensor:
    t = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
    freqs = torch.outer(t, 1.0 / (100 ** (torch.arange(0, 4, 2, dtype=x.dtype) / 4)))
    angles = torch.cat((freqs, freqs), dim=-1)
    a, b = x.chunk(2, dim=-1)
    return m.g(x * angles.cos() + torch.cat((-b, a), dim=-1) * angles.sin())[0]


def _kalman(m: Any, x: Tensor) -> Tensor:
    eye, state = torch.eye(3, dtype=x.dtype), torch.zeros(x.shape[0], 3, 1, dtype=x.dtype)
    cov, out = eye.expand(x.shape[0], 3, 3), []
    for t in range(x.shape[1]):
        state, cov = m.p.f @ state, m.p.f @ cov @ m.p.f.mT + 0.1 * eye
        gain = cov @ m.p.h.mT / (m.p.h @ cov @ m.p.h.mT + 1)
        state = state + gain * (x[:, t, :, None] - m.p.h @ state)
        cov = (eye - gain @ m.p.h) @ cov
        out.append(state[..., 0])
    return torch.stack(out, 1)


def _hangover(m: Any, x: Tensor) -> Any:
    loud = torch.sigmoid(m.o(m.g(x)[0])).squeeze(-1) > 0.5
    left, out = torch.zeros(x.shape[0]), []
    for t in range(x.shape[1]):
        left = torch.where(loud[:, t], torch.full_like(left, 5.0), (left - 1).clamp(min=0))
        out.append(left > 0)
    return torch.stack(out, 1)


def _biquad(m, x):
    x1 = x2 = y1 = y2 = torch.zeros(x.shape[0])
    out = []
    for t in range(x.shape[1]):
        u = x[:, t]
        y = 0.2 * u + 0.3 * x1 + 0.2 * x2 + 0.5 * y1 - 0.2 * y2
        x2, x1, y2, y1 = x1, u, y1, y
        out.append(y)
    return torch.stack(out, 1)


def _delay_line(m, x):
    """Comb filter with a deque."""

    d = deque([torch.zeros(x.shape[0])] * 4, maxlen=4)
    out = []
    for t in range(x.shape[1]):
        y = x[:, t] + 0.5 * d[0]
        d.append(y)
        out.append(y)
    return torch.stack(out, 1)


def _mixed(m, x):
    h = [torch.zeros(x.shape[0], 5), torch.ones(x.shape[0], 5), torch.full((x.shape[0], 5), 0.5)]
    for t in range(x.shape[1]):
        h.append(torch.tanh(m.c(x[:, t], h[-1]) + h[-2] * 0.3 - h[-3]))
    return torch.stack(h[3:], 1), h[-1]


def _vq2(m, x):
    z = m.l(x)
    d = z.pow(2).sum(-1, keepdim=True) - 2 * z @ m.p.code.t() + m.p.code.pow(2).sum(-1)
    i = d.argmin(-1)
    return m.p.code[i], i


def _delta(m, x):
    d = x - F.pad(x, (0, 0, 1, 0))[:, :-1]
    dd = torch.diff(d, dim=1, prepend=torch.zeros_like(d[:, :1]))
    return m.l(torch.cat([x, d, dd], -1))


class NoState(nn.Module):
    """A loop over a cell that is given no state at first."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.o = nn.LSTMCell(4, 5), L(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        state, out = None, []
        for t in range(x.size(1)):
            state = self.c(x[:, t], state)
            out.append(self.o(state[0]))
        return torch.stack(out, 1)


def _running(m: Any, x: Tensor) -> Any:
    y = m.l(x)
    kept = torch.where(y > 0, 0.9, 0.1).cumprod(1)
    fade = 0.9 ** torch.arange(x.shape[1]).to(x)[:, None]
    return torch.cummax(y, dim=1).values, torch.cumsum(y > 0, dim=1), kept, y * fade, torch.ones(3)


def _looks(m: Any, x: Tensor) -> Any:
    with torch.no_grad():
        y = m.n(x.narrow(1, 1, 3)).transpose(1, 2)
    variance, mean = torch.var_mean(y, -1)
    odd = (y > 0).any(-1) ^ (y > 1).all(-1)
    return torch.outer(m.w.a, m.w.b), torch.stack([variance, mean], -1), odd


def _over_itself(m: Any, x: Tensor) -> Tensor:
    """In place, from copies of other places of the same tensor and from places that nothing is written to."""
    y = m.l(x)
    y[..., 1:] = y[..., :-1].clone()
    y[..., 2:] = y[..., :-2] * 0.5
    y[..., :2] *= y[..., 2:]
    return y


def _many(make: Any, count: int = 3) -> nn.ModuleList:
    return nn.ModuleList([make(n) for n in range(count)])


def _gru(i: int, o: int) -> nn.GRU:
    return nn.GRU(i, o, batch_first=True)


X = lambda: R(2, 9, 4)  # noqa: E731

NEIGHBOURS: dict[str, tuple[Any, ...]] = {
    "gated skips": (gated_skips, lambda: R(2, 2, 9), {"time": 2}),
    "linear recurrent unit": (
        lambda: Function(_lru, p=Weights(nu=(5,), theta=(5,), br=(4, 5), bi=(4, 5), cr=(5, 4), ci=(5, 4), d=(4,))),
        X,
    ),
    "Mogrifier": (lambda: Function(_mogrifier, c=nn.LSTMCell(4, 5), r=nn.ModuleList([L(5, 4), L(4, 5)])), X),
    "attention over a window": (lambda: Function(_window_attention, q=L(4, 4), k=L(4, 4), v=L(4, 4)), X),
    "temporal shift": (lambda: Function(_temporal_shift, l=L(4, 4)), X),
    "dict in, named tuple out": (
        lambda: Function(_keywords, g=_gru(4, 5), o=L(5, 1)),
        lambda: ({"mel": R(2, 9, 3), "pitch": R(2, 9)},),
    ),
    "gaps": (lambda: Function(_gaps, d=L(4, 4), g=_gru(8, 5)), X),
    "one expert": (lambda: Function(_first_expert, w=L(4, 3), e=_many(lambda n: L(4, 4))), X),
    "rotary": (lambda: Function(_rotary, g=_gru(4, 5)), X),
    "Kalman": (lambda: Function(_kalman, p=Weights(f=(3, 3), h=(1, 3))), lambda: R(2, 9, 1)),
    "hangover": (lambda: Function(_hangover, g=_gru(4, 5), o=L(5, 1)), X),
    "biquad": (lambda: Function(_biquad), lambda: R(2, 9)),
    "delay line": (lambda: Function(_delay_line), lambda: R(2, 9)),
    "three states back": (lambda: Function(_mixed, c=nn.GRUCell(4, 5)), X),
    "no state at first": (NoState, X),
    "far back": (
        lambda: Function(lambda m, x: m.c(F.pad(x, (600, 0))), c=nn.Conv1d(2, 2, 2, dilation=600)),
        lambda: R(2, 2, 9),
        {"time": 2},
    ),
    "over itself": (lambda: Function(_over_itself, l=L(4, 4)), X),
    "nearest code": (lambda: Function(_vq2, l=L(4, 3), p=Weights(code=(6, 3))), X),
    "differences of differences": (lambda: Function(_delta, l=L(12, 3)), X),
    "running": (lambda: Function(_running, l=L(4, 3)), X),
    "looks": (
        lambda: Function(_looks, n=nn.InstanceNorm1d(3, track_running_stats=True), w=Weights(a=(2,), b=(3,))),
        lambda: R(2, 4, 9),
        {"time": 2},
    ),
}
