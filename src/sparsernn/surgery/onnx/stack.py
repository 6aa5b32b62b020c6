"""Recurrent stacks as ONNX has them: one LSTM, GRU or RNN node for a layer, or one for each direction.

During export the forward of every recurrent stack is exchanged for an `OnnxStack`, which computes the same by nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import _VF, Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ...nn.layers import LayeredRecurrent
from ...nn.state import RaggedState
from ...structure.cells import MODES
from .nodes import Node, nodes
from .operators import SYMBOLIC


def is_stack(module: nn.Module) -> bool:
    """Whether a node of ONNX can stand for each of its layers; a subclass with another forward stays as it is."""
    ours = isinstance(module, LayeredRecurrent) and module.like_torch
    known = (nn.LSTM, nn.GRU, nn.RNN, LayeredRecurrent)
    return (ours or isinstance(module, known[:3])) and type(module).forward in [kind.forward for kind in known]


class OnnxStack:
    """Stands for the forward of one recurrent stack while it is exported; takes and gives what the stack does."""

    def __init__(self, place: str, module: nn.Module) -> None:
        self.place, self.module = place, module

    def _read(self) -> None:
        """The weights as they are at this call: hooks and wrappers may have written them just before."""
        module = self.module
        stack: Any = module.to_dense() if isinstance(module, LayeredRecurrent) else module
        self.batch_first = stack.batch_first
        self.directions = 2 if stack.bidirectional else 1
        self.layers: list[list[Node]] = []
        self.projections: list[Tensor | None] = []
        for layer in range(stack.num_layers):
            ends = [f"_l{layer}{end}" for end in ("", "_reverse")[: self.directions]]
            weights = [self._weights(stack, end) for end in ends]
            self.projections += [_parameter(stack, "weight_hr" + end) for end in ends]
            if len({w[1].shape for w in weights}) == 1:
                name = "bidirectional" if self.directions == 2 else "forward"
                self.layers.append([Node(stack.mode, name, tuple(weights))])
            else:
                self.layers.append([Node(stack.mode, name, (w,)) for name, w in zip(("forward", "reverse"), weights)])
        self.is_lstm = MODES[stack.mode].states > 1

    def _weights(self, stack: Any, end: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weight_ih, weight_hh = _parameter(stack, "weight_ih" + end), _parameter(stack, "weight_hh" + end)
        assert weight_ih is not None and weight_hh is not None
        projection = _parameter(stack, "weight_hr" + end)
        if projection is not None:
            # ONNX has no projection. Fed back through it, h = weight_hr m is weight_hh weight_hr m of the cell's own
            # output m: an LSTM without projection, whose outputs are projected afterwards.
            weight_hh = weight_hh @ projection
        zeros = weight_ih.new_zeros(len(weight_ih))
        biases = [_parameter(stack, name + end) for name in ("bias_ih", "bias_hh")]
        first, second = (zeros if bias is None else bias for bias in biases)
        return weight_ih, weight_hh, first, second

    def __call__(self, input: Any, hx: Any = None) -> Any:
        with _unrecorded():
            self._read()
        lengths = batch_sizes = order = back = None
        unbatched = False
        if isinstance(input, PackedSequence):
            data, batch_sizes, order, back = input
            x, lengths = torch.ops.sparsernn_onnx.padded(data, batch_sizes)
        else:
            unbatched = input.dim() == 2
            x = input.unsqueeze(1) if unbatched else input.transpose(0, 1) if self.batch_first else input
        finals: list[tuple[Tensor, ...]] = []
        for layer in self.layers:
            outputs: list[Tensor] = []
            for node in layer:
                first = len(finals)
                states = self._initial(hx, first, len(node.weights), unbatched, order)
                number = len(nodes)
                nodes.append(node)
                if self.is_lstm:
                    y, *last = torch.ops.sparsernn_onnx.lstm(x, lengths, *states, number)
                else:
                    y, *last = torch.ops.sparsernn_onnx.gru(x, lengths, states[0], number)
                for n in range(len(node.weights)):
                    projection = self.projections[first + n]
                    h, *c = (state[n] for state in last)
                    outputs.append(_project(y[:, n], projection))
                    finals.append((_project(h, projection), *c))
            x = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
        state = tuple(self._final(list(rows), unbatched, back) for rows in zip(*finals))
        if lengths is not None:
            data, batch_sizes = _VF._pack_padded_sequence(x, lengths, False)
            x = PackedSequence(data, batch_sizes, order, back)
        elif unbatched:
            x = x.squeeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, state if self.is_lstm else state[0]

    def _initial(
        self, hx: Any, first: int, count: int, unbatched: bool, order: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        if hx is None:
            return None, None
        found: list[Tensor | None] = []
        for kind, state in enumerate(hx if self.is_lstm else (hx,)):
            rows = [state[first + n].unsqueeze(0) if unbatched else state[first + n] for n in range(count)]
            rows = [row if order is None else row.index_select(0, order) for row in rows]
            if kind == 0:
                rows = [self._unproject(row, self.projections[first + n]) for n, row in enumerate(rows)]
            found.append(torch.stack(rows))
        return found[0], found[1] if self.is_lstm else None

    def _unproject(self, row: Tensor, projection: Tensor | None) -> Tensor:
        if projection is None:
            return row
        if int(torch.linalg.matrix_rank(projection.double())) < len(projection):
            raise ValueError(
                f"{self.place} is an LSTM with projections and a given initial state. ONNX has no projections, and "
                "this weight_hr can't be undone for the state (linearly dependent rows): pass no state."
            )
        return row @ torch.linalg.pinv(projection.double()).to(row.dtype).T

    def _final(self, rows: list[Tensor], unbatched: bool, back: Tensor | None) -> Tensor | RaggedState:
        rows = [row.squeeze(0) for row in rows] if unbatched else rows
        rows = rows if back is None else [row.index_select(0, back) for row in rows]
        return torch.stack(rows) if len({int(row.shape[-1]) for row in rows}) == 1 else RaggedState(rows)


@contextmanager
def as_nodes(model: nn.Module, opset: int) -> Iterator[None]:
    """Exchange the forward of every recurrent stack of `model` for an `OnnxStack`; hooks and attributes stay."""
    stacks = [(place, m) for place, m in model.named_modules() if is_stack(m)]
    for name, symbolic in SYMBOLIC.items():
        torch.onnx.register_custom_op_symbolic(name, symbolic, opset)
    try:
        for place, module in stacks:
            module.forward = OnnxStack(place, module)  # type: ignore[method-assign]
        yield
    finally:
        for name in SYMBOLIC:
            torch.onnx.unregister_custom_op_symbolic(name, opset)
        for _, module in stacks:
            if "forward" in vars(module):
                del module.forward
        nodes.clear()


def _parameter(stack: Any, name: str) -> Tensor | None:
    value = getattr(stack, name, None)
    return value.detach().clone() if isinstance(value, Tensor) else None


@contextmanager
def _unrecorded() -> Iterator[None]:
    """What is computed here is a constant of the graph."""
    torch_c: Any = torch._C
    state = torch_c._get_tracing_state()
    torch_c._set_tracing_state(None)
    try:
        yield
    finally:
        torch_c._set_tracing_state(state)


def _project(value: Tensor, projection: Tensor | None) -> Tensor:
    return value if projection is None else value @ projection.T
