"""LSTM, GRU and RNN stacks whose layers and directions differ in width.

Compaction removes units layer by layer and direction by direction; torch.nn.LSTM has one hidden_size for all of
them. These modules keep torch's parameter names, call and results, and run each layer through torch's own kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import init

from ..structure.cells import GRU, LSTM, register_cell
from .fused import reverse, run_fused
from .layers import LayeredRecurrent, States, TanhOrRelu
from .state import RaggedState as RaggedState


class _Ragged(LayeredRecurrent):
    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int | Sequence[int]],
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_sizes: Sequence[int | Sequence[int]] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_sizes,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_sizes=proj_sizes,
        )

        def register(name: str, *shape: int) -> None:
            self.register_parameter(name, nn.Parameter(torch.empty(*shape, device=device, dtype=dtype)))

        for layer, ends in enumerate(self.suffixes()):
            for direction, end in enumerate(ends):
                width, output = self.hidden_sizes[layer][direction], self.output_widths(layer)[direction]
                register("weight_ih" + end, self.gates * width, self.layer_input_size(layer))
                register("weight_hh" + end, self.gates * width, output)
                if bias:
                    register("bias_ih" + end, self.gates * width)
                    register("bias_hh" + end, self.gates * width)
                if self.proj_sizes is not None:
                    register("weight_hr" + end, output, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±1/sqrt(width) of the own layer and direction, as torch does."""
        for widths, directions in zip(self.hidden_sizes, self.all_weights_by_layer()):
            for width, weights in zip(widths, directions):
                for weight in weights:
                    init.uniform_(weight, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def weights(self, end: str) -> list[Tensor]:
        """weight_ih, weight_hh, the two biases and weight_hr (those that exist) of the layer named by `end`."""
        names = ["weight_ih", "weight_hh"]
        names += ["bias_ih", "bias_hh"] if self.bias else []
        names += ["weight_hr"] if self.proj_sizes is not None else []
        return [getattr(self, name + end) for name in names]

    def all_weights_by_layer(self) -> list[list[list[Tensor]]]:
        return [[self.weights(end) for end in ends] for ends in self.suffixes()]

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction, as torch.nn.LSTM has them."""
        return [weights for directions in self.all_weights_by_layer() for weights in directions]

    def flatten_parameters(self) -> None:
        """On CUDA, lay the weights of each fused call side by side, as cuDNN wants them; elsewhere nothing."""
        for layer, ends in enumerate(self.suffixes()):
            calls = [ends] if self._one_call(layer) else [[end] for end in ends]
            for n, call in enumerate(calls):
                _flatten(self, layer, n, [w for end in call for w in self.weights(end)], len(call) == 2)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        result = super()._apply(fn, recurse)
        self.flatten_parameters()
        return result

    def _one_call(self, layer: int) -> bool:
        """Whether all directions of `layer` have one width, so that one fused call runs them."""
        return len(set(zip(self.hidden_sizes[layer], self.output_widths(layer)))) == 1

    def _run_layer(
        self, layer: int, x: Tensor, batch_sizes: Tensor | None, states: list[States], backwards: Tensor | None
    ) -> tuple[Tensor, list[States]]:
        ends = self.suffixes()[layer]
        if self._one_call(layer):
            weights = [w for end in ends for w in self.weights(end)]
            stacked = [torch.stack(parts) for parts in zip(*states)]
            y, finals = self._fused(x, batch_sizes, stacked, weights, len(ends) == 2)
            return y, [list(rows) for rows in zip(*(final.unbind(0) for final in finals))]
        outputs, last = [], []
        for direction, end in enumerate(ends):
            seen = reverse(x, backwards, self.batch_first) if direction else x
            y, finals = self._fused(
                seen, batch_sizes, [s.unsqueeze(0) for s in states[direction]], self.weights(end), False
            )
            outputs.append(reverse(y, backwards, self.batch_first) if direction else y)
            last.append([final.squeeze(0) for final in finals])
        return torch.cat(outputs, -1), last

    def _fused(
        self, x: Tensor, batch_sizes: Tensor | None, states: States, weights: list[Tensor], both: bool
    ) -> tuple[Tensor, list[Tensor]]:
        return run_fused(
            self.mode,
            x,
            batch_sizes,
            states,
            weights,
            bias=self.bias,
            projected=self.proj_sizes is not None,
            training=self.training,
            both=both,
            batch_first=self.batch_first,
        )


class RaggedLSTM(_Ragged):
    """torch.nn.LSTM with a width of its own for each layer and direction.

    `hidden_sizes`: for each layer the width of each direction, [(forward, reverse), ...] or [width, ...];
    `proj_sizes` likewise for weight_hr. Parameters are named as in torch (`weight_hh_l1_reverse`), each of its own
    shape; arguments and results are those of torch.nn.LSTM. Where widths differ h_n and c_n are `RaggedState`s, and
    `hidden_size` raises AttributeError: any one number would be wrong for some layer.
    """

    cell = LSTM


class RaggedGRU(_Ragged):
    """torch.nn.GRU with a width of its own for each layer and direction; see `RaggedLSTM`."""

    cell = GRU


class RaggedRNN(TanhOrRelu, _Ragged):
    """torch.nn.RNN with a width of its own for each layer and direction; see `RaggedLSTM`."""


def _flatten(module: _Ragged, layer: int, direction: int, weights: list[Any], both: bool) -> None:
    first = weights[0]
    if not all(
        isinstance(w, Tensor) and w.is_cuda and w.dtype == first.dtype and torch.backends.cudnn.is_acceptable(w)
        for w in weights
    ) or len({w.data_ptr() for w in weights}) != len(weights):
        return
    width, output = module.hidden_sizes[layer][direction], module.output_widths(layer)[direction]
    if module.proj_sizes is not None and output >= width:
        return
    from torch.backends.cudnn import rnn

    with torch.cuda.device_of(first), torch.no_grad():
        if torch._use_cudnn_rnn_flatten_weight():
            torch._cudnn_rnn_flatten_weight(
                weights,
                len(weights) // (2 if both else 1),
                module.layer_input_size(layer),
                rnn.get_cudnn_mode(module.mode),
                width,
                output if module.proj_sizes is not None else 0,
                1,
                module.batch_first,
                both,
            )


RAGGED: dict[str, type[_Ragged]] = {kind.cell.name: kind for kind in (RaggedLSTM, RaggedGRU, RaggedRNN)}

for _kind in RAGGED.values():
    register_cell(_kind, _kind.cell)
