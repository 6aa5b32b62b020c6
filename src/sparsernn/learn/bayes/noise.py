"""The samples of one forward of a model to which a Bayesian sparsifier is attached: one weight sample a batch, one
multiplier sample a sequence, each drawn when it is first asked for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .multipliers import Multipliers, factor_of


@dataclass
class Draw:
    """The samples of one forward of the model. Each is drawn when it is first asked for, and is the same again."""

    sigmas: Mapping[str, Tensor]  # parameter -> log sigma of its weights
    kinds: Mapping[str, Multipliers]
    generator: torch.Generator | None  # None: the means
    _sequences: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    _batches: dict[str, Tensor] = field(default_factory=dict)

    def normal(self, like: Tensor) -> Tensor:
        return torch.empty_like(like, requires_grad=False).normal_(generator=self.generator)

    def around(self, mean: Tensor, log_sigma: Tensor) -> Tensor:
        """A sample of N(mean, exp(log_sigma)^2), differentiable in both."""
        return mean if self.generator is None else torch.addcmul(mean, log_sigma.exp(), self.normal(mean))

    def weight(self, name: str, mean: Tensor) -> Tensor:
        """The batch's sample of a parameter with all multipliers that scale its slices."""
        value = self.around(mean, self.sigmas[name]) if name in self.sigmas else mean
        return functools.reduce(torch.mul, self.factors(name, mean), value)

    def factors(self, name: str, like: Tensor) -> list[Tensor]:
        """Multipliers of slices of a parameter, one sample for the batch, without those that a forward applies."""
        found = []
        for kind, own in self.kinds.items():
            parts = own.parts_of(name)
            if not parts or bool(own.alone.all()):
                continue
            if kind not in self._batches:
                self._batches[kind] = torch.where(own.alone, 1.0, self.around(own.mean, own.log_sigma))
            found += [factor_of(part, self._batches[kind].to(like.dtype), like) for part in parts]
        return found

    def each(self, kind: str, units: Tensor, sequences: int) -> Tensor | None:
        """Multipliers of `units` for each sequence, (sequences, len(units)), 1 where a unit has none; None: none."""
        own = self.kinds.get(kind)
        if own is None or not bool(((units >= 0) & own.alone[units].cpu()).any()):
            return None
        if (kind, sequences) not in self._sequences:
            mean = own.mean.expand(sequences, -1)
            sample = torch.where(own.alone, self.around(mean, own.log_sigma), 1.0)
            self._sequences[kind, sequences] = torch.nn.functional.pad(sample, (0, 1), value=1.0)
        return self._sequences[kind, sequences][:, units.to(own.mean.device)]
