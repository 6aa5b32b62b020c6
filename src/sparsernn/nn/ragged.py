"""LSTM, GRU and RNN stacks whose layers and directions differ in width.

Compaction removes units layer by layer and direction by direction; torch.nn.LSTM has one hidden_size for all of
them. These modules keep torch's parameter names, call and results, and run each layer through torch's own kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..structure.cells import GRU, LSTM, MODES, register_cell
from .fused import reverse, run_fused
from .layers import LayeredRecurrent, States, TanhOrRelu
from .packing import options_of
from .protocol import Kept, register_layer
from .state import RaggedState as RaggedState


class _Ragged(LayeredRecurrent):
    like_torch = True

    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int | Sequence[int]],
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_sizes, **options)
        self._register(device, dtype)

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

    def narrowed(self, kept: Kept) -> nn.Module:
        return fitted(self)

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


@register_layer
class RaggedLSTM(_Ragged):
    """torch.nn.LSTM with a width of its own for each layer and direction.

    `hidden_sizes`: for each layer the width of each direction, [(forward, reverse), ...] or [width, ...];
    `proj_sizes` likewise for weight_hr. Parameters are named as in torch (`weight_hh_l1_reverse`), each of its own
    shape; other arguments, call and results are those of torch.nn.LSTM. Where widths differ h_n and c_n are
    `RaggedState`s, and `hidden_size` raises AttributeError: any one number would be wrong for some layer. Raises
    ValueError for sizes that are none.
    """

    cell = LSTM


@register_layer
class RaggedGRU(_Ragged):
    """torch.nn.GRU with a width of its own for each layer and direction; see `RaggedLSTM`."""

    cell = GRU


@register_layer
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


def fitted(module: Any) -> nn.Module:
    """A stack, torch's or ragged, whose weights have been cut: torch's where one width is left, else a ragged one."""
    gates = len(MODES[module.mode].gates)
    ends = [[f"_l{n}{end}" for end in ("", "_reverse")[: 1 + module.bidirectional]] for n in range(module.num_layers)]
    hidden = [[getattr(module, "weight_hh" + end).shape[0] // gates for end in row] for row in ends]
    projected = hasattr(module, "weight_hr_l0")
    proj = [[getattr(module, "weight_hr" + end).shape[0] for end in row] for row in ends] if projected else None
    module.input_size = module.weight_ih_l0.shape[1]
    even = len({w for row in hidden for w in row}) == 1 and len({w for row in proj or [[0]] for w in row}) == 1
    if isinstance(module, nn.RNNBase):
        if even:
            module.hidden_size, module.proj_size = hidden[0][0], proj[0][0] if proj else 0
            module.flatten_parameters()
            return module
        if type(module).__name__ not in RAGGED or type(module) is not getattr(nn, type(module).__name__):
            raise TypeError(f"{type(module).__name__} is a subclass of torch's layer: it has one width for all layers.")
        return _rebuilt(RAGGED[type(module).__name__], module, hidden, proj)
    if not even:
        module.hidden_sizes = tuple(map(tuple, hidden))
        module.proj_sizes = None if proj is None else tuple(map(tuple, proj))
        return module
    return _rebuilt(getattr(nn, module.kind), module, hidden[0][0], proj[0][0] if proj else None)


def _rebuilt(kind: type[Any], module: Any, hidden: Any, proj: Any) -> nn.Module:
    """The same stack as another class: the very same Parameter objects."""
    plain = issubclass(kind, nn.RNNBase)
    options = options_of(module) | {"device": "meta"}
    options |= {"num_layers": module.num_layers} if plain else {}
    options |= {"proj_size" if plain else "proj_sizes": proj} if proj else {}
    new = kind(module.input_size, hidden, **options)
    new.dropout = module.dropout
    new._parameters.update(module._parameters)
    if plain:
        new._init_flat_weights()
        new.flatten_parameters()
    return new


RAGGED: dict[str, type[_Ragged]] = {kind.cell.name: kind for kind in (RaggedLSTM, RaggedGRU, RaggedRNN)}

for _kind in RAGGED.values():
    register_cell(_kind, _kind.cell)
