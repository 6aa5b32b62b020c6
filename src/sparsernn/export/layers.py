"""A step program as a chain of layers, for formats that know nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from .._modules import unwrap
from ..runtime.program.calls import NotAProgram
from ..runtime.program.program import CONSTANT, Operation, Program, View
from .examples import made_of
from .refusals import check_model, check_numbers

ACTIVATIONS = ("tanh", "relu", "sigmoid")


@dataclass(frozen=True)
class Link:
    """One layer. kind: "LSTM", "GRU", "RNN_TANH", "RNN_RELU" (weights w_ih, w_hh, b_ih, b_hh, gates as torch has
    them; states h and c of (features,)), "linear" (w, b), "lookup" (w) or an activation."""

    kind: str
    weights: tuple[np.ndarray, ...] = ()
    states: tuple[np.ndarray, ...] = ()
    inputs: int = 0
    outputs: int = 0


def links(what: str, model: nn.Module, example: Any = None) -> list[Link]:
    """The layers of `model`, one sequence. Raises ValueError, by operation and line, for a model that is no chain.

    what: who asks, for the sentences.
    """
    model = unwrap(model)
    check_model(model, what)
    try:
        program = made_of(what, model, example, 1).program
    except NotAProgram as reason:
        raise ValueError(str(reason)) from None
    check_numbers(program, what)
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        raise ValueError(
            f"{what}: got {len(program.inputs)} inputs and {len(program.outputs)} outputs, expected one of each."
        )
    found, now = [], program.inputs[0].view
    for o in program.operations:
        if not isinstance(o.inputs[0], View) or not _same(o.inputs[0], now):
            raise _no_chain(what, o, "takes something else than the result of the layer before")
        found.append(_link(what, program, o))
        now = o.outputs[0]
    if not found:
        raise ValueError(f"{what}: {type(model).__name__} has no layer: its output is its input.")
    if not _same(program.outputs[0].view, now):
        raise ValueError(f"{what}: the output is not that of the last layer.")
    return found


def _link(what: str, program: Program, o: Operation) -> Link:
    if o.kind == "recurrent":
        if o.inputs[5] is not None:
            raise _no_chain(what, o, "has a projection (proj_size)")
        w_ih, w_hh, *biases = [_array(program, v) for v in o.inputs[1:5]]
        if w_ih is None or w_hh is None:
            raise _no_chain(what, o, "has weights that are worked out in the step")
        b_ih, b_hh = (np.zeros(len(w_hh), np.float32) if b is None else b for b in biases)
        states = tuple(_start(program, v) for v in o.inputs[6:] if isinstance(v, View))
        return Link(o.options["mode"], (w_ih, w_hh, b_ih, b_hh), states, w_ih.shape[1], w_hh.shape[1])
    if o.kind in ("linear", "lookup"):
        w, b = (_array(program, v) for v in (*o.inputs[1:3], None)[:2])
        if w is None:
            raise _no_chain(what, o, "has weights that are worked out in the step")
        if o.kind == "lookup":
            return Link("lookup", (w,), (), w.shape[0], w.shape[1])
        return Link("linear", (w, np.zeros(len(w), np.float32) if b is None else b), (), w.shape[1], w.shape[0])
    if o.kind in ACTIVATIONS:
        size = o.outputs[0].shape[-1]
        return Link(o.kind, (), (), size, size)
    raise _no_chain(what, o, "is none of LSTM, GRU, RNN, Linear, Embedding, tanh, relu, sigmoid")


def _same(a: View, b: View) -> bool:
    """Whether both show the same elements; axes of size 1 don't count."""
    shape = [[n for n in v.shape if n != 1] for v in (a, b)]
    return (a.buffer, a.offset, shape[0]) == (b.buffer, b.offset, shape[1]) and a.contiguous and b.contiguous


def _array(program: Program, view: Any) -> np.ndarray | None:
    if not isinstance(view, View) or program.buffers[view.buffer].kind != CONSTANT:
        return None
    value = program.buffers[view.buffer].value
    return None if value is None else view.of(value.detach().cpu().flatten()).float().numpy().copy()


def _start(program: Program, view: View) -> np.ndarray:
    value = program.buffers[view.buffer].value
    return np.zeros(view.size, np.float32) if value is None else view.of(value.flatten()).float().numpy().reshape(-1)


def _no_chain(what: str, o: Operation, why: str) -> ValueError:
    where = f" ({o.source})" if o.source else ""
    return ValueError(f"{what}: {o.kind}{where} {why}: this format has chains of layers only. export_c takes more.")
