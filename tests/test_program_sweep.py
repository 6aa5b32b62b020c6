"""Every model that streams: its steps are its whole call, 500 at batch 1 and 120 at batch 3, twice with a reset."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from program_cases import inputs_for
from program_models import STREAMS
from program_neighbours import NEIGHBOURS
from program_newcomers import NEWCOMERS
from program_runs import apart, equal, furthest, inputs_of, stepped, whole_call
from program_steps import STEPS, Policy
from program_strangers import STRANGERS
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.layouts import multiplied
from sparsernn.runtime.program.compiled import Compiled
from sparsernn.runtime.program.folding import folded
from sparsernn.runtime.program.interpreter import Interpreter
from sparsernn.runtime.program.made import Made
from sparsernn.runtime.program.program import CONSTANT, Program, View
from sparsernn.runtime.program.stream import ProgramStream

LENGTHS = ((1, 500), (3, 120), pytest.param(3, 500, marks=pytest.mark.nightly))  # batch and steps


def opened(case: tuple[Any, ...], rows: int) -> tuple[nn.Module, Any, ProgramStream]:
    torch.manual_seed(0)
    make, example, *options = case
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.2), module.running_var.uniform_(0.5, 2.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="accelerate: .* has no LSTM")
        stream = accelerate(model).stream(rows, example=example(), **(options[0] if options else {}))
    assert isinstance(stream, ProgramStream)
    return model, stream._made, stream


def in_int8(made: Made, inputs: list[Tensor], whole: list[Tensor]) -> None:
    """Twice with a reset as near as eight bits are; and of matrices that eight bits can say, as near as float32 where
    the processor multiplies them as such."""
    small = Compiled(made.program, "int8")
    for _ in range(2):
        assert max(furthest(made, stepped(made, small.step, inputs, single=True), whole)) <= 0.05
        small.reset()
    if multiplied("int8") == "float32":
        said = replace(made, program=in_three_numbers(made.program))
        exact, small = Interpreter(said.program), Compiled(said.program, "int8")
        for frames in inputs_for(said.program, 24):
            singles = [x.float() if x.is_floating_point() else x for x in frames]
            for want, got in zip(exact.step(*frames), small.step(*singles)):
                assert (want is None) == (got is None)
                assert want is None or got is None or apart(got, want) <= 1e-5


def in_three_numbers(program: Program) -> Program:
    """The program with matrices of -w, 0 and w alone, w another one in each row."""
    generator, buffers = torch.Generator().manual_seed(0), dict(program.buffers)
    for operation in program.operations:
        for place in {"linear": (1,), "conv": (1,), "recurrent": (1, 2, 5)}.get(operation.kind, ()):
            view = operation.inputs[place]
            if isinstance(view, View) and buffers[view.buffer].kind == CONSTANT and view.strides:
                rows = torch.randint(-1, 2, (view.shape[0], view.size // view.shape[0]), generator=generator)
                size = torch.rand(view.shape[0], 1, generator=generator, dtype=torch.float64)
                value = (rows * size / rows.shape[1] ** 0.5).reshape(-1)
                if value.numel() == buffers[view.buffer].size and view.contiguous:
                    buffers[view.buffer] = replace(buffers[view.buffer], value=value)
    return replace(program, buffers=buffers)


@pytest.mark.parametrize(("rows", "length"), LENGTHS)
@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_the_steps_are_the_whole_call(name: str, rows: int, length: int) -> None:
    if name == "without a batch" and rows > 1:
        pytest.skip("it has none")
    model, made, stream = opened(STREAMS[name], rows)
    exact = Interpreter(made.program)
    equal(model, made, stream._run, length)
    inputs = inputs_of(made, length)
    whole = whole_call(model, made, inputs, torch.float64)
    assert max(furthest(made, stepped(made, exact.step, inputs), whole)) <= 1e-12
    inputs = inputs_of(made, 48, seed=4)
    whole = whole_call(model, made, inputs, torch.float64)
    exact.reset()
    assert max(furthest(made, stepped(made, exact.step, inputs), whole)) <= 1e-12
    if rows == 1:
        shorter = Interpreter(folded(made.program))
        assert max(furthest(made, stepped(made, shorter.step, inputs), whole)) <= 1e-11
    in_int8(made, inputs, whole)


@pytest.mark.parametrize("name", STRANGERS | NEIGHBOURS | NEWCOMERS)
def test_the_steps_of_other_peoples_models_are_the_whole_call(name: str) -> None:
    model, made, stream = opened((STRANGERS | NEIGHBOURS | NEWCOMERS)[name], 2)
    exact, inputs = Interpreter(made.program), inputs_of(made, 96)
    whole = whole_call(model, made, inputs, torch.float64)
    for _ in range(2):
        assert max(furthest(made, stepped(made, exact.step, inputs), whole)) <= 1e-12
        exact.reset()
    equal(model, made, stream._run, 96)


@pytest.mark.parametrize(("rows", "length"), LENGTHS)
@pytest.mark.parametrize("name", STEPS)
def test_a_model_of_one_step_keeps_its_state(name: str, rows: int, length: int) -> None:
    """Against the model itself, which is called with the states that it gave."""
    case = (lambda: Policy(rows), *STEPS[name][1:]) if name == "policy" else STEPS[name]
    model, made, stream = opened(case, rows)
    states, model, fresh = made.inputs.is_state, model.double(), copy.deepcopy(model).double()
    for own in (model, fresh):
        if isinstance(getattr(own, "h", None), torch.Tensor):
            own.h = own.h.double()
    kept = [x.double() if x.is_floating_point() else x for x in made.inputs.tensors]
    exact = Interpreter(made.program)
    start = list(kept)
    whole: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in made.leaves]  # of each leaf: exact, near, wanted
    for t in range(2 * length):
        if t == length:
            kept, model = start, fresh
            exact.reset(), stream.reset()
        leaves = [k if s else (torch.randn_like(k) if k.is_floating_point() else k) for k, s in zip(kept, states)]
        call, options = made.inputs.arguments(leaves)
        with torch.no_grad():
            want = tree_leaves(model(*call, **options))
        given = [x for x, s in zip(leaves, states) if not s]
        got = exact.step(*given)
        near = stream._run.step(*(x.float() if x.is_floating_point() else x for x in given))
        for seen, y, leaf in zip(whole, made.leaves, want):
            seen.append((got[y].clone(), near[y].clone(), leaf))
        for n, place in made.becomes.items():
            kept[n] = want[place]
    for seen in whole:
        exactly, nearly, want = map(torch.stack, zip(*seen))
        assert apart(exactly, want) <= 1e-12 and apart(nearly, want) <= 1e-5


@pytest.mark.parametrize("name", ("CRN", "stride 2", "two loops", "attention decoder"))
def test_a_run_goes_on_from_a_state_that_was_kept(name: str) -> None:
    _, made, stream = opened({**STREAMS, **STEPS}[name], 2)
    run, kept = stream._run, None
    steps = [[x.float() if x.is_floating_point() else x for x in given] for given in inputs_for(made.program, 40)]
    for n, inputs in enumerate(steps):
        if n == 25:
            kept = run.content(), run.number
        run.step(*inputs)
    ends = run.content()
    assert kept is not None
    run.restore(*kept)
    for inputs in steps[25:]:
        run.step(*inputs)
    assert all(torch.equal(run.content()[key], end) for key, end in ends.items())
