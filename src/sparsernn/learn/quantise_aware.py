"""`quantise_aware`: training that sees the rounding of the int8 kernels."""

from __future__ import annotations

import warnings
from collections.abc import Container
from typing import Any, Literal, Self

import torch
from torch import nn
from torch.optim import Optimizer

from .._modules import in_eval
from ..structure import examples
from ..structure.trace import quiet
from .governed import Governed, Include
from .int8 import Grid, Rounding
from .int8_forwards import forwards, left_out
from .sparsifier import Sparsifier
from .swapped import Swapped, check_alone

KIND = "quantise_aware"


def quantise_aware(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    bits: Literal[8, 4] = 8,
    inputs: bool = True,
    include: Include = "all",
) -> QuantiseAware:
    """Train a model on the numbers that it will have in int8: call `.attach(optimizer)`, train on, call `finish()`.

    While attached, the matrices of recurrent layers, cells and linear layers are rounded in the model's forward, and so
    is what they multiply, as `accelerate(model, precision="int8")` and `export_c(..., precision="int8")` do it: one
    scale a row of weights, one of each input at each step. That holds in training and in evaluation mode, so that a
    validation loss is that of int8. Backward, rounding counts as the identity (straight-through: Bengio et al.,
    arXiv 1308.3432). The optimizer trains the weights before rounding; `state_dict`, copies and saved files have those,
    and `finish` rounds them for good. Zeros stay zeros, so `Prune` or `Shrink` may be attached to the same optimizer.

    Each step agrees with theirs up to the last bits of what is not in whole numbers (biases, gates, states): products
    are exact. A state that these bits bring over the edge between two steps is off by one, of 127, in the next product.

    Arguments:
        model: any module with recurrent, or linear, layers. It runs step by step in Python, several times slower than
            torch's fused layers: for the last part of a training.
        example_inputs: arguments of one forward pass; a layer that they do not reach is named in a warning.
        bits: of the weights; 4 takes the same kernels, on 15 values a row, and its files are half as large.
        inputs: False rounds the weights alone, as `accelerate` does on processors without AVX-512 VNNI.
        include: "all", "recurrent" or patterns of parameter names: which matrices are rounded.

    Raises ValueError where nothing can be rounded, and for a layer whose forward is its own, which has to be left out.
    """
    return QuantiseAware(model, example_inputs, bits, inputs, include)


class QuantiseAware(Sparsifier):
    """What `quantise_aware` returns; the contract is that of all sparsifiers, and its masks keep everything."""

    def __init__(self, model: nn.Module, example_inputs: Any, bits: int, inputs: bool, include: Include) -> None:
        if bits not in (8, 4):
            raise ValueError(f"{KIND}: bits is {bits!r}, expected 8 or 4.")
        super().__init__(model, include)
        wanted = set(self._governed.weights)
        for path, module in left_out(self._root).items():
            if any((f"{path}.{name}" if path else name) in wanted for name, _ in module.named_parameters()):
                raise ValueError(
                    f"{KIND}: {path or 'the model'} ({type(module).__name__}) has a forward of its own, or weights "
                    "computed at each call, and can't be rounded inside.\nTake a layer of torch (compact and "
                    "to_dense() give one), or leave it out with include=."
                )
        names = {id(p): name for name, p in self._parameters.items() if name in wanted}
        made, weights = {}, {}  # ids of matrices -> their names
        for module, make in forwards(self._root).items():
            own = {id(p): names[id(p)] for p in module._parameters.values() if id(p) in names}
            if own:
                made[module] = make
                weights |= own
        if not weights:
            raise ValueError(
                f"{KIND}: include={include!r} holds no matrix of a recurrent layer, a cell or a linear layer of torch, "
                "which are what runs in int8."
            )
        self.bits, self.inputs = bits, inputs
        self._governed = Governed(tuple(weights.values()), self._governed.layers)
        others = [p for m in self._root.modules() if m not in made for p in m._parameters.values()]
        self._shared = {weights[id(p)] for p in others if id(p) in weights}  # an embedding tied to a decoder
        if bits == 4 and self._shared:
            raise ValueError(
                f"{KIND}: {min(self._shared)} is read by another module as well (tied weights), so it can't be put on "
                "a grid of 4 bits.\nTake bits=8, or leave it out with include=."
            )
        if example_inputs is not None:
            self._warn_of_unreached(example_inputs, made)
        chosen = frozenset(weights)
        self._swapped = Swapped(self._root, (), made, lambda: Rounding(chosen, bits, inputs), KIND, evaluating=True)

    def _warn_of_unreached(self, example_inputs: Any, made: Container[nn.Module]) -> None:
        twin, idle = in_eval(self._root), {path for path, module in self._root.named_modules() if module in made}
        for path in tuple(idle):
            twin.get_submodule(path).register_forward_pre_hook(lambda *_, path=path: idle.discard(path))
        with torch.no_grad(), quiet():
            for number, call in enumerate(examples.calls(example_inputs), start=1):
                examples.run(twin, examples.fresh(call), number)
        if idle:
            warnings.warn(
                f"{KIND}: no example calls {', '.join(sorted(idle))}, so nothing is rounded there: give example_inputs "
                "that do (a list of them), or look whether their weights are read without calling them.",
                stacklevel=4,
            )

    def attach(self, optimizer: Optimizer, *others: Optimizer) -> Self:
        """Follow every step of `optimizer`, and round in the model's forward until `finish`."""
        super().attach(optimizer, *others)
        self._swapped.attach()
        return self

    def _check_optimizer(self, optimizer: Optimizer, trained: set[int]) -> None:
        check_alone(KIND, self._root)

    def finish(self) -> nn.Module:
        """Put the weights on their grids and take the hooks away: a plain model that loses nothing more in int8.

        Tied weights stay between the steps, where their other reader has them.
        """
        return super().finish()

    def _conclude(self) -> None:
        for name in self._governed.weights:
            if name not in self._shared:
                weight = self._parameters[name].detach()
                weight.copy_(Grid.of(weight, self.bits).values(weight))

    def _detach(self) -> None:
        self._swapped.detach()
        super()._detach()

    def _options(self) -> dict[str, Any]:
        return {"bits": self.bits, "inputs": self.inputs}
