"""A step program gives, step by step, what the model gives over the whole sequence, or says why it can't."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from program_models import REFUSED, STEPS, STREAMS
from sparsernn.runtime.program.capture import NotAProgram
from sparsernn.runtime.program.interpreter import Interpreter
from sparsernn.runtime.program.make import make_program


def made(case: tuple[Any, ...], rows: int = 2) -> tuple[nn.Module, Any, Any]:
    torch.manual_seed(0)
    make, example, *options = case
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.2), module.running_var.uniform_(0.5, 2.0)
    given = example()
    return model, given, make_program(model, given, **(options[0] if options else {}))


@pytest.mark.parametrize("name", STREAMS)
def test_steps_are_the_sequence(name: str) -> None:
    """Checked here by its own loop, over more steps than the check that every program passes before it is returned."""
    model, given, found = made(STREAMS[name])
    args = given if isinstance(given, tuple) else (given,)
    steps = 120
    model = model.double()
    axes = found.axes
    generator = torch.Generator().manual_seed(3)

    def longer(x: Tensor, axis: int | None) -> Tensor:
        if axis is None:
            return x.double()
        shape = [steps if n == axis else size for n, size in enumerate(x.shape)]
        if not x.is_floating_point():
            return torch.randint(int(x.max()) + 1, shape, generator=generator)
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = [longer(x, axis) for x, axis in zip(args, axes)]
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.no_grad():
            whole = tree_leaves(model(*inputs))
    finally:
        torch.set_default_dtype(before)
    run = Interpreter(found.program)
    for _ in range(2):
        counts = [0] * len(found.program.outputs)
        for t in range(steps):
            outputs = run.step(*(x if a is None else x.select(a, t) for x, a in zip(inputs, axes)))
            for n, (y, axis) in enumerate(zip(outputs, found.output_axes)):
                if y is None:
                    continue
                if axis is None:
                    if t == steps - 1:
                        assert (y - whole[n]).abs().max() <= 1e-12 * max(1, whole[n].abs().max())
                elif y.dim() < whole[n].dim():
                    assert (y - whole[n].select(axis, counts[n])).abs().max() <= 1e-11
                    counts[n] += 1
        lengths = [whole[n].shape[a] if a is not None else 0 for n, a in enumerate(found.output_axes)]
        assert all(c >= n - 1 for c, n in zip(counts, lengths) if c)
        run.reset()


@pytest.mark.parametrize("name", STEPS)
def test_a_model_of_one_step_keeps_its_state(name: str) -> None:
    """Against the model itself, which is called with the states that it gave."""
    model, given, found = made(STEPS[name])
    args, states = (given if isinstance(given, tuple) else (given,)), found.inputs.is_state
    names, run = found.inputs.names, Interpreter(found.program)
    model = model.double()
    if isinstance(getattr(model, "h", None), Tensor):
        model.h = model.h.double()
    kept = [x.double() if x.is_floating_point() else x for x in found.inputs.tensors]
    for _ in range(15):
        leaves = [k if s else (torch.randn_like(k) if k.is_floating_point() else k) for k, s in zip(kept, states)]
        call, options = found.inputs.arguments(leaves)
        with torch.no_grad():
            want = tree_leaves(model(*call, **options))
        got = run.step(*(x for x, s in zip(leaves, states) if not s))
        for y, leaf in zip(found.leaves, want):
            assert (got[y] - leaf).abs().max() <= 1e-12
        for n, place in found.becomes.items():
            kept[n] = want[place]
    assert len(names) == len(kept) and args


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_the_whole_sequence_is_refused_by_a_sentence(name: str) -> None:
    *_, sentence = REFUSED[name]
    with pytest.raises(NotAProgram, match=sentence):
        made(REFUSED[name])


def test_look_ahead_that_is_allowed_is_waited_for() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(3, 4, 7, padding=3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)

    torch.manual_seed(1)
    net = Net().eval()
    found = make_program(net, torch.randn(1, 9, 3), delay=3)
    run, x = Interpreter(found.program), torch.randn(1, 30, 3, dtype=torch.float64)
    whole = net.double()(x)
    outputs = [run.step(x[:, t])[0] for t in range(30)]
    assert outputs[:3] == [None] * 3
    for t in range(3, 30):
        got = outputs[t]
        assert got is not None and torch.allclose(got, whole[:, t - 3], atol=1e-12)


def test_the_explanation_names_clock_and_line() -> None:
    _, _, found = made(STREAMS["stride 2"])
    text = found.program.explain()
    assert "every 2 steps" in text and "lstm.h" in text and "program_models.py:" in text
