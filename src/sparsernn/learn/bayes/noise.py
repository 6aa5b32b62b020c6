"""What runs while a Bayesian sparsifier is attached: one weight sample a batch, one multiplier sample a sequence.

Hooks on the root put samples in the place of the weights before its forward in training mode, and take them away after
it, so that the model that is saved, copied or evaluated holds the means and nothing else. Modules whose sample is
cheaper or better drawn on the way (`layers`) have another forward for that time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

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


Forward = Callable[..., Any]
Place = tuple[nn.Module, str]


class Noise:
    """Swaps samples in and out around the root's forward."""

    def __init__(
        self,
        root: nn.Module,
        swapped: Iterable[str],
        forwards: Mapping[nn.Module, Callable[[Draw], Forward]],
        draw: Callable[[], Draw],
    ) -> None:
        self.root = root
        self.forwards = dict(forwards)
        self.draw = draw
        owners: dict[int, list[Place]] = {}
        for module in root.modules():
            for local, parameter in module._parameters.items():
                owners.setdefault(id(parameter), []).append((module, local))
        parameters = dict(root.named_parameters())
        self.swapped = {name: owners[id(parameters[name])] for name in swapped}
        self._depth = 0
        self._handles: list[RemovableHandle] = []
        self._saved: list[tuple[nn.Module, str, nn.Parameter]] = []
        self._flat: list[tuple[Any, list[Any]]] = []

    def attach(self) -> None:
        self._handles = [
            self.root.register_forward_pre_hook(_Hook(self.enter)),
            self.root.register_forward_hook(_Hook(self.leave), always_call=True),
        ]

    def is_taken(self) -> bool:
        """True if the root's forward runs on samples already, this one's or another's."""
        return any(isinstance(hook, _Hook) and hook.live for hook in self.root._forward_pre_hooks.values())

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def enter(self, module: nn.Module, *_: Any) -> None:
        """Before the root's forward: put samples in place, in training mode only."""
        # A replica of DataParallel shares the hooks, but holds other weights.
        if module is not self.root or not module.training:
            return
        self._depth += 1
        if self._depth == 1:
            self._put(self.draw())

    def leave(self, module: nn.Module, *_: Any) -> None:
        """After it, also after one that raised: the parameters are back."""
        if module is not self.root or not self._depth:
            return
        self._depth -= 1
        if not self._depth:
            self._restore()

    def _put(self, draw: Draw) -> None:
        samples: dict[int, Tensor] = {}
        for name, places in self.swapped.items():
            parameter = places[0][0]._parameters[places[0][1]]
            assert parameter is not None
            samples[id(parameter)] = draw.weight(name, parameter)
            for module, local in places:
                self._saved.append((module, local, parameter))
                module._parameters[local] = samples[id(parameter)]  # type: ignore[assignment]
        for module in {module for module, _, _ in self._saved}:
            if isinstance(module, nn.RNNBase):
                recurrent: Any = module
                self._flat.append((recurrent, recurrent._flat_weights))
                recurrent._flat_weights = [samples.get(id(w), w) for w in recurrent._flat_weights]
        for module, make in self.forwards.items():
            module.forward = make(draw)

    def _restore(self) -> None:
        for module, local, parameter in self._saved:
            module._parameters[local] = parameter
        for module, flat in self._flat:
            module._flat_weights = flat
        for module in self.forwards:
            module.__dict__.pop("forward", None)
        self._saved, self._flat = [], []


class _Hook:
    """A hook that does nothing in copies of the model: they hold the means."""

    def __init__(self, call: Callable[..., None] | None = None) -> None:
        self._call = call

    @property
    def live(self) -> bool:
        return self._call is not None

    def __call__(self, *args: Any) -> None:
        if self._call is not None:
            self._call(*args)

    def __deepcopy__(self, memo: Any) -> _Hook:
        return _Hook()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, ()
