"""More causal models in other people's handwriting: counters, places of the largest, given states, memory written in
place, rates that meet again; and what is refused of them."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from program_networks import CausalConv, Function

Frame = namedtuple("Frame", "mel pitch")


@dataclass
class Record:
    mel: Tensor


class Weights(nn.Module):
    """Plain parameters by name, for cells written by hand."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape) * 0.3))


def _tempo(m: Any, x: Tensor) -> Any:
    y = x.transpose(1, 2)
    y = (y + F.elu(m.a(y)) + F.elu(m.b(y))).transpose(1, 2)
    value, place = y.max(-1)
    return m.o(y).argmax(-1), value, place, y.min(dim=1).values, y.argmin(-1, keepdim=True)


def _cumulative_norm(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    count = torch.arange(1, y.shape[2] + 1, dtype=y.dtype, device=y.device) * y.shape[1]
    mean = y.sum(1).cumsum(1) / count
    variance = y.pow(2).sum(1).cumsum(1) / count - mean**2
    return (y - mean.unsqueeze(1)) / torch.sqrt(variance.unsqueeze(1) + 1e-5)


def _sinusoids(m: Any, x: Tensor) -> Tensor:
    t = torch.arange(x.shape[1], dtype=x.dtype).unsqueeze(1)
    rate = torch.exp(torch.arange(0, 4, 2).to(x) * -0.5)
    positions = torch.zeros(x.shape[1], 4, dtype=x.dtype)
    positions[:, 0::2], positions[:, 1::2] = torch.sin(t * rate), torch.cos(t * rate)
    return m.g(x + positions)[0]


def _linear_attention(m: Any, x: Tensor) -> Tensor:
    q, k, v = F.elu(m.q(x)) + 1, F.elu(m.k(x)) + 1, m.v(x)
    memory = torch.einsum("btd,bte->btde", k, v).cumsum(1)
    z = 1 / (torch.einsum("btd,btd->bt", q, k.cumsum(1)) + 1e-6)
    return torch.einsum("btd,btde,bt->bte", q, memory, z)


def _fast_weights(m: Any, x: Tensor) -> Tensor:
    q, k, v, out = m.q(x).softmax(-1), m.k(x).softmax(-1), m.v(x), []
    memory = x.new_zeros(x.shape[0], 5, 3)
    for t in range(x.shape[1]):
        memory = 0.9 * memory + torch.einsum("bd,be->bde", k[:, t], v[:, t])
        out.append(torch.bmm(q[:, t].unsqueeze(1), memory).squeeze(1))
    return torch.stack(out, 1)


def _minimal(m: Any, x: Tensor) -> Tensor:
    z, n = torch.sigmoid(m.z(x)), m.h(x)
    h, out = torch.full((x.shape[0], 6), 0.5, dtype=x.dtype), torch.empty(x.shape[0], x.shape[1], 6, dtype=x.dtype)
    for t in range(x.shape[1]):
        h = torch.lerp(h, n[:, t], z[:, t])
        out[:, t] = h
    return m.o(out)


def _peepholes(m: Any, x: Tensor) -> Tensor:
    h = c = torch.zeros(x.shape[0], 5).to(x)
    out = []
    for frame in x.permute(1, 0, 2):
        i, f, g, o = torch.split(frame @ m.w.x + h @ m.w.h, 5, 1)
        i, f = torch.sigmoid(i + m.w.p[0] * c), torch.sigmoid(f + m.w.p[1] * c)
        c = f * c + i * torch.tanh(g)
        h = torch.sigmoid(o + m.w.p[2] * c) * torch.tanh(c)
        out.append(h)
    return torch.stack(out).permute(1, 0, 2)


def _last_states(m: Any, x: Tensor) -> Tensor:
    h, memory, out = x.new_zeros(x.shape[0], 5), x.new_zeros(x.shape[0], 4, 5), []
    for t in range(x.shape[1]):
        weights = torch.softmax(torch.bmm(memory, m.q(h).unsqueeze(2)).squeeze(2), 1)
        h = m.c(torch.cat([x[:, t], (weights.unsqueeze(2) * memory).sum(1)], 1), h)
        memory = torch.cat([memory[:, 1:], h.unsqueeze(1)], 1)
        out.append(h)
    return torch.stack(out, 1)


def _layers_in_one(m: Any, x: Tensor) -> Any:
    states, out = torch.zeros(2, x.shape[0], 5, dtype=x.dtype), []
    for t in range(x.shape[1]):
        y = x[:, t]
        for n, cell in enumerate((m.a, m.b)):
            states[n] = cell(y, states[n])
            y = states[n]
        out.append(y + states[0])
    return torch.stack(out, 1), states


def _own_symbol(m: Any, x: Tensor) -> Tensor:
    h, y, out = x.new_zeros(x.shape[0], 6), torch.zeros(x.shape[0], dtype=torch.long), []
    for t in range(x.shape[1]):
        h = m.c(torch.cat([x[:, t], m.e(y)], -1), h)
        out.append(m.o(h))
        y = out[-1].argmax(dim=-1)
    return torch.stack(out, 1)


def _companded(m: Any, x: Tensor) -> Any:
    y = torch.sign(x) * torch.log1p(15 * x.abs().clamp(max=1)) / 2.772588722239781
    symbols = ((y + 1) / 2 * 15 + 0.5).long()
    return m.g(m.e(symbols))[0], symbols


def _two_rates_meet(m: Any, x: Tensor) -> Tensor:
    b, t, f = x.shape
    slow = m.slow(x.reshape(b, t // 2, 2 * f))[0].repeat_interleave(2, dim=1)
    return m.o(torch.cat([m.fast(x)[0], F.pad(slow, (0, 0, 2, 0))[:, :-2]], -1))


def _hops(m: Any, x: Tensor) -> Tensor:
    y = x.transpose(1, 2)
    z = F.pad(F.interpolate(m.d(y), scale_factor=4, mode="nearest"), (4, 0))[..., : y.shape[-1]]
    return m.o(torch.cat([y, z], 1)).transpose(1, 2)


def _bands(m: Any, x: Tensor) -> Tensor:
    y = F.interpolate(F.relu(m.d(F.pad(x, (0, 0, 1, 0)))), scale_factor=(1, 2))
    return m.o(y).repeat_interleave(2, 1).sum(1, keepdim=True) * x


def _scaled_in_place(m: Any, x: Tensor) -> Tensor:
    y = x.clone()
    y -= m.n.bias
    y.clamp_(-3, 3)
    z, _ = m.g(y)
    kept = z.clone()
    z.mul_(2).add_(x)
    z[:, :, :2] += y[:, :, 2:]
    return torch.cat([z, kept], -1)


def _density(m: Any, x: Tensor) -> Tensor:
    y = m.o(m.g(x)[0])
    return torch.distributions.Normal(y[..., :2], F.softplus(y[..., 2:]) + 1e-3, False).log_prob(x[..., :2]).sum(-1)


def _given(m: Any, x: Tensor, h: Tensor) -> Any:
    y, h = m.g(x, h)
    return m.o(y), h


def _given_to_a_loop(m: Any, x: Tensor, h: Tensor) -> Any:
    out = []
    for t in range(x.shape[1]):
        h = m.c(x[:, t], h)
        out.append(h)
    return torch.stack(out, 1), h


def _named(m: Any, x: Any) -> Tensor:
    return m.g(torch.cat([x.mel, x.pitch], -1))[0]


R, L, T = torch.randn, nn.Linear, torch.randint


def _gru(i: int, o: int, layers: int = 1) -> nn.GRU:
    return nn.GRU(i, o, layers, batch_first=True)


STRANGERS: dict[str, tuple[Any, ...]] = {
    "tempo": (
        lambda: Function(_tempo, a=CausalConv(6, 6, 3), b=CausalConv(6, 6, 3, 4), o=L(6, 5)),
        lambda: R(2, 9, 6),
    ),
    "cumulative norm": (lambda: Function(_cumulative_norm, c=CausalConv(4, 4, 3)), lambda: R(2, 4, 9), {"time": 2}),
    "sinusoids": (lambda: Function(_sinusoids, g=_gru(4, 4)), lambda: R(2, 9, 4)),
    "linear attention": (lambda: Function(_linear_attention, q=L(4, 5), k=L(4, 5), v=L(4, 3)), lambda: R(2, 9, 4)),
    "fast weights": (lambda: Function(_fast_weights, q=L(4, 5), k=L(4, 5), v=L(4, 3)), lambda: R(2, 9, 4)),
    "minimal GRU": (lambda: Function(_minimal, z=L(4, 6), h=L(4, 6), o=L(6, 3)), lambda: R(2, 9, 4)),
    "peepholes": (lambda: Function(_peepholes, w=Weights(x=(4, 20), h=(5, 20), p=(3, 5))), lambda: R(2, 9, 4)),
    "attention over the last states": (
        lambda: Function(_last_states, c=nn.GRUCell(9, 5), q=L(5, 5)),
        lambda: R(2, 9, 4),
    ),
    "states of layers in one tensor": (
        lambda: Function(_layers_in_one, a=nn.GRUCell(4, 5), b=nn.GRUCell(5, 5)),
        lambda: R(2, 9, 4),
    ),
    "its own symbol": (
        lambda: Function(_own_symbol, e=nn.Embedding(5, 3), c=nn.GRUCell(7, 6), o=L(6, 5)),
        lambda: R(2, 9, 4),
    ),
    "companded": (lambda: Function(_companded, e=nn.Embedding(16, 4), g=_gru(4, 5)), lambda: R(2, 9)),
    "two rates meet": (
        lambda: Function(_two_rates_meet, slow=_gru(8, 5), fast=_gru(4, 5), o=L(10, 3)),
        lambda: R(2, 8, 4),
    ),
    "hops": (lambda: Function(_hops, d=nn.Conv1d(4, 5, 4, 4), o=nn.Conv1d(9, 3, 1)), lambda: R(2, 12, 4)),
    "bands": (
        lambda: Function(_bands, d=nn.Conv2d(1, 3, (2, 3), (1, 2), (0, 1)), o=nn.Conv2d(3, 1, 1)),
        lambda: R(2, 1, 9, 8),
        {"time": 2},
    ),
    "scaled in place": (lambda: Function(_scaled_in_place, g=_gru(4, 4), n=L(1, 4)), lambda: R(2, 9, 4)),
    "density": (lambda: Function(_density, g=_gru(4, 6), o=L(6, 4)), lambda: R(2, 9, 4)),
    "given state": (
        lambda: Function(_given, g=_gru(4, 5, 2), o=L(5, 2)),
        lambda: (R(2, 9, 4), R(2, 2, 5)),
        {"time": {"x": 1}, "states": {"other": 1}},
    ),
    "given state of a loop": (
        lambda: Function(_given_to_a_loop, c=nn.GRUCell(4, 5)),
        lambda: (R(2, 9, 4), R(2, 5)),
        {"time": 1, "states": {"other": 1}},
    ),
    "named tuple": (lambda: Function(_named, g=_gru(5, 6)), lambda: (Frame(R(2, 9, 3), R(2, 9, 2)),)),
}


def _another_first_round(m: Any, x: Tensor) -> Tensor:
    z, f = m.z(x).tanh(), m.f(x).sigmoid()
    c, out = None, []
    for n, keep in zip(z.unbind(1), f.unbind(1)):
        c = (1 - keep) * n if c is None else keep * c + (1 - keep) * n
        out.append(c)
    return torch.stack(out, 1)


STRANGE: dict[str, tuple[Any, ...]] = {
    "another first round": (
        lambda: Function(_another_first_round, z=L(4, 5), f=L(4, 5)),
        lambda: R(2, 9, 4),
        {},
        "all of which do the same: begin with zeros",
    ),
    "table of positions": (
        lambda: Function(lambda m, x: m.g(x + m.p(torch.arange(x.shape[1])))[0], g=_gru(4, 4), p=nn.Embedding(999, 4)),
        lambda: R(2, 9, 4),
        {},
        "looks up the number of the step in a table",
    ),
    "part of a table": (
        lambda: Function(lambda m, x: m.g(x + m.p.weight[: x.shape[1]])[0], g=_gru(4, 4), p=nn.Embedding(999, 4)),
        lambda: R(2, 9, 4),
        {},
        "numbers the steps of a sequence",
    ),
    "parallel scan": (
        lambda: Function(lambda m, x: m.l(x).logcumsumexp(1), l=L(4, 4)),
        lambda: R(2, 9, 4),
        {},
        "logcumsumexp.*is not among the operations",
    ),
    "masked attention": (
        lambda: Function(lambda m, x: (m.l(x) @ x.mT).tril().softmax(-1) @ x, l=L(4, 4)),
        lambda: R(2, 9, 4),
        {},
        "each step with every other one",
    ),
    "given state without a name": (
        lambda: Function(_given, g=_gru(4, 5, 2), o=L(5, 2)),
        lambda: (R(2, 9, 4), R(2, 2, 5)),
        {},
        "is an input: name it in states=, beside time=",
    ),
}
