"""Every model that streams, over 500 steps: its steps are its whole call, at batch 1 and 3, twice with a reset."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from program_models import STEPS, STREAMS, Policy
from program_runs import apart, equal, furthest, inputs_of, stepped, whole_call
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.processor import processor
from sparsernn.runtime.program.compiled import Compiled
from sparsernn.runtime.program.folding import folded
from sparsernn.runtime.program.interpreter import Interpreter
from sparsernn.runtime.program.stream import ProgramStream

LENGTH = 500


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


@pytest.mark.parametrize("rows", (1, 3))
@pytest.mark.parametrize("name", STREAMS)
def test_the_steps_are_the_whole_call(name: str, rows: int) -> None:
    model, made, stream = opened(STREAMS[name], rows)
    rows = 3 if name == "without a batch" else rows
    run, exact, shorter = stream._run, Interpreter(made.program), Interpreter(folded(made.program))
    equal(model, made, run, LENGTH)
    inputs = inputs_of(made, LENGTH)
    whole = whole_call(model, made, inputs, torch.float64)
    assert max(furthest(made, stepped(made, exact.step, inputs), whole)) <= 1e-12
    inputs = inputs_of(made, 48, seed=4)
    whole = whole_call(model, made, inputs, torch.float64)
    exact.reset()
    assert max(furthest(made, stepped(made, exact.step, inputs), whole)) <= 1e-12
    assert max(furthest(made, stepped(made, shorter.step, inputs), whole)) <= 1e-11
    if processor().vnni:
        small = Compiled(made.program, "int8")
        assert max(furthest(made, stepped(made, small.step, inputs, single=True), whole)) <= 0.3
