"""What has no step program is refused by a sentence; look-ahead is waited for."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from program_models import STREAMS
from program_networks import Function
from program_newcomers import NOT_NEWCOMERS
from program_refused import NOT_NEIGHBOURS, REFUSED
from program_strangers import STRANGE, Record
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.program.calls import NotAProgram
from sparsernn.runtime.program.check import _all_same
from sparsernn.runtime.program.interpreter import Interpreter
from sparsernn.runtime.program.make import make_program

# No line asks for these: attributes, the output as a whole, and what only the check of many steps finds.
WITHOUT_LINE = (
    "a count in Python", "a list as long as the sequence", "each hundredth step in Python", "longer than a number",
    "no more than so many steps", "each three hundredth step",
)  # fmt: skip


def made(case: tuple[Any, ...], rows: int = 2) -> tuple[nn.Module, Any, Any]:
    torch.manual_seed(0)
    make, example, *options = case
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.2), module.running_var.uniform_(0.5, 2.0)
    given = example()
    return model, given, make_program(model, given, **(options[0] if options else {}))


@pytest.mark.counts("misuses", 1)
@pytest.mark.parametrize("name", (REFUSED | STRANGE | NOT_NEIGHBOURS | NOT_NEWCOMERS))
def test_what_needs_the_whole_sequence_is_refused_by_a_sentence(name: str) -> None:
    *_, sentence = case = (REFUSED | STRANGE | NOT_NEIGHBOURS | NOT_NEWCOMERS)[name]
    with pytest.raises(NotAProgram, match=sentence) as caught:
        made(case)
    assert ": " in str(caught.value).rstrip(".") or ". " in str(caught.value)  # what to do follows
    assert re.search(r" \(\w+\.py:\d+\)", str(caught.value)) or name in WITHOUT_LINE
    assert not torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()  # whatever forward had switched


def test_a_branch_in_a_file_that_is_called_as_torchs_is_no_packing() -> None:
    space: dict[str, Any] = {}
    exec(compile("def go(m, x):\n    return m.l(x) if x.sum() > 0 else x\n", "mine/rnn.py", "exec"), space)
    with pytest.raises(NotAProgram, match=r"reads a tensor's value into Python \(rnn.py:2\)"):
        make_program(Function(space["go"], l=nn.Linear(4, 4)).eval(), torch.randn(2, 9, 4))


def test_a_value_that_is_read_in_python_and_stays_may_be_nan() -> None:
    class Limited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 5, batch_first=True)
            self.register_buffer("limit", torch.tensor(torch.nan))

        def forward(self, x: Tensor) -> Tensor:
            y, most = self.gru(x)[0], self.limit.item()
            return y if most != most else y.clamp(max=most)

    assert make_program(Limited().eval(), torch.randn(2, 9, 4)).program.states


@pytest.mark.parametrize("other", [1.0, torch.inf, torch.nan])
def test_beside_an_infinity_other_numbers_still_have_to_be_the_same(other: float) -> None:
    want = torch.tensor([[-torch.inf, 1.0], [2.0, other]])
    _all_same("y", [(0, want, want.clone())], 1e-4)
    for place in ((0, 0), (0, 1), (1, 0), (1, 1)):
        got = want.clone()
        got[place] = 5.0
        with pytest.raises(NotAProgram, match="step 0 gives another y"):
            _all_same("y", [(0, got, want)], 1e-4)


def test_an_example_whose_tensors_are_hidden_is_refused() -> None:
    with pytest.raises(TypeError, match="holds Record, no tensor"):
        accelerate(nn.GRU(3, 4).eval()).stream(example=(Record(torch.randn(9, 1, 3)),))


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
    assert "every 2 steps" in text and "lstm.h" in text and "program_networks.py:" in text
