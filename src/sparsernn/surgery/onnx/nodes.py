"""One LSTM, GRU or RNN node of an ONNX graph: what it computes in torch, and how the exporter writes it.

The exporter traces torch operators and asks for the translation of each; a node is one operator of our own. The
translations of a few of torch's operators, which the exporter lacks or writes in a form of its own, are here as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import _VF, Tensor
from torch.onnx import symbolic_helper

from ...nn.fused import backward_order, reverse, run_fused
from ...structure.cells import MODES, ONNX_GATES

_INT32 = 6  # of onnx.TensorProto


@dataclass(frozen=True)
class Node:
    """One node: a layer with all its directions, or one of them. `weights`: ih, hh, bias ih, bias hh of each."""

    mode: str
    direction: str  # forward, reverse or bidirectional
    weights: tuple[tuple[Tensor, Tensor, Tensor, Tensor], ...] = field(repr=False)

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
        gates = MODES[self.mode].gates
        parts = dict(zip(gates, weight.detach().unflatten(0, (len(gates), self.width))))
        return torch.cat([parts[gate] for gate in ONNX_GATES[self.kind]])


# Operators of our own, so that the exporter meets each node as one call. The last argument is its place in `nodes`,
# which holds the nodes of the export that is under way.
nodes: list[Node] = []
_library = torch.library.Library("sparsernn_onnx", "DEF")
_library.define("lstm(Tensor x, Tensor? lengths, Tensor? h, Tensor? c, int node) -> (Tensor, Tensor, Tensor)")
_library.define("gru(Tensor x, Tensor? lengths, Tensor? h, int node) -> (Tensor, Tensor)")
_library.define("padded(Tensor data, Tensor batch_sizes) -> (Tensor, Tensor)")


def _lstm(x: Tensor, lengths: Tensor | None, h: Tensor | None, c: Tensor | None, node: int) -> tuple[Tensor, ...]:
    return _run_node(x, lengths, [h, c], nodes[node])


def _gru(x: Tensor, lengths: Tensor | None, h: Tensor | None, node: int) -> tuple[Tensor, ...]:
    return _run_node(x, lengths, [h], nodes[node])


def _padded(data: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """What a packed sequence is in ONNX: time first, as long as the longest, with the lengths."""
    return _VF._pad_packed_sequence(data, batch_sizes, False, 0.0, batch_sizes.size(0))


_library.impl("padded", _padded, "CompositeExplicitAutograd")
_library.impl("lstm", _lstm, "CompositeExplicitAutograd")
_library.impl("gru", _gru, "CompositeExplicitAutograd")


def lstm_symbolic(g: Any, x: Any, lengths: Any, h: Any, c: Any, number: Any) -> Any:
    node = nodes[constant_integer(number)]
    results = g.op("LSTM", *_inputs(g, node, x, lengths, h), _optional(g, c), outputs=3, **_attributes(node))
    return _unsized(node, x, results)


def gru_symbolic(g: Any, x: Any, lengths: Any, h: Any, number: Any) -> Any:
    """GRU and RNN."""
    node = nodes[constant_integer(number)]
    inputs = _inputs(g, node, x, lengths, h)
    if node.kind == "GRU":
        return _unsized(node, x, g.op("GRU", *inputs, linear_before_reset_i=1, outputs=2, **_attributes(node)))
    activations = ["Relu" if node.mode == "RNN_RELU" else "Tanh"] * len(node.weights)
    return _unsized(node, x, g.op("RNN", *inputs, activations_s=activations, outputs=2, **_attributes(node)))


def _unsized(node: Node, x: Any, results: Any) -> Any:
    # Else the sizes of the traced run stand for those of any batch and length wherever the model asks for a shape.
    y, *states = results
    count = len(node.weights)
    y.setType(x.type().with_sizes([None, count, None, node.width]))
    for state in states:
        state.setType(x.type().with_sizes([count, None, node.width]))
    return results


def constant_integer(value: Any) -> int:
    return int(symbolic_helper._get_const(value, "i", "value"))  # pyright: ignore[reportArgumentType]


def _inputs(g: Any, node: Node, x: Any, lengths: Any, h: Any) -> list[Any]:
    weights = [g.op("Constant", value_t=weight) for weight in node.onnx_weights()]
    steps = _optional(g, lengths)
    if steps is lengths:
        steps = g.op("Cast", steps, to_i=_INT32)
    return [x, *weights, steps, _optional(g, h)]


def _attributes(node: Node) -> dict[str, Any]:
    return {"hidden_size_i": node.width, "direction_s": node.direction}


def _optional(g: Any, value: Any) -> Any:
    if not value.node().mustBeNone():
        return value
    none = g.op("prim::Constant")
    none.setType(torch._C.OptionalType.ofTensor())
    return none


def _run_node(x: Tensor, lengths: Tensor | None, given: list[Tensor | None], node: Node) -> tuple[Tensor, ...]:
    """Y (time, directions, batch, H), Y_h and Y_c (directions, batch, H), from x (time, batch, I)."""
    zeros = x.new_zeros(len(node.weights), x.shape[1], node.width)
    states = [zeros if state is None else state for state in given]
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
