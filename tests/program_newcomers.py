"""Causal models of detectors, policies and codecs: what begins with the first frame or with a condition, decibels,
tables of numbers, constants made in forward, ends that are shifted; and what is refused of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from program_networks import CausalConv, Function
from program_strangers import Weights

R, L = torch.randn, nn.Linear


def _gru(i: int, o: int) -> nn.GRU:
    return nn.GRU(i, o, batch_first=True)


def _detector(m: Any, x: Tensor) -> Any:
    mel = torch.log10((x.abs().pow(2) @ m.w.mel.abs()).clamp(min=1e-10))
    y, h = m.g(F.gelu(m.p((mel + 4.0) / 4.0)))
    p = torch.sigmoid(m.c(y)).squeeze(-1)
    return p, (p > 0.5).float(), h


def _level(m: Any, x: Tensor) -> Tensor:
    """Less a level that begins as the first frame."""
    level, out = x[:, 0], []
    for t in range(x.shape[1]):
        level = 0.9 * level + 0.1 * x[:, t]
        out.append(x[:, t] - level)
    return m.l(torch.stack(out, 1))


def _speaker(m: Any, x: Tensor, speaker: Tensor) -> Tensor:
    """Modulated by a speaker, who also gives the first state, of a layer and of a loop."""
    e = m.e(speaker)
    a, b = m.f(e).unsqueeze(1).chunk(2, -1)
    y, h, out = m.g(x * (1 + a) + b, torch.tanh(m.h(e)).unsqueeze(0))[0], m.h(e), []
    for frame in y.unbind(1):
        h = m.c(frame, h)
        out.append(h)
    return torch.stack(out, 1)


def _shifted_states(m: Any, tokens: Tensor) -> Any:
    """A transducer's predictor: the symbol before, and the states behind the last one."""
    y, states = m.g(F.pad(m.e(tokens), (0, 0, 1, 0))[:, :-1])
    return m.n(y), states


def _episodes(m: Any, x: Tensor, done: Tensor) -> Any:
    """States are kept where no episode ended; deviations are the same at each step."""
    h = c = torch.zeros(1, x.shape[1], 5)
    out = []
    for frame, end in zip(x, done):
        keep = (1.0 - end).view(1, -1, 1)
        y, (h, c) = m.g(frame.unsqueeze(0), (keep * h, keep * c))
        out += [y]
    mean = m.p(torch.cat(out, 0))
    return {"mean": mean, "deviation": m.w.log.exp().expand_as(mean)}


def _steps_of_a_codec(m: Any, codes: Tensor) -> Tensor:
    index, y, out = torch.zeros(codes.shape[0], dtype=torch.long), torch.zeros(codes.shape[0]), []
    more = torch.tensor([-1, -1, 2, 4])
    for t in range(codes.shape[1]):
        y = 0.9 * y + (codes[:, t] - 1.5) * m.w.steps[index].abs()
        index = (index + more[codes[:, t]]).clamp(0, 19)
        out.append(y)
    return torch.stack(out, 1)


def _made_in_forward(m: Any, x: Tensor) -> Tensor:
    gains = torch.zeros(4, dtype=x.dtype)
    gains[1:] = 0.5
    return F.prelu(m.c(x.mT).mT, torch.tensor([0.25], dtype=x.dtype)) * gains + x[..., :1] - x[:, :1]


def _numbers(m: Any, x: Tensor) -> Any:
    y = F.hardshrink(x) + F.softshrink(x) + F.tanhshrink(x) + torch.exp2(x) + torch.log2(x.abs() + 1).trunc()
    pair = torch.hypot(x[..., 0], x[..., 1]), x[..., 2].frac(), torch.tan(x[..., 3] / 9)
    index = (x[..., 0] * 5).long() % 3
    bad = torch.log(x)  # not a number below zero
    return y, pair, index, torch.nan_to_num(bad, nan=-1.0), bad.isfinite(), torch.isinf(1 / x.relu())


def _pooled_so_far(m: Any, x: Tensor) -> Any:
    y = m.c(x.transpose(1, 2))
    return m.l(F.adaptive_max_pool1d(y, 1).squeeze(-1)), m.l(F.adaptive_avg_pool1d(y, 1).flatten(1))


X = lambda: R(2, 9, 4)  # noqa: E731
NEWCOMERS: dict[str, tuple[Any, ...]] = {
    "detector": (
        lambda: Function(_detector, w=Weights(mel=(6, 5)), p=L(5, 8), g=_gru(8, 5), c=L(5, 1)),
        lambda: R(2, 9, 6),
    ),
    "less its level": (lambda: Function(_level, l=L(4, 4)), X),
    "less the first frame": (lambda: Function(lambda m, x: m.l(x - x[:, :1]), l=L(4, 3)), X),
    "state of the first frame": (
        lambda: Function(lambda m, x: m.g(x, torch.tanh(m.i(x[:, 0]))[None])[0], g=_gru(4, 5), i=L(4, 5)),
        X,
    ),
    "first state of a speaker": (
        lambda: Function(_speaker, e=nn.Embedding(4, 3), f=L(3, 8), h=L(3, 5), g=_gru(4, 5), c=nn.GRUCell(5, 5)),
        lambda: (R(2, 9, 4), torch.tensor([1, 3])),
        {"time": {"x": 1, "other": None}},
    ),
    "states behind a shift": (
        lambda: Function(_shifted_states, e=nn.Embedding(9, 4), g=nn.LSTM(4, 5, batch_first=True), n=nn.LayerNorm(5)),
        lambda: torch.randint(9, (2, 9)),
    ),
    "episodes": (
        lambda: Function(_episodes, g=nn.LSTM(4, 5), p=L(5, 2), w=Weights(log=(2,))),
        lambda: (R(9, 2, 4), (torch.rand(9, 2) > 0.8).float()),
        {"time": 0},
    ),
    "steps of a codec": (lambda: Function(_steps_of_a_codec, w=Weights(steps=(20,))), lambda: torch.randint(4, (2, 9))),
    "made in forward": (lambda: Function(_made_in_forward, c=CausalConv(4, 4, 3)), X),
    "numbers": (lambda: Function(_numbers), X),
    "pooled so far": (lambda: Function(_pooled_so_far, c=CausalConv(4, 4, 3), l=L(4, 2)), X),
}


def _each_three_hundredth(m: Any, x: Tensor) -> Tensor:
    h, out = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        h = x[:, t] if t % 300 == 299 else 0.9 * h + x[:, t]
        out.append(h)
    return torch.stack(out, 1)


class Longest(nn.Module):
    """No more steps than an attribute says."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.longest = _gru(4, 5), 400

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x[:, : self.longest])[0]


NOT_NEWCOMERS: dict[str, tuple[Any, ...]] = {
    "longer than a number": (
        lambda: Function(lambda m, x: m.g(x)[0] * (1 if x.shape[1] > 300 else 2), g=_gru(4, 5)),
        X, {}, "gives another output0 than the whole call",
    ),
    "no more than so many steps": (Longest, X, {}, "has 400 elements: it ends at a fixed number of steps"),
    "whole parts of quotients": (
        lambda: Function(lambda m, x: m.g(x // 0.1)[0], g=_gru(4, 5)), X, {}, "1.0 // 0.1 is 9 in torch"
    ),
    "each three hundredth step": (lambda: Function(_each_three_hundredth), X, {}, "gives another output0"),
}  # fmt: skip
