"""`Rewind`: back to the weights, or to the learning rates alone, of an earlier step, with what is gone staying gone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .._modules import unwrap
from .bayes import Bayes
from .hooks import mask_state, unwrapped
from .sparsifier import Sparsifier


class Rewind:
    """A moment of a training to which `rewind` returns: made after step k, it copies all that step k + 1 needs.

    Arguments:
        model: the model that is trained.
        optimizer: what trains it.
        others: further optimizers, learning-rate schedulers, a GradScaler: all that has a `state_dict`.

    Pruned weights that are trained again from the values of an early step reach what the dense net reached (Frankle et
    al., arXiv 1912.05671; for LSTMs Yu et al., arXiv 1906.02768); learning rates alone, from the trained values, often
    do as well (Renda et al., arXiv 2003.02389). The batches of the loop are its own affair.
    Raises TypeError for what has no `state_dict`.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *others: Any) -> None:
        self._model = unwrap(model)
        self._optimizers = [unwrapped(optimizer), *(each for each in others if isinstance(each, Optimizer))]
        self._others = [each for each in others if not isinstance(each, Optimizer)]
        for each in self._others:
            if not callable(getattr(each, "load_state_dict", None)):
                raise TypeError(f"Rewind: got {type(each).__name__}, expected a scheduler or what has a state_dict.")
        self._kept = copy.deepcopy(self._now())

    def _now(self) -> dict[str, Any]:
        return {
            "model": self._model.state_dict(),
            "optimizers": [each.state_dict() for each in self._optimizers],
            "others": [each.state_dict() for each in self._others],
        }

    def rewind(self, *sparsifiers: Sparsifier, weights: bool = True) -> None:
        """Go back: model, optimizer and schedulers are as they were, but for what the `sparsifiers` have taken out.

        `weights=False`: the weights and the optimizer's memory stay, only learning rates and the other settings of its
        groups and the schedulers go back. Sparsifiers count on and keep their masks. As often as you like. Raises
        ValueError for sparsifiers that keep weights of their own while they are attached (`Bayes`, the path
        `HardConcrete`), before their `finish`.
        """
        for each in sparsifiers:
            attached = bool(each._optimizers)
            if weights and attached and (each._keeps_weights() or isinstance(each, Bayes)):
                raise ValueError(
                    f"Rewind: {type(each).__name__} is attached and keeps weights beside those of the model, which "
                    "can't be rewound: call its finish() first."
                )
        kept = copy.deepcopy(self._kept)  # a loaded state is used on, not copied
        if weights:
            masks = [each.masks for each in sparsifiers]  # a penalty's are the zeros of now
            for optimizer, state in zip(self._optimizers, kept["optimizers"]):
                optimizer.load_state_dict(state)
            self._model.load_state_dict(kept["model"])
            with torch.no_grad():
                for each in sparsifiers:
                    each._rewound()
                for each in masks:
                    self._mask(each)
        else:
            for optimizer, state in zip(self._optimizers, kept["optimizers"]):
                for group, settings in zip(optimizer.param_groups, state["param_groups"], strict=True):
                    group.update({key: value for key, value in settings.items() if key != "params"})
        for each, state in zip(self._others, kept["others"]):
            each.load_state_dict(state)

    def _mask(self, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(self._model.named_parameters())
        for name, mask in masks.items():
            parameters[name].masked_fill_(~mask.to(parameters[name].device), 0)
            for optimizer in self._optimizers:
                mask_state(optimizer, parameters[name], mask)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go back to the same moment."""
        return copy.deepcopy(self._kept)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the moment of a saved run. Raises ValueError for one of another model or other parts."""
        own = self._kept
        if not isinstance(state, Mapping) or set(state) != set(own):
            raise ValueError("This is not the state of a Rewind: expected the dict of Rewind.state_dict().")
        shapes = [{n: tuple(v.shape) for n, v in each["model"].items()} for each in (state, own)]
        parts = [(len(each["optimizers"]), len(each["others"])) for each in (state, own)]
        if shapes[0] != shapes[1] or parts[0] != parts[1]:
            raise ValueError(
                "The state is that of a Rewind of another model, or of other optimizers and schedulers.\n"
                "Nothing was changed: build the same ones as in the saved run."
            )
        self._kept = copy.deepcopy(dict(state))
