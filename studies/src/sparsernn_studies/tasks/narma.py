"""NARMA-10, a nonlinear series that remembers ten steps (Atiya and Parlos, IEEE Trans. Neural Networks 11, 2000).

y[t+1] = .3 y[t] + .05 y[t] (y[t] + ... + y[t-9]) + 1.5 u[t-9] u[t] + .1, with u uniform in [0, .5].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ORDER = 10
BEFORE = 20  # steps at the start of a window that are not counted: the net can't know what stood before
LINEAR = 20  # inputs that the linear model looks back on


@dataclass(frozen=True)
class Series:
    """`u_N`: what drives the series; `y_N`: where it then stands, about its mean and in its deviation. float32."""

    u_N: Tensor
    y_N: Tensor

    def windows(self, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """u_TB1 and y_TB1 of the windows that begin there."""
        places_TB = starts[None, :] + torch.arange(length)[:, None]
        return self.u_N[places_TB][..., None], self.y_N[places_TB][..., None]


def series(length: int, seed: int) -> Series:
    """A series of `length` steps. A drive that makes it run away (about one in some thousands) is drawn anew."""
    while True:
        u_N = 0.5 * torch.rand(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        u, y = u_N.tolist(), [0.0] * ORDER
        for t in range(ORDER, length):
            y.append(0.3 * y[-1] + 0.05 * y[-1] * sum(y[-ORDER:]) + 1.5 * u[t - ORDER] * u[t - 1] + 0.1)
        y_N = torch.tensor(y, dtype=torch.float64)
        if float(y_N.abs().max()) < 2:
            y_N = (y_N - y_N.mean()) / y_N.std()
            return Series((4 * u_N - 1).float(), y_N.float())
        seed += 1_000_003


@dataclass(frozen=True)
class Following:
    """The training objective: mean squared error of y[t] from u up to t, on windows drawn by `seed` and the step."""

    series: Series
    batch_size: int
    length: int
    seed: int = 0

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """u_TB1 and y_TB1 of the step."""
        source = torch.Generator().manual_seed(self.seed * 7919 + 1_000_003 * (step + 1))
        last = len(self.series.u_N) - self.length
        starts_B = torch.randint(ORDER, last, (self.batch_size,), generator=source)
        return self.series.windows(starts_B[rank::world], self.length)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], state: Any) -> tuple[Tensor, Any]:
        """The batch's mean, a scalar; no state is carried on."""
        u_TB1, y_TB1 = batch
        return nn.functional.mse_loss(model(u_TB1)[BEFORE:], y_TB1[BEFORE:]), None


def _cut(series: Series, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    starts = torch.arange(ORDER, len(series.u_N) - length + 1, length - BEFORE)
    for chosen in starts.split(64):
        yield series.windows(chosen, length)


@torch.no_grad()
def error(model: nn.Module, series: Series, length: int = 220) -> float:
    """Mean squared error in shares of the variance, each step from at least `BEFORE` steps before it."""
    total, count = 0.0, 0
    for u_TB1, y_TB1 in _cut(series, length):
        off = (model(u_TB1) - y_TB1)[BEFORE:].double()
        total, count = total + float(off.square().sum()), count + off.numel()
    return total / count / float(series.y_N[ORDER:].double().var())


def linear_error(train: Series, test: Series) -> float:
    """The error of the best linear model of the last `LINEAR` inputs, by least squares."""

    def design(series: Series) -> tuple[Tensor, Tensor]:
        seen = series.u_N.double().unfold(0, LINEAR, 1)
        return torch.cat([seen, torch.ones(len(seen), 1, dtype=seen.dtype)], 1), series.y_N[LINEAR - 1 :].double()

    x, y = design(train)
    weights = torch.linalg.lstsq(x, y[:, None]).solution
    x, y = design(test)
    return float((x @ weights - y[:, None]).square().mean() / y.var())
