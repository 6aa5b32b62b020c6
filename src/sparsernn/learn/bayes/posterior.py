"""The posterior of a model: log sigmas of its weights and the multipliers of its inputs, words, gates and units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from .multipliers import Multipliers
from .variational import add_slopes, divergence, log_alpha


@dataclass(frozen=True)
class Posterior:
    """`sigmas`: name of a weight matrix -> log sigma of its elements; `kinds`: the multipliers by their kind."""

    sigmas: dict[str, nn.Parameter]
    kinds: dict[str, Multipliers]

    @classmethod
    def of(
        cls, weights: Iterable[str], kinds: dict[str, Multipliers], parameters: Mapping[str, Tensor], log_sigma: float
    ) -> Self:
        return cls({name: nn.Parameter(torch.full_like(parameters[name], log_sigma)) for name in weights}, kinds)

    @property
    def log_sigmas(self) -> list[nn.Parameter]:
        return [*self.sigmas.values(), *(own.log_sigma for own in self.kinds.values())]

    @property
    def means(self) -> list[nn.Parameter]:
        return [own.mean for own in self.kinds.values()]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that an optimizer has to know."""
        return [*self.log_sigmas, *self.means]

    def pairs(self, parameters: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(mean, log sigma) of everything that has a posterior."""
        found: list[tuple[Tensor, Tensor]] = [(parameters[name], sigma) for name, sigma in self.sigmas.items()]
        return found + [(own.mean, own.log_sigma) for own in self.kinds.values()]

    def divergence(self, parameters: Mapping[str, Tensor]) -> Tensor:
        values = [divergence(mean, sigma) for mean, sigma in self.pairs(parameters)]
        return torch.stack([value.to(values[0].device) for value in values]).sum()

    def add_gradient(self, parameters: Mapping[str, Tensor], scale: Tensor | float) -> None:
        """Add `scale` times the divergence's gradient to the gradients of weights and posterior."""
        for mean, sigma in self.pairs(parameters):
            for value in (mean, sigma):
                if value.grad is None:
                    value.grad = torch.zeros_like(value)
                elif value.grad.is_sparse:
                    value.grad = value.grad.to_dense()
            assert mean.grad is not None and sigma.grad is not None
            add_slopes(mean, sigma, scale, mean.grad, sigma.grad)

    def absorb(self, parameters: Mapping[str, Tensor]) -> None:
        for own in self.kinds.values():
            own.absorb(parameters, self.sigmas)

    @torch.no_grad()
    def masks(self, parameters: Mapping[str, Tensor], threshold: float) -> dict[str, Tensor]:
        """Parameter -> bool, False where log alpha of the weight or of a multiplier of it reaches `threshold`."""
        masks = {name: log_alpha(parameters[name], sigma) < threshold for name, sigma in self.sigmas.items()}
        for own in self.kinds.values():
            there = (log_alpha(own.mean, own.log_sigma) < threshold).to(own.mean)
            for part in own.parts:
                name = part.parameter
                value = masks[name].to(there) if name in masks else torch.ones_like(parameters[name], dtype=there.dtype)
                part.multiply(value, part.spread(there, 1.0))
                masks[name] = value != 0
        return masks
