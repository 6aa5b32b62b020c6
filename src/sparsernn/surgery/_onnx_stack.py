"""Recurrent stacks as ONNX has them: one LSTM, GRU or RNN node for a layer, or one for each direction.

During export the forward of every recurrent stack is exchanged for an `OnnxStack`, which computes the same in torch
and writes the nodes when the TorchScript exporter asks for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import _VF, Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.onnx import symbolic_helper

from ..nn._fused import reverse, run_fused
from ..nn._layers import backward_order
from ..nn._state import RaggedState
from ..nn.gated import GatedGRU, GatedLSTM, GatedRNN
from ..nn.ragged import RaggedGRU, RaggedLSTM, RaggedRNN

STACKS = (nn.LSTM, nn.GRU, nn.RNN, RaggedLSTM, RaggedGRU, RaggedRNN, GatedLSTM, GatedGRU, GatedRNN)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# ONNX wants i, o, f, c of an LSTM and z, r, h of a GRU; torch has i, f, g, o and r, z, n.
ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
_INT32, _INT64 = 6, 7  # of onnx.TensorProto


@dataclass(frozen=True)
class Node:
    """One node: a layer with all its directions, or one of them. `weights`: ih, hh, bias ih, bias hh of each."""

    mode: str
    direction: str  # forward, reverse or bidirectional
    weights: tuple[tuple[Tensor, Tensor, Tensor, Tensor], ...]

    @property
    def kind(self) -> str:
        return self.mode.partition("_")[0]

    @property
    def width(self) -> int:
        return self.weights[0][1].shape[1]

    def onnx_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """W (directions, gates * H, I), R (directions, gates * H, H) and B (directions, 2 * gates * H)."""
        ih, hh, bias_ih, bias_hh = (torch.stack([self._reorder(w[n]) for w in self.weights]) for n in range(4))
        return ih, hh, torch.cat([bias_ih, bias_hh], 1)

    def _reorder(self, weight: Tensor) -> Tensor:
        parts = weight.detach().unflatten(0, (GATES[self.kind], self.width))
        return torch.cat([parts[gate] for gate in ORDER[self.kind]])


class RecurrentNode(torch.autograd.Function):
    """Y (time, directions, batch, H), Y_h and Y_c (directions, batch, H) of one node, from x (time, batch, I)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, lengths: Tensor | None, h: Tensor | None, c: Tensor | None, node: Node
    ) -> tuple[Tensor, ...]:
        states = [h, c] if node.kind == "LSTM" else [h]
        zeros = x.new_zeros(len(node.weights), x.shape[1], node.width)
        states = [zeros if state is None else state for state in states]
        batch_sizes = backwards = None
        data = x
        if lengths is not None:
            data, batch_sizes = _VF._pack_padded_sequence(x, lengths.cpu(), False)
            backwards = backward_order(batch_sizes)
        seen = reverse(data, backwards, False) if node.direction == "reverse" else data
        y, finals = run_fused(
            node.mode,
            seen,
            batch_sizes,
            states,
            [w for weights in node.weights for w in weights],
            bias=True,
            projected=False,
            training=False,
            both=node.direction == "bidirectional",
            batch_first=False,
        )
        y = reverse(y, backwards, False) if node.direction == "reverse" else y
        if batch_sizes is not None:
            y, _ = _VF._pad_packed_sequence(y, batch_sizes, False, 0.0, x.shape[0])
        return (y.unflatten(-1, (len(node.weights), node.width)).transpose(1, 2), *finals)

    @staticmethod
    def symbolic(g: Any, x: Any, lengths: Any, h: Any, c: Any, node: Node) -> Any:
        w, r, b = (g.op("Constant", value_t=weight) for weight in node.onnx_weights())

        def optional(value: Any) -> Any:
            if value is not None and not value.node().mustBeNone():
                return value
            none = g.op("prim::Constant")
            none.setType(torch._C.OptionalType.ofTensor())
            return none

        steps = optional(lengths)
        if not steps.node().mustBeNone():
            steps = g.op("Cast", steps, to_i=_INT32)
        inputs = [x, w, r, b, steps, optional(h)]
        options: dict[str, Any] = {"hidden_size_i": node.width, "direction_s": node.direction}
        if node.kind == "LSTM":
            return g.op("LSTM", *inputs, optional(c), outputs=3, **options)
        if node.kind == "GRU":
            return g.op("GRU", *inputs, linear_before_reset_i=1, outputs=2, **options)
        activation = "Relu" if node.mode == "RNN_RELU" else "Tanh"
        return g.op("RNN", *inputs, activations_s=[activation] * len(node.weights), outputs=2, **options)


class OnnxStack:
    """Stands for the forward of one recurrent stack while it is exported; takes and gives what the stack does."""

    def __init__(self, place: str, module: nn.Module) -> None:
        stack: Any = module.to_dense() if isinstance(module, (GatedLSTM, GatedGRU, GatedRNN)) else module
        self.place, self.batch_first = place, stack.batch_first
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
        self.is_lstm = stack.mode == "LSTM"

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
        lengths = batch_sizes = order = back = None
        unbatched = False
        if isinstance(input, PackedSequence):
            data, batch_sizes, order, back = input
            x, lengths = _VF._pad_packed_sequence(data, batch_sizes, False, 0.0, batch_sizes.size(0))
        else:
            unbatched = input.dim() == 2
            x = input.unsqueeze(1) if unbatched else input.transpose(0, 1) if self.batch_first else input
        finals: list[tuple[Tensor, ...]] = []
        for nodes in self.layers:
            outputs: list[Tensor] = []
            for node in nodes:
                first = len(finals)
                states = self._initial(hx, first, len(node.weights), unbatched, order)
                y, *last = RecurrentNode.apply(x, lengths, *states, node)  # type: ignore[misc]
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


def pack(g: Any, x: Any, lengths: Any, batch_first: Any) -> tuple[Any, Any]:
    """In ONNX a packed sequence is the padded one, time first and as long as the longest, with the lengths."""
    if symbolic_helper._get_const(batch_first, "i", "batch_first"):
        x = g.op("Transpose", x, perm_i=[1, 0, 2])
    lengths = g.op("Cast", lengths, to_i=_INT64)
    one = g.op("Constant", value_t=torch.tensor([1]))
    zero = g.op("Constant", value_t=torch.tensor([0]))
    longest = g.op("Reshape", g.op("ReduceMax", lengths, keepdims_i=0), one)
    return g.op("Slice", x, zero, longest, zero), lengths


def unpack(g: Any, data: Any, lengths: Any, batch_first: Any, padding_value: Any, total_length: Any) -> tuple[Any, Any]:
    if symbolic_helper._get_const(batch_first, "i", "batch_first"):
        data = g.op("Transpose", data, perm_i=[1, 0, 2])
    return data, lengths


def _parameter(stack: Any, name: str) -> Tensor | None:
    value = getattr(stack, name, None)
    return value.detach() if isinstance(value, Tensor) else None


def _project(value: Tensor, projection: Tensor | None) -> Tensor:
    return value if projection is None else value @ projection.T
