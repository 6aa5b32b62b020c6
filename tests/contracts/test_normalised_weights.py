"""Readers that are divided by a norm of their own: no unit's group ever leaves 0/0, and what is cut changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

from sparsernn.structure.channels import Because
from sparsernn.structure.trace import trace
from sparsernn.surgery.compact import compact

from .architecture import set_slices

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Own(nn.Module):
    """A norm written by hand, as a parametrization."""

    def __init__(self, normalised):
        super().__init__()
        self.normalised = normalised

    def forward(self, weight):
        return self.normalised(weight)


BY_HAND = {
    "rows": lambda w: w / w.norm(dim=1, keepdim=True),
    "columns": lambda w: w / w.norm(dim=0, keepdim=True),
    "functional": lambda w: F.normalize(w, dim=0),
    "whole": lambda w: w / w.square().sum().sqrt(),
    "dot": lambda w: w / torch.dot(w.flatten(), w.flatten()).sqrt(),
    "einsum": lambda w: w * torch.einsum("ij,ij->", w, w).rsqrt(),
    "standardised": lambda w: (w - w.mean(1, keepdim=True)) / w.std(1, keepdim=True),
    "largest": lambda w: w / w.abs().amax(),
    "softmax": lambda w: w.softmax(0),
}
LAYERS = {
    "linear": lambda: nn.Linear(6, 3),
    "conv": lambda: nn.Conv1d(6, 3, 2),
    "transposed": lambda: nn.ConvTranspose1d(6, 3, 2, stride=2),
}


def _readers():
    for name, build in LAYERS.items():
        for dim in (None, 0, 1, -2) if name == "linear" else (None, 0, 1, 2, -2, -3):
            for kind in (parametrizations.weight_norm, weight_norm):
                where = kind.__module__.rpartition(".")[2]
                yield f"{name}-{where}-{dim}", lambda b=build, d=dim, kind=kind: kind(b(), dim=d)
        yield f"{name}-spectral", lambda b=build: parametrizations.spectral_norm(b())
        yield f"{name}-spectral_hook", lambda b=build: spectral_norm(b())
    for how in ("matrix_exp", "cayley", "householder"):
        yield f"orthogonal-{how}", lambda how=how: parametrizations.orthogonal(nn.Linear(6, 3), orthogonal_map=how)
    for name, normalised in BY_HAND.items():

        def by_hand(normalised=normalised):
            layer = nn.Linear(6, 3)
            parametrize.register_parametrization(layer, "weight", Own(normalised))
            return layer

        yield f"by_hand-{name}", by_hand


READERS = dict(_readers())


class Head(nn.Module):
    """Both directions of a GRU before a normalised reader."""

    def __init__(self, reader):
        super().__init__()
        self.rnn = nn.GRU(4, 3, batch_first=True, bidirectional=True)
        self.reader = READERS[reader]()

    def forward(self, x):
        y = self.rnn(x)[0]
        return self.reader(y) if isinstance(self.reader, nn.Linear) else self.reader(y.mT)


def groups_at_zero(model, structure, roles=("outgoing", "incoming", "bias")):
    """Every slice of every group of units, set to zero in `model`."""
    parameters = dict(model.named_parameters())
    slices = {
        (member.parameter, member.axis, index)
        for member in structure.groups("unit").of(parameters).members
        if member.role in roles
        for index, group in enumerate(member.group.tolist())
        if group >= 0
    }
    set_slices(parameters, frozenset(slices), 0.0)


@pytest.mark.parametrize("reader", READERS)
@torch.no_grad()
def test_all_groups_at_zero_are_finite_and_cut_exactly(reader):
    torch.manual_seed(0)
    model, x = Head(reader).double().eval(), torch.randn(2, 5, 4, dtype=torch.float64)
    model(x)
    structure = trace(model, x)
    free = sum(int(mask.sum()) for mask in structure.removable().values())
    assert all(isinstance(kept.because, Because) for kept in structure.kept)
    kept = {kept.because for kept in structure.kept}
    assert free or Because.NOT_FOLLOWED in kept, "all stay, and tracing does not say that it could not follow"
    if not free:
        return
    groups_at_zero(model, structure, ("outgoing",))
    expected = model(x)
    assert torch.isfinite(expected).all()
    small = compact(model, x)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    for one in (x, torch.randn(1, 3, 4, dtype=torch.float64)):
        assert (small(one) - model(one)).abs().max() <= 1e-10
    groups_at_zero(model, structure)
    assert torch.isfinite(model(x)).all()


@pytest.mark.parametrize("reader", [name for name in READERS if name.endswith(("-0", "-1", "-None", "spectral"))])
@torch.no_grad()
def test_weight_normalisation_is_followed_along_every_dimension(reader):
    model, x = Head(reader).eval(), torch.randn(2, 5, 4)
    model(x)
    structure = trace(model, x)
    free = sum(int(mask.sum()) for mask in structure.removable().values())
    # One unit has to stay only where the norm runs over the units.
    by_unit = reader.endswith("-0" if reader.startswith("transposed") else "-1")
    if "spectral" not in reader or reader.startswith("linear"):
        assert free == (6 if by_unit else 5), structure.explain()


class Cell(nn.Module):
    """A cell written by hand whose recurrent matrix is normalised, by rows or by columns."""

    def __init__(self, dim):
        super().__init__()
        self.x2h, self.fc = nn.Linear(4, 6), nn.Linear(6, 3)
        self.h2h = parametrizations.weight_norm(nn.Linear(6, 6), dim=dim)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], self.h2h.in_features)
        for x_t in x.unbind(1):
            h = torch.tanh(self.x2h(x_t) + self.h2h(h))
        return self.fc(h)


@pytest.mark.parametrize("dim", [None, 0, 1])
@torch.no_grad()
def test_a_cell_with_a_normalised_matrix_stays_finite(dim):
    torch.manual_seed(0)
    model, x = Cell(dim).double().eval(), torch.randn(2, 5, 4, dtype=torch.float64)
    structure = trace(model, x)
    free = [int(mask.sum()) for mask in structure.removable().values()]
    assert free == [5 if dim == 0 else 0], structure.explain()
    if dim != 0:  # the norm runs over the rows, and would be another without one
        assert {kept.because for kept in structure.kept} == {Because.MEANING}
        return
    groups_at_zero(model, structure, ("outgoing",))
    expected = model(x)
    small = compact(model, x)
    assert small.fc.in_features < 6 and (small(x) - expected).abs().max() <= 1e-10
    groups_at_zero(model, structure)
    assert torch.isfinite(model(x)).all()


@torch.no_grad()
def test_every_row_keeps_something_of_its_norm():
    """Sparse rows: each is left with one of the units that it still reads."""
    torch.manual_seed(0)
    model, x = Head("linear-parametrizations-0").double().eval(), torch.randn(2, 5, 4, dtype=torch.float64)
    v = model.reader.parametrizations.weight.original1
    for row, columns in enumerate(([0, 1], [2, 3], [4, 5])):
        for column in range(6):
            if column not in columns:
                v[row, column] = 0
    structure = trace(model, x)
    assert sum(int(mask.sum()) for mask in structure.removable().values()) == 3
    groups_at_zero(model, structure)
    assert torch.isfinite(model(x)).all()
