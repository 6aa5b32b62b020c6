"""Recurrent highway networks on compiled kernels: as near to float64 as torch, whole sequences and step by step."""

from __future__ import annotations

import copy
import itertools
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from runtime_checks import forced
from sparsernn.nn import RHN
from sparsernn.runtime import threads
from sparsernn.runtime.held import Precision
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.layouts import offered

WORDS = 30


class Language(nn.Module):
    """An embedding that decodes as well."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, width)
        self.rnn = RHN(width, width, depth, transform_bias=-0.5)
        self.head = nn.Linear(width, WORDS)
        self.head.weight = self.embedding.weight

    def forward(self, x_TB: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(x_TB))[0])


def error(fast: nn.Module, model: nn.Module, *inputs: object) -> tuple[float, float]:
    """The largest errors of `fast` and of torch's float32 against float64."""
    with torch.no_grad():
        double = [i.double() if isinstance(i, Tensor) else i.to(torch.float64) for i in inputs]  # type: ignore[attr-defined]
        exact = copy.deepcopy(model).double()(*double)
        outs = []
        for run in (fast, model):
            y, h = run(*inputs)
            pairs = ((getattr(y, "data", y), getattr(exact[0], "data", exact[0])), (h, exact[1]))
            outs.append(max(float((a - b).abs().max()) for a, b in pairs))
    return outs[0], outs[1]


@pytest.mark.smoke
def test_same_function() -> None:
    torch.manual_seed(1)
    yes_no = (False, True)
    for depth, layers, both, first, bias in itertools.product((1, 4), (1, 2), yes_no, yes_no, yes_no):
        options = {"bidirectional": both, "batch_first": first, "bias": bias, "transform_bias": 0.0}
        model = RHN(11, 21, depth, layers, **options).eval()
        fast = accelerate(model)
        x, state = torch.randn(5, 3, 11), torch.randn(layers * (1 + both), 5 if first else 3, 21)
        packed = pack_padded_sequence(torch.randn(4, 3, 11), torch.tensor([2, 4, 1]), enforce_sorted=False)
        for inputs in ((x,), (x, state), (packed,)):
            mine, torchs = error(fast, model, *inputs)
            assert mine <= max(1e-5, 4 * torchs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.filterwarnings("ignore:accelerate. this processor")
def test_every_layout_on_sparse_weights(precision: Precision) -> None:
    torch.manual_seed(2)
    model = RHN(20, 40, 3).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p *= torch.rand(p.shape) < 0.3
        model.weight_hh_d1_l0.zero_()  # what a depth lacks altogether leaves its gates at their biases
    x = torch.randn(7, 3, 20)
    for layout in offered(precision):
        with forced(layout), torch.no_grad():
            fast = accelerate(model, precision)
            mine, torchs = error(fast, model, x)
        assert mine <= (max(1e-5, 4 * torchs) if precision == "float32" else 0.02), layout


def test_the_same_bits_for_one_thread_and_two() -> None:
    torch.manual_seed(3)
    fast, x = accelerate(RHN(9, 40, 3, bidirectional=True).eval()), torch.randn(12, 7, 9)
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with patch.object(threads, "WORTH", 1.0), torch.no_grad():
                found.append(fast(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_a_stream_agrees_with_the_sequence_and_does_not_drift() -> None:
    torch.manual_seed(4)
    model = Language(33, 3).eval()
    fast = accelerate(model)
    stream = fast.stream(2)
    x = torch.randint(WORDS, (300, 2))
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x)
        whole = fast(x)
    steps = torch.stack([stream.step(x_B).clone() for x_B in x])
    assert torch.equal(steps, whole)
    off = (steps - exact).abs().amax((1, 2))
    assert off.max() <= 1e-5 and off[-100:].max() <= 4 * off[:100].max()
    stream.reset()
    assert torch.equal(stream.step(x[0]), steps[0])
    assert [tuple(s.shape) for (s,) in stream.state] == [(2, 33)]


def test_explain_names_every_depth() -> None:
    fast = accelerate(Language(24, 3).eval())
    text = fast.explain()
    assert all(part in text for part in ("rnn.l0: input", "recurrent", "depth 1", "depth 2")) and "depth 3" not in text


def test_units_that_are_alike_are_sorted_together() -> None:
    torch.manual_seed(5)
    model = RHN(64, 64, 2, transform_bias=0.0).eval()
    alike = torch.arange(64) % 4
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                columns = torch.rand(4, p.shape[1]) < 0.3
                p *= columns[alike].repeat(2, 1)
    fast = accelerate(model)
    mine, torchs = error(fast, model, torch.randn(6, 2, 64))
    assert mine <= max(1e-5, 4 * torchs)
    assert "re-sorted" in fast.explain()
