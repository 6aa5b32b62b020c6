"""Small layers called as wholes, and cells called step by step: what a call costs beside its products."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn

from . import engines
from .measure import Ceiling, Engine, Row, ideal, small_weights, versus

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
        rows += versus(work, call, others, ideal(ceiling, rnn, x, 4), rounds)
    return rows + cells(ceiling, rounds)


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
