"""The regularisation of AWD-LSTM (Merity et al., arXiv 1708.02182), each piece for itself.

Nothing here changes a model's class, parameters or state_dict: in eval mode they do nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def locked_dropout(x_TBI: Tensor, p: float, training: bool) -> Tensor:
    """Dropout with one mask for all time steps (axis 0), as variational dropout has it (arXiv 1512.05287)."""
    if not training or p == 0:
        return x_TBI
    return x_TBI * F.dropout(x_TBI.new_ones(1, *x_TBI.shape[1:]), p)


def embed(embedding: nn.Module, words: Tensor, count: int, p: float, training: bool) -> Tensor:
    """Vectors of `words` with whole words of the vocabulary (`count` of them) dropped: a dropped word is zero wherever
    it stands, the others are scaled by 1 / (1 - p)."""
    vectors = embedding(words)
    if not training or p == 0:
        return vectors
    kept = F.dropout(vectors.new_ones(count), p)
    return vectors * kept[words].unsqueeze(-1)


class WeightDrop:
    """DropConnect on the recurrent weights of every torch.nn recurrent layer in a model: `WeightDrop(p).attach(model)`.

    For each training call of a layer, weight_hh of all its layers and directions runs with a share p of its weights
    set to zero and the others scaled by 1 / (1 - p); the parameters themselves stay as they are and get the gradient.
    """

    def __init__(self, p: float) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"p is {p}; expected a share from 0 to below 1.")
        self.p = p

    def attach(self, model: nn.Module) -> nn.Module:
        """Put the hooks on the layers of `model` and return it. Raises ValueError if it has none."""
        layers = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
        if not layers:
            raise ValueError(f"WeightDrop: {type(model).__name__} has no torch.nn.LSTM, GRU or RNN.")
        for layer in layers:
            layer.register_forward_pre_hook(self._drop)
            layer.register_forward_hook(_restore, always_call=True)
        return model

    def _drop(self, layer: Any, args: Any) -> None:
        if not layer.training or self.p == 0:
            return
        # torch hands its kernel the list _flat_weights; the parameters behind it stay registered and untouched.
        layer._flat_weights = [
            F.dropout(weight, self.p) if name.startswith("weight_hh") else weight
            for name, weight in zip(layer._flat_weights_names, layer._flat_weights)
        ]


def _restore(layer: Any, args: Any, result: Any) -> None:
    layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]


def activation_penalty(dropped_TBH: Tensor, raw_TBH: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha times the mean square of the last layer's (dropped) output, beta times that of its change from step to
    step: AR and TAR (Merity et al., arXiv 1708.01009), a scalar."""
    penalty = raw_TBH.new_zeros(())
    if alpha:
        penalty = penalty + alpha * dropped_TBH.square().mean()
    if beta and len(raw_TBH) > 1:
        penalty = penalty + beta * (raw_TBH[1:] - raw_TBH[:-1]).square().mean()
    return penalty


def window_length(bptt: int, step: int, seed: int) -> int:
    """Length of the training window that begins at symbol `step`: normal around bptt (5% of the time around bptt / 2)
    with deviation 5, at least 5. A function of its arguments alone, so that a resumed run reads the same windows."""
    source = torch.Generator().manual_seed((seed * 1_000_003 + step) % (1 << 62))
    middle = bptt if float(torch.rand((), generator=source)) < 0.95 else bptt / 2
    return max(5, int(torch.randn((), generator=source) * 5 + middle))
