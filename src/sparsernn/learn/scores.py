"""Scores: how important a weight or a group of weights is; what scores lowest goes first.

A score says something about single weights (`elements`, a tensor shaped like the parameter); blocks, gates and units
combine their elements by `reduce`. Scores that need gradients `watch` them before each optimizer step. A new score
overrides `elements` and, if it has a memory, `watch`; tensors in `memory` are saved and resumed. One that has to
run the model overrides `of_model` (at_start.py).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

Reduce = Literal["norm", "sum"]


class Score:
    """Base of all scores.

    `reduce` says how a group is scored from its n elements e: "norm", sqrt(sum e^2 / n); "sum", sum e / n. The
    division makes short blocks and layers of different width comparable.
    """

    reduce: Reduce = "norm"
    watches = False  # True: needs gradients
    runs = False  # True: needs runs of the model, in `of_model`
    regrows = False  # True: a weight that went is watched at the value it had, and may come back with it
    comparable = True  # between layers; False: units count in shares of their own layer's root mean square

    def __init__(self) -> None:
        self.memory: dict[str, Tensor] = {}  # parameter name -> what was gathered from gradients

    def elements(self, name: str, weight: Tensor) -> Tensor:
        """Score of each weight of parameter `name`, shaped like it."""
        raise TypeError(f"{type(self).__name__} defines no elements(name, weight), which every score needs.")

    def watch(self, name: str, weight: Tensor, gradient: Tensor) -> None:
        """Called before each optimizer step with the unscaled gradient of each parameter that may be pruned."""

    def of_model(self, model: nn.Module, names: Sequence[str], example_inputs: Any) -> Mapping[str, Tensor]:
        """Where it `runs`: the scores of all weights of `names`, in the place of `elements`."""
        raise TypeError(f"{type(self).__name__} defines no of_model(model, names, example_inputs), and says it runs.")

    def load(self, memory: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
        """Take over a saved memory, on the devices of the parameters."""
        devices = {name: parameter.device for name, parameter in parameters.items()}
        self.memory = {name: value.to(devices.get(name), copy=True) for name, value in memory.items()}

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if k != "memory")
        return f"{type(self).__name__}({shown})"


def watch_gradients(
    score: Score,
    names: Iterable[str],
    parameters: Mapping[str, Tensor],
    scale: Tensor | float,
    value: Callable[[str], Tensor] | None = None,
) -> None:
    """Before an optimizer step: show the gradients (`scale` times the true ones) to a score that watches them.

    `names`: of the parameters, each once. `value`: gives a weight as the score is to see it, else the parameter.
    """
    if not score.watches:
        return
    for name in names:
        gradient = parameters[name].grad
        if gradient is not None:
            dense = gradient.to_dense() if gradient.is_sparse else gradient
            score.watch(name, parameters[name] if value is None else value(name), dense / scale)


class Magnitude(Score):
    """|w| (Han et al., arXiv 1506.02626); groups by their root mean square.

    How large the weights are that read a layer's units depends on how large these are, so units of different layers are
    compared in shares of their layer's root mean square; `comparable=True` takes the weights as they are. For whole
    units of a trained net that go at once it is a poor guide: small weights often read what varies most.
    """

    def __init__(self, comparable: bool = False) -> None:
        super().__init__()
        self.comparable = comparable

    def elements(self, name: str, weight: Tensor) -> Tensor:
        """|w|."""
        return weight.abs()


class StandardDeviation(Score):
    """|w| / std of its matrix.

    With scope="model" this is the "class-distribution" pruning of See et al. (arXiv 1606.09274): one threshold in
    units of each matrix's own standard deviation. ("class-blind" is Magnitude with scope="model", "class-uniform"
    Magnitude with scope="matrix".) Weights that went before, in an earlier round of a schedule, are left out of it.
    """

    def elements(self, name: str, weight: Tensor) -> Tensor:
        """|w| in standard deviations of the matrix."""
        there = weight[weight != 0]
        deviation = there.std() if len(there) > 1 else weight.abs().max()
        return weight.abs() / deviation.clamp_min(torch.finfo(weight.dtype).tiny)


class Random(Score):
    """A fixed random number for each weight: the control that every score must beat.

    The numbers depend on `seed` and the parameter's name only, not on the device.
    """

    reduce: Reduce = "sum"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def elements(self, name: str, weight: Tensor) -> Tensor:
        """Numbers drawn by the seed and the parameter's name."""
        # torch's CPU generator looks at the low 32 bits of a seed only.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {name}".encode()))
        return torch.rand(weight.shape, generator=generator).to(weight.device)


class Movement(Score):
    """-sum of w dL/dw over the steps: weights that training moves towards zero go (Sanh et al., arXiv 2005.07683).

    Meant for fine-tuning with a gradual schedule; needs the gradients of some steps before it can tell anything. As
    published, weights that went keep the value they had and are scored on, with the gradient at their place, and come
    back with it once their score is high enough again.
    """

    reduce: Reduce = "sum"
    watches = True
    regrows = True

    def elements(self, name: str, weight: Tensor) -> Tensor:
        """The sums so far, zero before any gradient."""
        return self.memory[name] if name in self.memory else torch.zeros_like(weight)

    def watch(self, name: str, weight: Tensor, gradient: Tensor) -> None:
        """Add -w dL/dw to the sum."""
        if name not in self.memory:
            self.memory[name] = torch.zeros_like(weight)
        self.memory[name].addcmul_(weight, gradient, value=-1)


class Taylor(Score):
    """Root of the running mean of (w dL/dw)^2 (Molchanov et al., arXiv 1906.10771).

    That is the first-order change of the loss without the weight. `decay` of the running mean, 0 to below 1,
    else ValueError.
    """

    watches = True

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"Taylor: decay is {decay}, expected 0 <= decay < 1.")
        super().__init__()
        self.decay = decay

    def elements(self, name: str, weight: Tensor) -> Tensor:
        """Roots of the means so far, zero before any gradient."""
        return self.memory[name].sqrt() if name in self.memory else torch.zeros_like(weight)

    def watch(self, name: str, weight: Tensor, gradient: Tensor) -> None:
        """Take (w dL/dw)^2 into the running mean."""
        change = weight * gradient
        if name not in self.memory:
            self.memory[name] = torch.zeros_like(weight)
        self.memory[name].mul_(self.decay).addcmul_(change, change, value=1 - self.decay)
