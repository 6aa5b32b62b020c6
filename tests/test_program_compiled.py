"""Compiled step programs give what the interpreter gives, whatever they are made of."""

from __future__ import annotations

import gc
import threading
import tracemalloc

import pytest
import torch
from torch import Tensor, nn

from program_cases import error, inputs_for
from program_models import STREAMS
from program_steps import STEPS
from sparsernn.runtime.program.compiled import Compiled
from sparsernn.runtime.program.folding import folded
from sparsernn.runtime.program.interpreter import Interpreter
from sparsernn.runtime.program.lowering import table
from sparsernn.runtime.program.make import make_program
from sparsernn.runtime.program.program import (
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


def single(inputs: list[Tensor]) -> list[Tensor]:
    return [x.float() if x.is_floating_point() else x for x in inputs]


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


def test_norms_go_into_the_products_before_them() -> None:
    for name, kinds in (("TCN and GRU", {"mul"}), ("CRN", set())):
        program = program_of(name)
        shorter = folded(program)
        assert len(shorter.operations) < len(program.operations)
        constants = {n for n, b in shorter.buffers.items() if b.kind == CONSTANT}
        left = {o.kind for o in shorter.operations if any(getattr(v, "buffer", "") in constants for v in o.inputs)}
        left &= {"mul", "add", "before"}
        assert left <= kinds, (name, left)


@pytest.mark.parametrize("groups", (1, 2))
def test_factors_and_terms_of_transposed_convolutions_and_linear_layers(groups: int) -> None:
    torch.manual_seed(groups)
    shapes = {"x": (2, 4, 5), "y": (2, 6, 5), "z": (2, 6, 5), "row": (2, 3)}
    buffers = {n: Buffer(n, torch.Size(s).numel(), "float", INPUT if n == "x" else WORK) for n, s in shapes.items()}

    def constant(name: str, *shape: int) -> View:
        value = torch.randn(*shape, dtype=torch.float64)
        buffers[name] = Buffer(name, value.numel(), "float", CONSTANT, value.reshape(-1))
        return whole(name, shape)

    y, z, row = (whole(n, shapes[n]) for n in ("y", "z", "row"))
    channel = View("factor", (2, 6, 5), (0, 1, 0))
    constant("factor", 6), constant("term", 6)
    inputs = whole("x", shapes["x"]), constant("w", 4, 6 // groups, 3), None
    operations = (
        Operation("conv_transpose", inputs, (y,), {"padding": 1, "groups": groups}),
        Operation("mul", (channel, y), (y,)),
        Operation("sub", (y, View("term", (2, 6, 5), (0, 1, 0))), (z,)),
        Operation("linear", (View("z", (2, 30), (30, 1)), constant("v", 3, 30), constant("b", 3)), (row,)),
        Operation("add", (constant("one", 1, 3), constant("two", 1, 3)), (whole("three", (1, 3)),)),
        Operation("div", (row, View("three", (2, 3), (0, 1))), (row,)),
    )
    buffers["three"] = Buffer("three", 3, "float", WORK)
    program = Program(buffers, operations, (Port("x", inputs[0]),), (Port("row", row), Port("z", z)))
    shorter = folded(program)
    assert [o.kind for o in shorter.operations] == ["conv_transpose", "linear"]
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    for want, got in zip(Interpreter(program).step(x), Interpreter(shorter).step(x)):
        assert want is not None and got is not None and (want - got).abs().max() <= 1e-12
