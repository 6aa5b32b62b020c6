"""Small layers called as wholes, and cells called step by step: what a call costs beside its products."""

from __future__ import annotations

import ctypes
import functools
import tempfile
import warnings
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.runtime.compiled import function
from sparsernn.runtime.order import WIDTH

from . import engines
from .measure import Ceiling, Engine, Ideal, Row, ideal, quickest, small_weights, versus

SHAPES = (
    (24, 32, 63),
    (48, 32, 31),
    (96, 32, 15),
    (32, 32, 10),
    (40, 64, 20),
    (64, 128, 8),
    (61, 256, 1),
    (96, 256, 40),
)
EACH = 1.2  # times onnxruntime's speed at each point; twice in the median
CELLS = (32, 64, 128, 256)
LOOP = 20  # steps of a loop in Python
LOOP_TARGET = 1.5  # times the speed of torch's own cell


class Whole(nn.Module):
    """A layer whose output alone is wanted."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


class Loop(nn.Module):
    """A cell that is called once a step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        state: Any = None
        for step in x:
            state = self.cell(step, state)
        return state[0] if isinstance(state, tuple) else state


def tiny(ceiling: Ceiling, rounds: int) -> list[Row]:
    """Small LSTM and GRU layers called as wholes, against onnxruntime; accelerated cells in a loop, against torch's."""
    rows = []
    for cls, (inputs, units, steps), layers, both, batch in product(
        (nn.LSTM, nn.GRU), SHAPES, (1, 2), (False, True), (1, 4)
    ):
        rnn = small_weights(cls(inputs, units, layers, bidirectional=both))
        model, x = Whole(rnn).eval(), torch.randn(steps, batch, inputs)
        fast = srn.accelerate(model)
        form = f"{layers} layer{'s' * (layers > 1)}{', both directions' if both else ''}"
        work = f"{cls.__name__} {inputs} -> {units}, {form}, T{steps} B{batch}"
        others = {"onnxruntime": onnx_of(model, x), "torch": engines.same(lambda model=model, x=x: model(x))}
        call = engines.same(lambda fast=fast, x=x: fast(x))
        rows += versus(work, call, others, limit(ceiling, rnn, x), rounds)
    return rows + cells(ceiling, rounds)


def limit(ceiling: Ceiling, rnn: nn.RNNBase, x: Tensor) -> Ideal:
    """The least that the call can take: what Python takes for two modules that only make the tensors of the result,
    then layer by layer the products (operations at the peak, or bytes of weights: input weights once, recurrent ones
    at each step after the first, which starts from zeros) and the gates at the pace of many rows."""
    steps, batch = x.shape[:2]
    peak, block = ceiling.operations, gates(type(rnn).__name__)
    seconds = {"call": quickest(_empty(rnn, x), 50, 60), "operations": 0.0, "bytes": 0.0, "gates": 0.0}
    for name, weight in rnn.named_parameters():
        if weight.dim() < 2:
            continue
        again, rows = (1, steps * batch) if "ih" in name else (steps - 1, batch)
        computing, size = 2 * weight.numel() * rows / peak, 4 * weight.numel()
        reading = size / ceiling.bandwidth(size)
        seconds["operations" if computing > reading else "bytes"] += again * max(computing, reading)
        if "hh" in name:
            seconds["gates"] += block * steps * batch * rnn.hidden_size / WIDTH
    return Ideal(sum(seconds.values()), max(seconds, key=lambda bound: seconds[bound]))


def _empty(rnn: nn.RNNBase, x: Tensor) -> Callable[[], Any]:
    class Result(nn.Module):
        def forward(self, x: Tensor) -> Any:
            y, h = x.new_empty(*out), x.new_empty(*state)
            return y, (h, x.new_empty(*state)) if isinstance(rnn, nn.LSTM) else h

    both = 1 + rnn.bidirectional
    out, state = (*x.shape[:2], both * rnn.hidden_size), (both * rnn.num_layers, x.shape[1], rnn.hidden_size)
    model = Whole(Result())
    return lambda: model(x)


@functools.cache
def gates(kind: str) -> float:
    """Seconds of gates and state of a block of WIDTH units, of our own kernel on many rows."""
    units, rows, slots = 4, 64, 4
    values = torch.randn(rows, units * slots * WIDTH), torch.randn(2, rows, units * WIDTH)
    place = torch.zeros(2, dtype=torch.int64)
    width = 4 * WIDTH * units
    numbers = (units, units * WIDTH, values[0].data_ptr(), slots * width, rows, values[1].data_ptr(), rows * width)
    arguments = [ctypes.c_int64(n) for n in (*numbers, width, place.data_ptr())]
    kernel = function(f"cells.{kind.lower()}", 9)
    return quickest(lambda: kernel(*arguments), 5, 1000) / (units * rows)


def cells(ceiling: Ceiling, rounds: int) -> list[Row]:
    rows = []
    for cls, units in product((nn.LSTMCell, nn.GRUCell), CELLS):
        cell = small_weights(cls(128, units))
        model, x = Loop(cell).eval(), torch.randn(LOOP, 1, 128)
        fast, xs = srn.accelerate(model), x.unbind(0)
        others = {"torch's cell": engines.same(lambda model=model, xs=xs: model(xs), LOOP_TARGET)}
        call = engines.same(lambda fast=fast, xs=xs: fast(xs))
        # Every step reads both matrices anew.
        step = ideal(ceiling, cell, x[:1], 4)
        rows += versus(f"{cls.__name__} 128 -> {units}, loop of {LOOP}", call, others, step.times(LOOP), rounds)
    return rows


def onnx_of(model: nn.Module, x: Tensor) -> Engine:
    """The model as torch's exporter writes it: one LSTM or GRU operator a layer."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        srn.export_onnx(model, path, x)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    return engines.same(lambda: session.run(None, feed)[0], EACH)
