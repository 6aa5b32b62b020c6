"""No check takes NaN for equal: a sentence says where the first one arose, and the units stay. All types of outputs."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import sparsernn as srn
from sparsernn.structure import examples
from sparsernn.structure.check import _Checker
from sparsernn.structure.compare import difference
from sparsernn.structure.trace import quiet, trace
from sparsernn.surgery.verify import mismatch

NAN = math.nan


class Net(nn.Module):
    def __init__(self, after=lambda y: y) -> None:
        super().__init__()
        self.rnn, self.fc, self.after = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2), after

    def forward(self, x):
        return self.after(self.fc(self.rnn(x)[0]))


def made(after=lambda y: y, dead=(1, 2, 5)) -> tuple[Net, torch.Tensor]:
    torch.manual_seed(0)
    model = Net(after).eval()
    with torch.no_grad():
        for weight in (model.rnn.weight_hh_l0, model.fc.weight):
            weight[:, list(dead)] = 0.0
    return model, torch.randn(2, 4, 3)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (NAN, NAN),
        (torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN])),
        (torch.tensor([1.0, NAN]).half(), torch.tensor([1.0, NAN]).half()),
        (torch.tensor([complex(0, NAN)]), torch.tensor([complex(0, NAN)])),
        (np.array([NAN]), np.array([NAN])),
        (torch.tensor([1.0]), torch.tensor([NAN])),
        (torch.tensor([NAN]), torch.tensor([1.0])),
        (torch.tensor([1.0, math.inf]), torch.tensor([1.0, -math.inf])),
        (torch.tensor([1j]), torch.tensor([-1j])),
        (torch.tensor([1]), torch.tensor([1.0])),
        (torch.tensor([1.0]), torch.tensor([[1.0]])),
        (1, 1.0),
        (1, 2),
        ("a", "b"),
        (torch.tensor([[1.0]]).to_sparse(), torch.tensor([[2.0]]).to_sparse()),
    ],
)
def test_what_differs(a, b):
    assert difference(a, b, 1e-10) is not None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.tensor([1.0, math.inf]), torch.tensor([1.0, math.inf])),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.00001])),
        (torch.tensor([1.0]).bfloat16(), torch.tensor([1.005]).bfloat16()),
        (torch.tensor([1.0 + 2j], dtype=torch.complex128), torch.tensor([1.0 + 2j], dtype=torch.complex128)),
        (torch.tensor([], dtype=torch.float64), torch.tensor([], dtype=torch.float64)),
        (torch.tensor([True]), torch.tensor([True])),
        (torch.tensor([1.0]).to(torch.float8_e5m2), torch.tensor([1.0]).to(torch.float8_e5m2)),
        (np.float32(1), np.float32(1)),
        ("a", "a"),
    ],
)
def test_what_is_the_same(a, b):
    assert difference(a, b, 1e-10) is None


@pytest.mark.parametrize(
    ("after", "where"),
    [
        (lambda y: y * (y.sum() - y.sum()) / (y.sum() - y.sum()), r"div at test_finite\.py"),
        (lambda y: torch.where(y > -9, math.inf, y) - math.inf, r"sub at test_finite\.py"),
        (lambda y: (y - y.abs().max() - 1).log(), r"log at test_finite\.py"),
    ],
)
def test_a_model_that_gives_nan_keeps_its_units_and_says_where(after, where):
    model, x = made(after)
    assert bool(model(x).isnan().all())
    text = trace(model, x).explain()
    assert "the model itself gives NaN on example 1" in text
    with pytest.warns(UserWarning, match=rf"the model itself gives NaN on example 1, first in {where}"):
        assert srn.compact(model, x).rnn.hidden_size == 8


def test_an_example_and_a_weight_with_nan_are_named():
    model, x = made()
    x[0, 1, 2] = NAN
    with pytest.warns(UserWarning, match="NaN on example 1, which holds it already"):
        srn.compact(model, x)
    model, x = made()
    with torch.no_grad():
        model.rnn.bias_hh_l0[3] = NAN
    with pytest.warns(UserWarning, match=r"NaN on example 1: rnn\.bias_hh_l0 holds it"):
        srn.compact(model, x)


def test_a_small_model_that_gives_nan_is_not_returned():
    model, x = made()
    structure, calls = trace(model, x), examples.calls(x)
    small, _ = made(lambda y: y.abs().neg().sqrt())
    dead = structure.classes.dead(dict(model.named_parameters()))
    with quiet():
        assert mismatch(model, model, calls, structure, dead) is None
        found = mismatch(model, small, calls, structure, dead)
        both = mismatch(small, small, calls, structure, dead)
    assert found is not None and "the compacted model gives NaN on example 1, first in sqrt at test_finite.py" in found
    assert both is not None and "the model itself gives NaN" in both


class Normalised(nn.Module):
    """Reading weights are divided by their own norm, which is zero once nothing reads the unit."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.weight = nn.LSTM(3, 8, batch_first=True), nn.Parameter(torch.randn(8, 2))

    def forward(self, x):
        norm = self.weight.detach().double().numpy() ** 2
        return self.rnn(x)[0] @ (self.weight / torch.tensor(norm.sum(1, keepdims=True) ** 0.5).to(x))


def test_readers_that_are_nan_once_they_are_zero_stay():
    torch.manual_seed(0)
    model, x = Normalised(), torch.randn(2, 4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = trace(model, x)
    assert not structure.removable()["rnn.l0"].any()


@pytest.mark.parametrize(
    "after",
    [
        lambda y: torch.view_as_complex(y),
        lambda y: torch.complex(y, y.flip(0)),
        lambda y: y.half(),
        lambda y: y.bfloat16(),
        lambda y: (y, y.argmax(-1), y > 0),
        lambda y: {"scores": y.detach().numpy(), "best": y.argmax(-1).tolist()},
        lambda y: y.to_sparse(),
        lambda y: torch.polar(y.abs(), y),
    ],
)
def test_outputs_of_every_type_are_compared(after):
    model, x = made(after)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        small = srn.compact(model, x)
    assert small.rnn.hidden_size == 5
    with quiet():
        structure, calls = trace(model, x), examples.calls(x)
        small.fc.weight.data *= -1
        dead = structure.classes.dead(dict(model.named_parameters()))
        assert mismatch(model, small, calls, structure, dead) is not None


class Guarded(Net):
    """Takes one type of numbers only, and raises at one call of several."""

    raises_at, count = -1, [0]

    def forward(self, x):
        self.count[0] += 1
        if x.dtype != torch.float32 or self.count[0] == self.raises_at:
            raise ValueError("out of range")
        return super().forward(x)


@pytest.mark.parametrize("at", [1, 2])
def test_a_forward_that_raises_in_between_spoils_no_later_comparison(at):
    torch.manual_seed(0)
    model, x = Guarded().eval(), torch.randn(2, 4, 3)
    structure = trace(model, x)
    checker = _Checker(model, examples.calls(x), structure)
    checker._use(None, 1e-4)
    before = {name: p.clone() for name, p in checker.twin.model.named_parameters()}
    Guarded.raises_at = Guarded.count[0] + at
    assert not checker._holds(list(range(4)))
    assert all(torch.equal(p, before[name]) for name, p in checker.twin.model.named_parameters())
    assert checker._holds(list(range(4)))
