"""Other tensor objects over known memory: known by storage and view. What shares no memory stays unknown."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from sparsernn.structure.trace import trace
from sparsernn.surgery.compact import compact

from .architecture import set_slices


class Wrapped(Tensor):
    """A framework's own tensor class."""


@dataclass
class Batch:
    """A framework's container, which makes a tensor of its own for what it is given."""

    data: Tensor

    def __post_init__(self):
        self.data = torch.autograd.Variable(self.data)


def through_dlpack(x):
    return torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x))


def over_storage(x):
    with torch._C.DisableTorchFunction():
        return torch.empty(0, dtype=x.dtype).set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride())


def a_part(x):
    """A view that torch did not show us, of one unit fewer."""
    with torch._C.DisableTorchFunction():
        return x[..., 1:]


def turned(x):
    with torch._C.DisableTorchFunction():
        return x.transpose(0, 1)


ALIASES = {
    "variable": torch.autograd.Variable,
    "parameter": lambda x: nn.Parameter(x, requires_grad=False),
    "class": lambda x: x.as_subclass(Wrapped).as_subclass(Tensor),
    "made class": lambda x: Tensor._make_subclass(Tensor, x),
    "container": lambda x: Batch(x).data,
    "storage": over_storage,
    "copied": copy.deepcopy,
}
VIEWS = {"a part": (a_part, 1), "turned": (turned, 0)}


class Model(nn.Module):
    """An alias at four places: of the input, of the units, of a state that is fed back, of a constant."""

    def __init__(self, alias, dropped=0):
        super().__init__()
        self.rnn, self.cell = nn.GRU(4, 6, batch_first=True), nn.GRUCell(6 - dropped, 5)
        self.fc = nn.Linear(5, 3)
        self.alias, self.at = alias, -2 if alias is turned else 1

    def forward(self, x):
        y = self.alias(self.rnn(torch.autograd.Variable(x))[0])
        steps = y.unbind(0) if self.alias is turned else y.unbind(1)
        h = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for step in steps:
            h = torch.autograd.Variable(self.cell(step, h))
        return self.fc(h) * torch.autograd.Variable(torch.full_like(self.fc(h), 0.5))


@pytest.mark.parametrize("alias", [*ALIASES, *VIEWS])
@torch.no_grad()
def test_units_behind_an_alias_may_go(alias):
    torch.manual_seed(0)
    function, dropped = VIEWS.get(alias) or (ALIASES[alias], 0)
    model, x = Model(function, dropped).double().eval(), torch.randn(2, 5, 4, dtype=torch.float64)
    structure = trace(model, x, strict=True)
    free = {name: int(mask.sum()) for name, mask in structure.removable().items()}
    assert free == {"rnn.l0": 6, "cell": 5}, structure.explain()
    assert ("cell.weight_ih", 1, 4 - dropped) in structure.readers("rnn.l0", 4)
    set_slices(dict(model.named_parameters()), frozenset(structure.readers("rnn.l0", 4)), 0.0)
    small = compact(model, x)
    assert small.rnn.hidden_size == 5 and (small(x) - model(x)).abs().max() <= 1e-10


class HandCell(nn.Module):
    """A cell written by hand as old code does it: every state is wrapped again."""

    def __init__(self):
        super().__init__()
        self.x2h, self.h2h, self.fc = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = torch.autograd.Variable(torch.zeros(x.shape[0], self.h2h.in_features))
        for step in x.unbind(1):
            h = torch.autograd.Variable(torch.tanh(self.x2h(step) + self.h2h(h)))
        return self.fc(h)


def test_a_hand_written_cell_is_recurrent_through_an_alias():
    structure = trace(HandCell(), torch.randn(2, 5, 4), strict=True)
    assert {name: int(mask.sum()) for name, mask in structure.removable().items()} == {"h2h": 6}


class Foreign(nn.Module):
    """Memory that torch never saw: a list, NumPy, a scripted function."""

    def __init__(self, made):
        super().__init__()
        self.rnn, self.fc, self.made = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 3), made

    def forward(self, x):
        y = self.rnn(x)[0]
        return self.fc(self.made(y))


@torch.no_grad()
@pytest.mark.parametrize("made", [lambda y: torch.from_numpy(y.numpy().copy()), lambda y: torch.tensor(y.tolist())])
def test_what_shares_no_memory_is_not_known(made):
    structure = trace(Foreign(made), torch.randn(2, 5, 4))
    assert not structure.removable()["rnn.l0"].any()
