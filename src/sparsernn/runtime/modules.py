"""The accelerated forms of torch's recurrent modules and of `sparsernn.nn.ragged`: same class tree, own forward.

`accelerate` changes the class of a copied module to one of these, so parameters, attributes and isinstance hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..nn.graph import GraphGRU, GraphLSTM, GraphRNN
from ..nn.ragged import RaggedGRU, RaggedLSTM, RaggedRNN
from ..nn.rhn import RHN
from .engine import Engine, packing_of
from .threads import in_parallel, parts


class Accelerated:
    """Mark of a module that runs on compiled kernels; `_engine` packs and runs it."""

    _engine: Any

    def __setattr__(self, name: str, value: Any) -> None:
        # What is round a layer may set a weight at each call (weight drop): its values go into the parameter.
        own = self.__dict__.get("_parameters", {}).get(name)
        if own is None or not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
            super().__setattr__(name, value)
        elif value.shape != own.shape:
            raise RuntimeError(
                f"{name} of an accelerated {type(self).__name__} is {tuple(own.shape)}, "
                f"got {tuple(value.shape)}: change the original model, and accelerate it again."
            )
        elif not torch.equal(own, value):
            with torch.no_grad():
                own.copy_(value)


def check(module: Any, x: Any, *states: Tensor) -> None:
    """A sentence for everything that the kernels can't take."""
    name = type(module).__name__
    if module.training:
        raise RuntimeError(f"{name} is accelerated and only infers: call eval() on the model, or train the original.")
    for tensor in (x, *states):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} got {type(tensor).__name__}, expected a float32 tensor on the CPU.")
        if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            raise RuntimeError(
                f"{name} is accelerated for float32 on the CPU, got {tensor.dtype} on {tensor.device}: "
                "convert it with .float().cpu()."
            )
        if tensor.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"{name} is accelerated and computes no gradients, but an input requires them: "
                "call it under torch.no_grad(), or train the original model."
            )


def run_layer(
    engine: Engine,
    module: nn.Module,
    layer: int,
    x: Tensor,
    packing: tuple[Tensor, Tensor] | None,
    states: Sequence[Sequence[Tensor] | None] | None,
    batch_first: bool,
) -> tuple[Tensor, list[list[Tensor]]]:
    """One layer, all directions side by side: (output, final [h] or [h, c] of each direction).

    x: (T, B, I), with `batch_first` (B, T, I), with `packing` (rows, I). states: for each direction [h] or [h, c],
    each (B, width), None for zeros.
    """
    if x.stride(-1) != 1:
        x = x.contiguous()
    time, row = (1, 0) if batch_first else (0, 1)
    if packing is not None:
        steps, rows = len(packing[0]), int(packing[0][0])
        strides = (0, x.stride(0))
    else:
        steps, rows = x.shape[time], x.shape[row]
        strides = (x.stride(time), x.stride(row))
    directions = engine.layers(module, rows, steps)[layer]
    widths = [d.weights.output_size for d in directions]
    out = x.new_empty(*x.shape[:-1], sum(widths))
    out_strides = (0, out.stride(0)) if packing is not None else (out.stride(time), out.stride(row))
    if rows == 0 or steps == 0:
        return out, [[x.new_zeros(rows, w) for w in d.weights.state_sizes] for d in directions]
    finals = []
    # Rows of a batch don't know of each other, nor do directions: each thread takes some.
    work = sum(d.nanoseconds for d in directions) * steps
    if parts(work, len(directions) * rows) == 1:
        for n, direction in enumerate(directions):
            state = None if states is None else states[n]
            y = out if n == 0 else out[..., sum(widths[:n]) :]
            finals.append(direction.run(x, strides, steps, rows, packing, state, y, out_strides))
        return out, finals
    share = parts(work, len(directions) * rows) if packing is None else 1
    cuts = [rows * n // -(-share // len(directions)) for n in range(-(-share // len(directions)) + 1)]
    calls = []
    for n, direction in enumerate(directions):
        y = out[..., sum(widths[:n]) :]
        for a, b in pairwise(cuts):
            given = None if states is None else states[n]
            state = None if given is None else [s[a:b] for s in given]
            own_x, own_y = (x, y) if packing is not None else (x.narrow(row, a, b - a), y.narrow(row, a, b - a))
            calls.append(partial(direction.run, own_x, strides, steps, b - a, packing, state, own_y, out_strides))
    results = in_parallel(calls)
    each = len(cuts) - 1
    pieces = [results[n * each : (n + 1) * each] for n in range(len(directions))]
    return out, [p[0] if each == 1 else [torch.cat(s) for s in zip(*p)] for p in pieces]


class _Stack(Accelerated):
    """Forward of torch.nn.LSTM, GRU and RNN."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        module = cast(Any, self)
        batch_sizes = order = back = None
        packed = isinstance(input, PackedSequence)
        x = input
        if packed:
            x, batch_sizes, order, back = input
        lstm = isinstance(self, nn.LSTM)
        given = () if hx is None else tuple(hx) if lstm else (hx,)
        check(self, x, *given)
        unbatched = not packed and x.dim() == 2
        if not packed and x.dim() not in (2, 3):
            raise ValueError(f"{type(self).__name__}: expected an input of 2 or 3 dimensions, got {x.dim()}.")
        batch_first = module.batch_first and not packed
        if unbatched:
            x = x.unsqueeze(0 if batch_first else 1)
            given = tuple(g.unsqueeze(1) if g.dim() == 2 else g for g in given)
        if given and order is not None:
            given = tuple(g.index_select(1, order) for g in given)
        if given:
            module.check_forward_args(x, given if lstm else given[0], batch_sizes)
        else:
            module.check_input(x, batch_sizes)
        if not packed and x.shape[1 if batch_first else 0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        packing = None if batch_sizes is None else packing_of(batch_sizes)
        directions = 2 if module.bidirectional else 1
        finals: list[list[Tensor]] = []
        for layer in range(module.num_layers):
            own = range(layer * directions, (layer + 1) * directions)
            states = [[g[n] for g in given] for n in own] if given else None
            x, last = run_layer(self._engine, module, layer, x, packing, states, batch_first)
            finals += last
        ends = [torch.stack(rows) for rows in zip(*finals)]
        if back is not None:
            ends = [end.index_select(1, back) for end in ends]
        if unbatched:
            x, ends = x.squeeze(0 if batch_first else 1), [end.squeeze(1) for end in ends]
        state = tuple(ends) if lstm else ends[0]
        return (PackedSequence(x, batch_sizes, order, back) if packed else x), state


class AcceleratedLSTM(_Stack, nn.LSTM):
    """torch.nn.LSTM on compiled kernels."""


class AcceleratedGRU(_Stack, nn.GRU):
    """torch.nn.GRU on compiled kernels."""


class AcceleratedRNN(_Stack, nn.RNN):
    """torch.nn.RNN on compiled kernels."""


class _Cell(Accelerated):
    """Forward of torch.nn.LSTMCell, GRUCell and RNNCell."""

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        module = cast(Any, self)
        lstm = isinstance(self, nn.LSTMCell)
        given = [] if hx is None else list(hx) if lstm else [hx]
        check(self, input, *given)
        name = type(self).__name__
        if input.dim() not in (1, 2) or input.shape[-1] != module.input_size:
            raise RuntimeError(
                f"{name}: expected an input of ({module.input_size},) or (batch, {module.input_size}), "
                f"got {tuple(input.shape)}."
            )
        want = (*input.shape[:-1], module.hidden_size)
        for state in given:
            if tuple(state.shape) != want:
                raise RuntimeError(f"{name}: expected a state of {want}, got {tuple(state.shape)}.")
        x = input if input.dim() == 2 else input.unsqueeze(0)
        if x.stride(-1) != 1:
            x = x.contiguous()
        rows = x.shape[0]
        layer = self._engine.layers(module, rows, 1)[0][0]
        if rows == 0:
            new = [x.new_zeros(0, module.hidden_size) for _ in layer.weights.state_sizes]
        else:
            states = [s if input.dim() == 2 else s.unsqueeze(0) for s in given] or None
            new = layer.run(x, (0, x.stride(0)), 1, rows, None, states)
        if input.dim() == 1:
            new = [s.squeeze(0) for s in new]
        return tuple(new) if lstm else new[0]


class AcceleratedLSTMCell(_Cell, nn.LSTMCell):
    """torch.nn.LSTMCell on compiled kernels."""


class AcceleratedGRUCell(_Cell, nn.GRUCell):
    """torch.nn.GRUCell on compiled kernels."""


class AcceleratedRNNCell(_Cell, nn.RNNCell):
    """torch.nn.RNNCell on compiled kernels."""


class _RaggedStack(Accelerated):
    """How one layer of `sparsernn.nn.ragged` runs; the rest of the forward is the module's own."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        check(self, input[0] if isinstance(input, PackedSequence) else input)
        if not isinstance(input, PackedSequence) and 0 in input.shape[: 1 if input.dim() < 3 else 2]:
            _no_time(self, input)
        return super().forward(input, hx)  # type: ignore[misc]

    def _initial_states(self, hx: Any, x: Tensor, batch: int, unbatched: bool, order: Tensor | None) -> Any:
        if hx is None:  # the kernels know zeros: none are made and copied
            module = cast(Any, self)
            return [None for layer in range(module.num_layers) for _ in module.output_widths(layer)]
        return super()._initial_states(hx, x, batch, unbatched, order)  # type: ignore[misc]

    def _run_layer(
        self, layer: int, x: Tensor, batch_sizes: Tensor | None, states: list[Any], backwards: Tensor | None
    ) -> tuple[Tensor, list[list[Tensor]]]:
        packing = None if batch_sizes is None else packing_of(batch_sizes)
        module = cast(Any, self)
        return run_layer(self._engine, module, layer, x, packing, states, module.batch_first and packing is None)


def _no_time(module: Any, x: Tensor) -> None:
    time = 0 if x.dim() == 2 or not module.batch_first else 1
    if x.shape[time] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")


class AcceleratedRaggedLSTM(_RaggedStack, RaggedLSTM):
    """sparsernn.nn.ragged.RaggedLSTM on compiled kernels."""


class AcceleratedRaggedGRU(_RaggedStack, RaggedGRU):
    """sparsernn.nn.ragged.RaggedGRU on compiled kernels."""


class AcceleratedRaggedRNN(_RaggedStack, RaggedRNN):
    """sparsernn.nn.ragged.RaggedRNN on compiled kernels."""


class AcceleratedGraphLSTM(_RaggedStack, GraphLSTM):
    """sparsernn.nn.graph.GraphLSTM on compiled kernels."""


class AcceleratedGraphGRU(_RaggedStack, GraphGRU):
    """sparsernn.nn.graph.GraphGRU on compiled kernels."""


class AcceleratedGraphRNN(_RaggedStack, GraphRNN):
    """sparsernn.nn.graph.GraphRNN on compiled kernels."""


class AcceleratedRHN(_RaggedStack, RHN):
    """sparsernn.nn.rhn.RHN on compiled kernels."""


STACKS: dict[type[nn.Module], type[nn.Module]] = {
    nn.LSTM: AcceleratedLSTM,
    nn.GRU: AcceleratedGRU,
    nn.RNN: AcceleratedRNN,
}
CELLS: dict[type[nn.Module], type[nn.Module]] = {
    nn.LSTMCell: AcceleratedLSTMCell,
    nn.GRUCell: AcceleratedGRUCell,
    nn.RNNCell: AcceleratedRNNCell,
}
RAGGED: dict[type[nn.Module], type[nn.Module]] = {
    RaggedLSTM: AcceleratedRaggedLSTM,
    RaggedGRU: AcceleratedRaggedGRU,
    RaggedRNN: AcceleratedRaggedRNN,
}
GRAPHS: dict[type[nn.Module], type[nn.Module]] = {
    GraphLSTM: AcceleratedGraphLSTM,
    GraphGRU: AcceleratedGraphGRU,
    GraphRNN: AcceleratedGraphRNN,
}
HIGHWAYS: dict[type[nn.Module], type[nn.Module]] = {RHN: AcceleratedRHN}
