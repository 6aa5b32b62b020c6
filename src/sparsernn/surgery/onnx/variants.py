"""Inputs with other numbers to check with, in the range of those that were given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .call import Flat

Way = Callable[[Tensor, torch.Generator], Tensor]


class Variants:
    """For each input the first way of changing its numbers with which the model still runs and gives numbers.

    `matters`: whether changing an input alone moves the outputs at all.
    """

    def __init__(self, flat: Flat) -> None:
        want = flat.run(flat.examples)
        self.ways: list[Way] = []
        self.matters: list[bool] = []
        for n, value in enumerate(flat.examples):
            chosen, matters = _same, False
            for way in _ways(value):
                others = list(flat.examples)
                others[n] = way(value, torch.Generator().manual_seed(n))
                if torch.equal(others[n], value):
                    continue
                got = flat.attempt(others)
                if isinstance(got, tuple) and all(map(_as_finite, want, got)):
                    chosen = way
                    matters = len(got) != len(want) or not all(map(torch.equal, want, got))
                    break
            self.ways.append(chosen)
            self.matters.append(matters)

    def of(self, values: Sequence[Tensor], seed: int) -> list[Tensor]:
        """`values`, of any sizes, with other numbers."""
        generator = torch.Generator().manual_seed(seed)
        return [way(value, generator) for way, value in zip(self.ways, values)]


def _ways(value: Tensor) -> tuple[Way, ...]:
    if value.is_floating_point() or value.is_complex():
        return _noise, _scaled, _mixed
    if value.dtype != torch.bool and value.dim() == 1:
        return _halved, _mixed, _last
    return (_mixed, _last) if value.dim() else (_halved, _last)


def _noise(value: Tensor, generator: torch.Generator) -> Tensor:
    """A tenth of the largest; states of zero become states."""
    finite = value[torch.isfinite(value)].abs()
    largest = finite.max().item() if finite.numel() else 0.0
    return value + 0.1 * (largest or 1.0) * _normal(value, generator)


def _scaled(value: Tensor, generator: torch.Generator) -> Tensor:
    """In proportion to each number: signs and zeros stay."""
    return value * (1 + 0.1 * _normal(value, generator).clamp(-3, 3))


def _mixed(value: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(value.numel(), generator=generator)
    return value.flatten()[order].view(value.shape)


def _halved(value: Tensor, generator: torch.Generator) -> Tensor:
    """Lengths and indices of vectors: smaller, in the same order."""
    return torch.where(value > 1, (value + 1) // 2, value) if value.dtype != torch.bool else value


def _last(value: Tensor, generator: torch.Generator) -> Tensor:
    """The last number alone, where all are one: a mask of ones, words that are all the first."""
    new = value.clone().reshape(-1)
    if len(new):
        new[-1] = ~new[-1] if value.dtype == torch.bool else new[-1] + 1
    return new.view(value.shape)


def _same(value: Tensor, generator: torch.Generator) -> Tensor:
    return value


def _normal(value: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value.dtype)


def _as_finite(want: Tensor, got: Tensor) -> bool:
    """No NaN or infinity where the example gives none."""
    return not bool(torch.isfinite(want).all()) or bool(torch.isfinite(got).all())
