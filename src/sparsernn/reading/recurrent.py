"""LSTM, GRU and RNN nodes as torch's layers, one of one layer for each node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..nn.fused import backward_order, reverse
from ..structure.cells import MODES, ONNX_GATES
from .builder import Builder, builds
from .graph import Node, refuse
from .operators.table import operator
from .steps import Step

_KINDS: dict[str, type[nn.RNNBase]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
_USUAL = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


@builds("LSTM", "GRU", "RNN")
def recurrent(b: Builder, node: Node) -> list[Step]:
    mode = _mode(node)
    direction = node.get("direction", "forward")
    if direction not in _DIRECTIONS:
        raise refuse(node.title, f"has direction {direction[:40]}; expected one of {', '.join(_DIRECTIONS)}.")
    count, gates = _DIRECTIONS[direction], MODES[mode].gates
    ih, hh = b.fixed(node, 1, "weight W"), b.fixed(node, 2, "weight R")
    width = hh.shape[-1]
    rows = len(gates) * width
    if ih.ndim != 3 or ih.shape[:2] != (count, rows) or hh.shape != (count, rows, width):
        expected = f"({count}, {len(gates)} * hidden, ...)"
        raise refuse(node.title, f"has weights of shapes {ih.shape} and {hh.shape}; expected {expected}.")
    if node.get("hidden_size", width) != width:
        raise refuse(node.title, f"says hidden_size {node.get('hidden_size')}, but its weights have {width} columns.")
    biases = b.fixed(node, 3, "bias B") if node.input(3) else None
    if biases is not None and biases.shape != (count, 2 * rows):
        raise refuse(node.title, f"has a bias of shape {biases.shape}; expected {(count, 2 * rows)}.")
    if biases is None or not biases.any():
        biases = None
    if node.op == "GRU" and not node.get("linear_before_reset", 0):
        biases = _reset_first(node, hh, biases, width)
    weights: dict[str, nn.Parameter] = {}
    for n, end in zip(range(count), ("_l0", "_l0_reverse")):
        arrays = {"weight_ih": ih[n], "weight_hh": hh[n]}
        if biases is not None:
            arrays |= {"bias_ih": biases[n, :rows], "bias_hh": biases[n, rows:]}
        for name, array in arrays.items():
            ordered = _reordered(array, ONNX_GATES[node.op], gates)
            weights[name + end] = b.made(ordered, node.inputs[1:3], name + end, node.inputs[3:4])

    def make() -> nn.Module:
        own: dict[str, Any] = {"nonlinearity": mode[4:].lower()} if node.op == "RNN" else {}
        options = {"bias": biases is not None, "bidirectional": count > 1, "device": "meta", **own}
        return _KINDS[node.op](ih.shape[-1], width, **options)

    module = b.layer(make, weights, node.input(1), node)
    states = [_unless_zero(b, node.input(5 + n)) for n in range(MODES[mode].states)]
    outputs = [*node.outputs, "", "", ""][:3]
    joined = "" if node.get("layout", 0) else _joined(b, outputs[0], count, width)
    if joined:
        outputs[0] = ""
    return [
        b.step(node, module, [node.input(0), node.input(4), *states], [*outputs, joined],
               direction=direction, layout=node.get("layout", 0))
    ]  # fmt: skip


def _mode(node: Node) -> str:
    """The layer of torch that computes what this node does; refused where there is none."""
    default = _USUAL[node.op] * _DIRECTIONS.get(node.get("direction", "forward"), 1)
    said = tuple(name.lower() for name in node.get("activations", default)) or default
    relu = node.op == "RNN" and set(said) == {"relu"}
    if said != default and not relu:
        raise refuse(node.title, f"has the activations {', '.join(said)[:80]}, which no layer of torch has.")
    for name in ("clip", "input_forget"):
        if node.get(name, 0):
            raise refuse(node.title, f"has {name}={node.get(name)}, which no layer of torch has.")
    if node.op == "LSTM" and node.input(7):
        raise refuse(node.title, "has peepholes (P), which no layer of torch has.")
    return ("RNN_RELU" if relu else "RNN_TANH") if node.op == "RNN" else node.op


def _reordered(array: np.ndarray, have: Sequence[str], want: Sequence[str]) -> np.ndarray:
    parts = dict(zip(have, np.split(array, len(have))))
    return np.concatenate([parts[gate] for gate in want])


def _reset_first(node: Node, hh: np.ndarray, biases: np.ndarray | None, width: int) -> np.ndarray | None:
    """The biases of torch's GRU for one that applies the reset gate before the product, R (r h) + b: the same as
    r (R h), plus b, where R has nothing off its diagonal."""
    order = ONNX_GATES["GRU"]
    n = order.index("n") * width
    if any((part[n : n + width] * (1 - np.eye(width, dtype=part.dtype))).any() for part in hh):
        cure = "Export it with linear_before_reset=1 (Keras: reset_after=True)."
        raise refuse(node.title, "applies its reset gate before the product (linear_before_reset=0).", cure)
    if biases is None:
        return None
    moved = biases.copy()
    place = len(order) * width + n
    moved[:, n : n + width] += moved[:, place : place + width]
    moved[:, place : place + width] = 0
    return moved


def _unless_zero(b: Builder, name: str) -> str:
    """A state that is zero whatever the batch is left out, as torch's layers have it."""
    source, maker = name, b.makers.get(name)
    while maker is not None and maker.op in ("Expand", "Unsqueeze", "Squeeze", "Transpose"):
        source = maker.inputs[0]
        maker = b.makers.get(source)
    if source in b.constants:
        return name if b.constants[source].any() else ""
    if maker is None or maker.op != "ConstantOfShape":
        return name
    value = maker.get("value")
    return name if value is not None and np.any(value) else ""


def _joined(b: Builder, output: str, count: int, width: int) -> str:
    """The name of (time, batch, directions * width), which files make of (time, directions, batch, width)."""
    reader = b.only_reader(output)
    if reader is None:
        return ""
    if reader.op == "Squeeze" and count == 1:
        axes = b.constants.get(reader.inputs[1]) if len(reader.inputs) > 1 else reader.get("axes")
        if axes is not None and [int(axis) for axis in np.asarray(axes).reshape(-1)] == [1]:
            b.done.add(id(reader))
            return reader.outputs[0]
    if reader.op != "Transpose" or tuple(reader.get("perm", ())) != (0, 2, 1, 3):
        return ""
    last = b.only_reader(reader.outputs[0])
    shape = None if last is None or last.op != "Reshape" else b.constants.get(last.inputs[1])
    if last is None or shape is None or shape.tolist() not in ([0, 0, -1], [0, 0, count * width]):
        return ""
    b.done |= {id(reader), id(last)}
    return last.outputs[0]


@operator("LSTM", "GRU", "RNN", module=True)
def run(step: Step, module: Any, x: Tensor, lengths: Tensor | None, *states: Tensor | None) -> tuple[Any, ...]:
    """Y, Y_h, Y_c as ONNX has them, and the outputs as torch has them; those that nobody reads are None."""
    if step.get("layout"):
        x = x.transpose(0, 1)
        states = tuple(None if s is None else s.transpose(0, 1) for s in states)
    backward = step.get("direction") == "reverse"
    given = next((s for s in states if s is not None), None)
    hx: Any = None
    if given is not None:
        full = [torch.zeros_like(given) if s is None else s for s in states]
        hx = tuple(full) if len(full) > 1 else full[0]
    if lengths is None:
        y, last = module(x.flip(0) if backward else x, hx)
        y = y.flip(0) if backward else y
    else:
        y, last = _run_packed(module, x, lengths, hx, backward)
    finals = last if isinstance(last, tuple) else (last,)
    whole = None
    if step.outputs[0]:
        whole = y.unflatten(-1, (2 if module.bidirectional else 1, -1)).transpose(1, 2)
    if step.get("layout"):
        whole = None if whole is None else whole.permute(2, 0, 1, 3)
        finals = tuple(final.transpose(0, 1) for final in finals)
    return whole, *finals, *[None] * (2 - len(finals)), y


def _run_packed(module: Any, x: Tensor, lengths: Tensor, hx: Any, backward: bool) -> tuple[Tensor, Any]:
    packed = pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
    order = backward_order(packed.batch_sizes) if backward else None

    def turned(sequence: PackedSequence) -> PackedSequence:
        return sequence if order is None else sequence._replace(data=reverse(sequence.data, order, False))

    y, last = module(turned(packed), hx)
    return pad_packed_sequence(turned(y), total_length=x.shape[0])[0], last
