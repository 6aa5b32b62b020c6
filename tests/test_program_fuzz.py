"""Random step programs, compiled: every kind of view, clock and state beside each other."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from program_cases import error, inputs_for
from sparsernn.runtime.program.lowering import table
from sparsernn.runtime.program.program import (
    CONSTANT,
    INPUT,
    STATE,
    WORK,
    Buffer,
    Clock,
    Operation,
    Port,
    Program,
    View,
    whole,
)


class Maker:
    """Writes a random program: each new value is made of earlier ones, seen through views of every kind."""

    def __init__(self, draw: Any, batch: int) -> None:
        self.draw, self.batch = draw, batch
        self.buffers: dict[str, Buffer] = {}
        self.operations: list[Operation] = []
        self.values: list[tuple[View, Clock]] = []
        torch.manual_seed(draw(st.integers(0, 1000)))

    def buffer(self, shape: tuple[int, ...], kind: str, value: Tensor | None = None) -> View:
        name = f"v{len(self.buffers)}"
        view = whole(name, shape)
        self.buffers[name] = Buffer(name, view.size, "float", kind, None if value is None else value.reshape(-1))
        return view

    def constant(self, *shape: int) -> View:
        return self.buffer(shape, CONSTANT, torch.randn(*shape, dtype=torch.float64) / max(1, shape[-1]) ** 0.5)

    def made(self, kind: str, inputs: tuple[Any, ...], shape: tuple[int, ...], clock: Clock, **options: Any) -> View:
        out = self.buffer(shape, WORK)
        self.operations.append(Operation(kind, inputs, (out,), options, clock))
        self.values.append((out, clock))
        return out

    def value(self) -> tuple[View, Clock]:
        """An earlier value, (batch, n), perhaps a part of it or every second number."""
        view, clock = self.draw(st.sampled_from(self.values))
        width, step = view.shape[1], view.strides[1]
        how = self.draw(st.integers(0, 3))
        if how == 1 and width > 2:
            return View(view.buffer, (self.batch, width - 2), view.strides, view.offset + step), clock
        if how == 2 and width > 1:
            return View(view.buffer, (self.batch, (width + 1) // 2), (view.strides[0], 2 * step), view.offset), clock
        return view, clock

    def more(self) -> None:
        x, clock = self.value()
        if self.draw(st.integers(0, 5)) == 0:
            clock = Clock(2 * clock.every, clock.first)
        width, draw = x.shape[1], self.draw
        kind = draw(st.sampled_from(["unary", "binary", "linear", "past", "rows", "cell", "spread", "turned"]))
        if kind == "unary":
            self.made(draw(st.sampled_from(["tanh", "relu", "sigmoid", "silu", "erf", "neg"])), (x,), x.shape, clock)
        elif kind == "binary":
            other = [v for v, c in self.values if v.shape == x.shape and c == clock]
            y = draw(st.sampled_from([x, 0.5, self.constant(1, width), *other]))
            y = View(y.buffer, x.shape, (0, 1)) if isinstance(y, View) and y.shape[0] != self.batch else y
            self.made(
                draw(st.sampled_from(["add", "mul", "maximum"][: 2 + isinstance(y, View)])), (x, y), x.shape, clock
            )
        elif kind == "linear":
            out = draw(st.sampled_from([1, 8, 11, 16, 20]))
            bias = draw(st.sampled_from([None, self.constant(out)]))
            self.made("linear", (x, self.constant(out, width), bias), (self.batch, out), clock)
        elif kind == "past":
            length, out = draw(st.integers(1, 5)), draw(st.sampled_from([4, 16]))
            past = self.buffer((length, self.batch, width), STATE)
            self.operations.append(Operation("push", (x,), (past,), {}, clock))
            window = View(past.buffer, (self.batch, width, length), (width, 1, self.batch * width))
            y = self.buffer((self.batch, out, 1), WORK)
            inputs = window, self.constant(out, width, length), None
            self.operations.append(Operation("conv", inputs, (y,), {}, clock))
            self.values.append((View(y.buffer, (self.batch, out), (out, 1)), clock))
        elif kind == "rows":
            name = draw(st.sampled_from(["softmax", "normalise", "sum"]))
            if name == "sum":
                self.made(name, (x,), (self.batch,), clock, axes=1)
                view, clock = self.values.pop()
                self.values.append((View(view.buffer, (self.batch, 5), (1, 0)), clock))
            elif name == "normalise":
                inputs = x, self.constant(width), None
                self.made(name, inputs, x.shape, clock, axes=1, eps=1e-3, rms=draw(st.booleans()))
            else:
                self.made(name, (x,), x.shape, clock)
        elif kind == "cell":
            hidden = draw(st.sampled_from([3, 8, 16]))
            h = self.buffer((self.batch, hidden), STATE)
            inputs = x, self.constant(3 * hidden, width), self.constant(3 * hidden, hidden), None, None, None, h
            self.operations.append(Operation("recurrent", inputs, (h,), {"mode": "GRU"}, clock))
            self.values.append((h, clock))
        elif kind == "spread":
            self.made("copy", (View(x.buffer, (self.batch, 3), (x.strides[0], 0), x.offset),), (self.batch, 3), clock)
        else:
            y = self.buffer((width, self.batch), WORK)
            turned = View(x.buffer, (width, self.batch), x.strides[::-1], x.offset)
            self.operations.append(Operation("abs", (turned,), (y,), {}, clock))
            self.values.append((View(y.buffer, (self.batch, width), (1, self.batch)), clock))


@st.composite
def programs(draw: Any) -> Program:
    batch = draw(st.sampled_from([1, 3]))
    maker = Maker(draw, batch)
    ports = []
    for n in range(draw(st.integers(1, 2))):
        x = maker.buffer((batch, draw(st.sampled_from([1, 5, 16, 19]))), INPUT)
        ports.append(Port(f"x{n}", x))
        maker.values.append((x, Clock()))
    for _ in range(draw(st.integers(1, 8))):
        maker.more()
    outputs = tuple(Port(f"y{n}", v, c) for n, (v, c) in enumerate(maker.values[-3:]))
    return Program(maker.buffers, tuple(maker.operations), tuple(ports), outputs)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(), st.sampled_from([0, 1 << 30]))
def test_random_programs(program: Program, bytes_: int) -> None:
    before = table.RING_BYTES
    table.RING_BYTES = bytes_
    try:
        assert error(program, inputs_for(program, 9)) <= 2e-5
    finally:
        table.RING_BYTES = before
