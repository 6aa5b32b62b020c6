"""Compiled step programs give what the interpreter gives, whatever they are made of."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from program_cases import apart, error
from program_models import STEPS, STREAMS
from sparsernn.runtime.processor import processor
from sparsernn.runtime.program.compiled import Compiled
from sparsernn.runtime.program.interpreter import Interpreter
from sparsernn.runtime.program.lowering import table
from sparsernn.runtime.program.make import make_program
from sparsernn.runtime.program.program import (
    BOOL,
    CONSTANT,
    INPUT,
    INT,
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

MODELS = {**STREAMS, **STEPS}


def program_of(name: str) -> Program:
    torch.manual_seed(0)
    make, example, *options = MODELS[name]
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.2), module.running_var.uniform_(0.5, 2.0)
    return make_program(model, example(), **(options[0] if options else {})).program


def inputs_for(program: Program, steps: int, seed: int = 1) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def one(port: Port) -> Tensor:
        kind, shape = program.buffers[port.view.buffer].dtype, port.view.shape
        if kind == INT:
            return torch.randint(2, shape, generator=generator)
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return noise > 0 if kind == BOOL else noise

    return [[one(port) for port in program.inputs] for _ in range(steps)]


def single(inputs: list[Tensor]) -> list[Tensor]:
    return [x.float() if x.is_floating_point() else x for x in inputs]


@pytest.mark.parametrize("name", MODELS)
def test_models_compiled(name: str) -> None:
    """Twice with a reset, and once from a state that was kept; in int8 near enough to be the same function."""
    program = program_of(name)
    oracle, run, kept = Interpreter(program), Compiled(program), None
    steps = inputs_for(program, 40)
    for _ in range(2):
        for n, inputs in enumerate(steps):
            if n == 25:
                kept = run.content(), run.number
            for want, got in zip(oracle.step(*inputs), run.step(*single(inputs))):
                assert (want is None) == (got is None)
                assert want is None or apart(want, got) <= 1e-5
        ends = run.content()
        oracle.reset(), run.reset()
    assert kept is not None
    run.restore(*kept)
    for inputs in steps[25:]:
        run.step(*single(inputs))
    assert all(torch.equal(run.content()[key], end) for key, end in ends.items())
    if processor().vnni:
        small = Compiled(program, "int8")
        for inputs in steps:
            for want, got in zip(oracle.step(*inputs), small.step(*single(inputs))):
                assert want is None or got is None or apart(want, got) <= 0.3


def memory_program(batch: int, length: int, dtype: str = "float") -> Program:
    """The sum over what was pushed, a window on it, and the oldest row, which leaves as an output."""
    shape = (batch, 3)
    buffers = [
        Buffer("x", 3 * batch, dtype, INPUT),
        Buffer("past", 3 * batch * length, dtype, STATE),
        Buffer("sum", 3 * batch, "float", WORK),
        Buffer("last", 3 * batch, "float", WORK),
        Buffer("count", 1, "float", STATE),
    ]
    x, past = whole("x", shape), whole("past", (length, *shape))
    turned = View("past", (*shape, length), (3, 1, 3 * batch))
    operations = (
        Operation("add", (View("past", shape, (3, 1)), 0.5), (whole("last", shape),)),
        Operation("push", (x,), (past,)),
        Operation("sum", (turned,), (whole("sum", shape),), {"axes": 1}),
        Operation("add", (whole("count", (1,)), 1.0), (whole("count", (1,)),)),
    )
    outputs = ("sum", whole("sum", shape)), ("oldest", View("past", shape, (3, 1))), ("last", whole("last", shape))
    return Program({b.name: b for b in buffers}, operations, (Port("x", x),), tuple(Port(n, v) for n, v in outputs))


@pytest.mark.parametrize("bytes_", (0, 1 << 30))
@pytest.mark.parametrize("batch", (1, 3))
def test_memories_of_past_steps(batch: int, bytes_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved at each step or by a window that moves over them: nobody can tell."""
    monkeypatch.setattr(table, "RING_BYTES", bytes_)
    for length in (1, 2, 7, 40):
        for dtype in ("float", INT):
            program = memory_program(batch, length, dtype)
            steps = inputs_for(program, 100)
            assert error(program, steps) <= 1e-5
            run = Compiled(program)
            for inputs in steps[:50]:
                run.step(*single(inputs))
            kept = run.content(), run.number
            ends = [[y.clone() for y in run.step(*single(i)) if y is not None] for i in steps[50:60]]
            run.restore(*kept)
            again = [[y.clone() for y in run.step(*single(i)) if y is not None] for i in steps[50:60]]
            assert all(torch.equal(a, b) for x, y in zip(ends, again) for a, b in zip(x, y))


def test_clocks_and_what_stands_before_the_begin() -> None:
    shape = (2, 5)
    names = {"x": INPUT, "a": WORK, "b": WORK, "c": WORK, "s": STATE}
    buffers = {n: Buffer(n, 10, "float", k) for n, k in names.items()}
    buffers["start"] = Buffer("start", 30, "float", CONSTANT, torch.arange(30.0))
    x, a, b, c, s = (whole(n, shape) for n in names)
    late = Clock(1, 2)
    operations = (
        Operation("before", (x, whole("start", (3, *shape))), (a,), {"until": 3}),
        Operation("before", (a, 7.0), (b,), {"until": 4}, Clock(2, 0)),
        Operation("before", (b, 7.0), (c,), {"until": 0}, late),
        Operation("add", (s, b), (s,), {}, Clock(3, 1)),
        Operation("mul", (s, 0.5), (c,), {}, Clock(3, 1)),
    )
    outputs = Port("a", a), Port("b", b, Clock(2, 0)), Port("c", c, late), Port("s", s, Clock(3, 1))
    program = Program(buffers, operations, (Port("x", x),), outputs)
    steps = inputs_for(program, 30)
    assert error(program, steps) <= 1e-6
    oracle, run = Interpreter(program), Compiled(program)
    run.number = 11
    for inputs in steps[:11]:
        oracle.step(*inputs)
    assert [y is None for y in oracle.step(*steps[11])] == [y is None for y in run.step(*single(steps[11]))]


def test_a_token_outside_of_the_table_changes_nothing() -> None:
    program = program_of("language model")
    run = Compiled(program)
    shape, rows = program.inputs[0].view.shape, next(o for o in program.operations if o.kind == "lookup").inputs[1]
    assert isinstance(rows, View)
    run.step(torch.ones(shape, dtype=torch.int64))
    before, number = run.content(), run.number
    for wrong in (rows.shape[0], -1, 2**40):
        with pytest.raises(IndexError, match=f"outside of the embedding's rows, 0 to {rows.shape[0] - 1}"):
            run.step(torch.full(shape, wrong, dtype=torch.int64))
        assert run.number == number and all(torch.equal(v, run.content()[n]) for n, v in before.items())


def test_runs_in_threads_and_after_their_program() -> None:
    program = program_of("TCN and GRU")
    steps = [single(i) for i in inputs_for(program, 150)]
    first = Compiled(program)
    runs = [first, first.another(), Compiled(program), first.another()]
    alone = [y.clone() for i in steps for y in runs[2].step(*i) if y is not None]
    runs[2].reset()
    del program, first
    gc.collect()
    found: dict[int, list[Tensor]] = {}

    def work(n: int) -> None:
        found[n] = [y.clone() for i in steps for y in runs[n].step(*i) if y is not None]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(got) == len(alone) and all(map(torch.equal, got, alone)) for got in found.values())


def test_ten_thousand_steps_in_the_same_memory() -> None:
    program = program_of("CRN")
    run, (x,) = Compiled(program), single(inputs_for(program, 1)[0])
    for _ in range(100):
        run.step(x)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(10_000):
        run.step(x)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2000
    assert all(value.isfinite().all() for value in run.content().values())


def test_inputs_are_looked_at() -> None:
    run = Compiled(memory_program(2, 3))
    x = torch.randn(2, 3)
    for wrong, kind in ((3, TypeError), (x.double(), TypeError), (x[:1], ValueError), (x.to("meta"), ValueError)):
        with pytest.raises(kind, match="expected"):
            run.step(wrong)
    with pytest.raises(TypeError, match="got 2 inputs, expected 1: x"):
        run.step(x, x)
    turned = run.step(x.T.contiguous().T)[2]
    assert turned is not None and run.number == 1


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
