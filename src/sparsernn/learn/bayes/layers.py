"""Forwards that draw their samples on the way: recurrent stacks, embeddings and linear layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...nn.fused import reverse
from ...nn.layers import States
from ...structure.cells import RecurrentLayer
from ..stand_in import StandIn
from .cells import run
from .lstm import Layer
from .noise import Draw

STACKS: tuple[type[nn.Module], ...] = (nn.LSTM, nn.GRU, nn.RNN)


def takes_multipliers(module: nn.Module) -> bool:
    """A stack that can have its multipliers inside: torch's own forward, without projections."""
    return isinstance(module, STACKS) and type(module).forward in [s.forward for s in STACKS] and not module.proj_size


class NoisyStack(StandIn):
    """Runs torch's `module` with multipliers of its inputs, gates and units, one sample for each sequence.

    LSTM (arXiv 1911.05585, equations 5 to 8): every gate j is act((W_x (x z_x) + W_h h) z_j + b_j), the bias outside,
    and h = o tanh(c) z_h. A GRU, which the paper does not have, likewise: r, z = sigmoid((W_x (x z_x)) z_j + b_x +
    (W_h h) z_j + b_h), n = tanh((W_x (x z_x)) z_n + b_in + r ((W_h h) z_n + b_hn)); its state s = n + z (s - n) is
    carried as it is, and what matrices and later layers read is h = s z_h. An RNN: h = act((W_x (x z_x) + W_h h) z + b)
    z_h. States that are given are taken as they are.
    """

    def __init__(self, module: nn.Module, path: str, layers: tuple[RecurrentLayer, ...]) -> None:
        super().__init__(module)
        self._path = path
        self._names = {(layer.layer, layer.reverse): layer for layer in layers if layer.module == path}

    def _run_layer(
        self, layer: int, x: Tensor, batch_sizes: Tensor | None, states: list[States], backwards: Tensor | None
    ) -> tuple[Tensor, list[States]]:
        draw: Draw = self._draw
        source = self._source[0]
        batch = len(states[0][0])
        if batch_sizes is None:
            x = x.transpose(0, 1) if self.batch_first else x
            sizes = [batch] * len(x)
            if not sizes:
                raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        else:
            sizes = batch_sizes.tolist()
        inputs, each = draw.kinds.get("input"), None
        if layer == 0 and inputs is not None and self._path in inputs.units:
            each = draw.each("input", inputs.units[self._path], batch)
        outputs, last = [], []
        for direction, end in enumerate(self.suffixes()[layer]):
            own = self._names[layer, bool(direction)]
            pick = [draw.kinds["gate"].units[f"{own.name} {g}"] for g in own.gates] if "gate" in draw.kinds else []
            unit = draw.kinds["unit"].units.get(own.name) if "unit" in draw.kinds else None
            weights = Layer(
                source.mode,
                getattr(source, "weight_ih" + end),
                getattr(source, "weight_hh" + end),
                getattr(source, "bias_ih" + end) if self.bias else None,
                getattr(source, "bias_hh" + end) if self.bias else None,
                each,
                draw.each("gate", torch.cat(pick), batch) if pick else None,
                draw.each("unit", unit, batch) if unit is not None else None,
            )
            seen = reverse(x, backwards, False) if direction else x
            flat = seen if batch_sizes is not None else seen.flatten(0, 1)
            y, finals = run(weights, flat, sizes, states[direction])
            y = y if batch_sizes is not None else y.unflatten(0, (len(sizes), batch))
            outputs.append(reverse(y, backwards, False) if direction else y)
            last.append(finals)
        y = torch.cat(outputs, -1) if self.bidirectional else outputs[0]
        return (y.transpose(0, 1) if self.batch_first and batch_sizes is None else y), last


def noisy_embedding(module: nn.Embedding, name: str, path: str, batch_axis: int | None) -> Callable[[Draw], Any]:
    """The forward of an embedding that samples just the rows that a batch holds.

    With `batch_axis`, tokens of shape (batch, time) or (time, batch) have one sample of a word's multiplier for each
    sequence that holds the word; else one for the batch.
    """

    def drawing(draw: Draw) -> Callable[[Tensor], Tensor]:
        def forward(input: Tensor) -> Tensor:
            words, place = torch.unique(input, return_inverse=True)
            mean = module.weight.index_select(0, words)
            value = mean
            if name in draw.sigmas and draw.generator is not None:
                sigma = draw.sigmas[name].index_select(0, words).exp()
                if module.padding_idx is not None:
                    sigma = sigma * (words != module.padding_idx).unsqueeze(1)
                value = torch.addcmul(mean, sigma, draw.normal(mean))
            if module.padding_idx is not None:  # its row is never trained
                fixed = (words == module.padding_idx).unsqueeze(1)
                value = torch.where(fixed, value.detach(), value)
            for factor in draw.factors(name, module.weight):
                value = value * (factor.index_select(0, words) if factor.shape[0] > 1 else factor)
            found = F.embedding(place, value)
            own = draw.kinds.get("word")
            if own is None or path not in own.units:
                return found
            number = own.units[path].to(input.device)[words]
            alone = (number >= 0) & own.alone[number]
            if not bool(alone.any()):
                return found
            mean, log_sigma = own.mean[number], own.log_sigma[number]
            if draw.generator is None:
                each = mean[place]
            elif batch_axis is None or input.dim() != 2:
                each = draw.around(mean, log_sigma)[place]
            else:
                sequence = torch.arange(input.shape[batch_axis], device=input.device)
                pair = place + len(words) * (sequence.unsqueeze(1) if batch_axis == 0 else sequence)
                pairs, at = torch.unique(pair, return_inverse=True)
                each = draw.around(mean[pairs % len(words)], log_sigma[pairs % len(words)])[at]
            return found * torch.where(alone[place], each, 1.0).unsqueeze(-1)

        return forward

    return drawing


def noisy_linear(module: nn.Linear, name: str) -> Callable[[Draw], Any]:
    """The forward of a linear layer: where each row of its input is an example of its own, (batch, features), its
    output is sampled instead of its weights (local reparameterisation), which is exact there and has less variance."""

    def drawing(draw: Draw) -> Callable[[Tensor], Tensor]:
        def forward(input: Tensor) -> Tensor:
            if input.dim() != 2 or draw.generator is None:
                return F.linear(input, draw.weight(name, module.weight), module.bias)
            mean, sigma = module.weight, draw.sigmas[name].exp()
            for factor in draw.factors(name, module.weight):
                mean, sigma = mean * factor, sigma * factor
            middle = F.linear(input, mean, module.bias)
            # Away from zero, where the root has no derivative; as a standard deviation it is nothing.
            spread = F.linear(input * input, sigma * sigma).clamp_min(1e-30).sqrt()
            return torch.addcmul(middle, spread, draw.normal(middle))

        return forward

    return drawing
