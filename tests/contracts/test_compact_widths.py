"""`compact` where widths hang together or can't be cut: what can go goes, and what stays is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparsernn as srn
from sparsernn.structure.trace import trace
from sparsernn.surgery.compact import compact

from .architecture import difference, set_slices
from .compacted import widths

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


class OwnLSTM(nn.LSTM):
    """A user's own subclass: compact can't exchange it for another class."""

    def forward(self, x, hx=None):
        return super().forward(x, hx)


class OnOwn(nn.Module):
    def __init__(self, proj=0, hidden=6):
        super().__init__()
        self.rnn = OwnLSTM(3, hidden, num_layers=2, bidirectional=True, proj_size=proj)
        self.fc = nn.Linear(2 * (proj or hidden), 2)

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


@pytest.mark.parametrize(
    ("proj", "hidden", "unit_set", "left"),
    [(0, 6, "", 5), (4, 7, "", 6), (4, 6, ".projected", 3)],  # torch's LSTM needs more cell units than projected ones
    ids=["plain", "cells", "projected"],
)
def test_layers_of_a_subclass_keep_one_width(proj, hidden, unit_set, left):
    torch.manual_seed(0)
    model, x = OnOwn(proj, hidden).double(), torch.randn(5, 2, 3, dtype=torch.float64)
    structure = srn.trace(model, x)
    assert "one width" in structure.explain()
    parameters = dict(model.named_parameters())
    for end, units in (("l0", (1,)), ("l0_reverse", (0, 2)), ("l1", (2, 0, 3)), ("l1_reverse", (1, 3))):
        for unit in units:
            for name, axis, index in structure.readers(f"rnn.{end}{unit_set}", unit):
                parameters[name].data.select(axis, index).zero_()
    assert {int(mask.sum()) for s, mask in structure.dead(parameters).items() if s.endswith(unit_set)} >= {1}
    with pytest.warns(UserWarning, match=r"dead units stay .*one width"):
        small = compact(model, x)
    assert type(small.rnn) is OwnLSTM
    assert (small.rnn.proj_size if unit_set else small.rnn.hidden_size) == left
    assert difference([small(x)], [model(x)]) <= 1e-10


def test_nothing_goes_from_a_subclass_of_which_one_layer_needs_all():
    torch.manual_seed(0)
    model, x = OnOwn().double(), torch.randn(5, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        model.rnn.weight_hh_l1[:, 2] = 0
        model.fc.weight[:, 2] = 0
    with pytest.warns(UserWarning, match=r"dead units stay \(1 of rnn.l1\)"):
        small = compact(model, x)
    assert small.rnn.hidden_size == 6


class ByNumbers(nn.Module):
    """A cell written by hand whose weight is sliced at columns written as numbers, after a layer of torch's own."""

    def __init__(self):
        super().__init__()
        self.first = nn.GRU(5, 6, batch_first=True)
        self.w_in = nn.Parameter(torch.randn(7, 6))
        self.wide = nn.Parameter(torch.randn(7, 10))
        self.fc = nn.Linear(7, 2)

    def forward(self, x):
        y, _ = self.first(x)
        h = y.new_zeros(len(y), 7)
        for step in y.unbind(1):
            h = torch.tanh(F.linear(step, self.w_in) + F.linear(h, self.wide[:, 2:9]))
        return self.fc(h)


def test_what_cannot_be_cut_stays_by_name_and_the_rest_goes():
    torch.manual_seed(0)
    model, x = ByNumbers().double(), torch.randn(3, 4, 5, dtype=torch.float64)
    slices = [("first.weight_hh_l0", 1, 2), ("w_in", 1, 2), ("wide", 1, 2 + 4), ("fc.weight", 1, 4)]
    set_slices(dict(model.named_parameters()), slices, 0.0)
    with pytest.warns(UserWarning, match=r"dead units stay \(1 of wide\): no smaller form of ByNumbers runs") as said:
        small: Any = compact(model, x)
    assert said[0].filename == __file__
    assert widths(small) == {"first.l0": 5} and small.wide.shape == (7, 10)
    assert difference([small(x[:1, :2])], [model(x[:1, :2])]) <= 1e-10


class ByNumbersFirst(nn.Module):
    """The same cell before another one written by hand, which can be cut."""

    def __init__(self):
        super().__init__()
        self.cell = ByNumbers()
        self.cell.fc = nn.Identity()
        self.hidden_size = 4
        self.w_in = nn.Parameter(torch.randn(4, 7))
        self.w_h = nn.Parameter(torch.randn(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        h = x.new_zeros(len(x), self.hidden_size)
        for end in (2, 3, 4):
            h = torch.tanh(F.linear(self.cell(x[:, :end]), self.w_in) + F.linear(h, self.w_h))
        return self.head(h)


def test_what_cannot_be_cut_does_not_keep_what_comes_after_it():
    torch.manual_seed(0)
    model, x = ByNumbersFirst().double(), torch.randn(3, 4, 5, dtype=torch.float64)
    slices = [("cell.wide", 1, 2 + 4), ("w_in", 1, 4), ("w_h", 1, 1), ("head.weight", 1, 1)]
    set_slices(dict(model.named_parameters()), slices, 0.0)
    with pytest.warns(UserWarning, match=r"dead units stay \(1 of cell\.wide\)"):
        small: Any = compact(model, x)
    assert small.cell.wide.shape == (7, 10) and small.w_h.shape == (3, 3) and small.w_in.shape == (3, 7)
    assert difference([small(x[:1])], [model(x[:1])]) <= 1e-10


def test_strict_raises_where_dead_units_would_stay():
    torch.manual_seed(0)
    model, x = ByNumbers().double(), torch.randn(3, 4, 5, dtype=torch.float64)
    set_slices(dict(model.named_parameters()), [("first.weight_hh_l0", 1, 2), ("w_in", 1, 2)], 0.0)
    assert widths(compact(model, x, strict=True)) == {"first.l0": 5}
    set_slices(dict(model.named_parameters()), [("wide", 1, 2 + 4), ("fc.weight", 1, 4)], 0.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(RuntimeError, match=r"dead units stay \(1 of wide\).*\n.*strict=True") as caught:
        compact(model, x, optimizer=optimizer, strict=True)
    assert str(caught.value).count("\n") <= 2
    assert optimizer.param_groups[0]["params"] == list(model.parameters())
    own = OnOwn().double()
    set_slices(dict(own.named_parameters()), [("rnn.weight_hh_l1", 1, 2), ("fc.weight", 1, 2)], 0.0)
    with pytest.raises(RuntimeError, match="one width"):
        compact(own, torch.randn(5, 2, 3, dtype=torch.float64), strict=True)


class ByHand(nn.Module):
    """A sum with a tensor of the dense width, and a weight used without its module: the layer alone can shrink."""

    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.GRU(5, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return F.linear(self.rnn(x)[0] + torch.zeros(6, dtype=x.dtype), self.fc.weight, self.fc.bias)


def test_an_optimizer_follows_what_was_cut_and_no_more():
    torch.manual_seed(0)
    model, x = ByHand().double(), torch.randn(3, 4, 5, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters())
    model(x).square().sum().backward()
    optimizer.step()
    set_slices(dict(model.named_parameters()), [("rnn.weight_hh_l0", 1, 2), ("fc.weight", 1, 2)], 0.0)
    small: Any = compact(model, x, optimizer=optimizer, strict=True)
    assert widths(small) == {"rnn.l0": 5} and small.fc.weight.shape == (2, 6)
    assert all(optimizer.state[p]["exp_avg"].shape == p.shape for p in small.parameters())
    small(x).square().sum().backward()
    optimizer.step()


class SharedWidth(nn.Module):
    """Two cells written by hand, whose states the model makes from one number."""

    def __init__(self, hidden=6):
        super().__init__()
        self.hidden = hidden
        self.first_ih, self.first_hh = nn.Parameter(torch.randn(hidden, 5)), nn.Parameter(torch.randn(hidden, hidden))
        self.second_ih, self.second_hh = (nn.Parameter(torch.randn(hidden, hidden)) for _ in range(2))
        self.fc = nn.Linear(hidden, 2)

    def forward(self, x):
        first, second = (torch.zeros(len(x), self.hidden, dtype=x.dtype) for _ in range(2))
        for step in x.unbind(1):
            first = torch.tanh(F.linear(step, self.first_ih) + torch.mm(first, self.first_hh.t()))
            second = torch.tanh(F.linear(first, self.second_ih) + torch.mm(second, self.second_hh.t()))
        return self.fc(second)


def test_layers_that_share_one_number_lose_as_many_units():
    torch.manual_seed(0)
    model, x = SharedWidth().double(), torch.randn(3, 4, 5, dtype=torch.float64)
    dead = [("first_hh", k) for k in (0, 1, 4)] + [("second_ih", k) for k in (0, 1, 4)]
    dead += [("second_hh", k) for k in (2, 5)] + [("fc.weight", k) for k in (2, 5)]
    set_slices(dict(model.named_parameters()), [(name, 1, k) for name, k in dead], 0.0)
    with pytest.warns(UserWarning, match=r"dead units stay \(1 of first\w*\).* one width of all layers"):
        small: Any = compact(model, x)
    assert small.hidden == 4 and small.first_hh.shape == small.second_hh.shape == (4, 4)
    assert difference([small(x[:2, :3])], [model(x[:2, :3])]) <= 1e-10


class LightLayer(nn.Module):
    """A LiGRU (arXiv 1803.10225): its first state is a buffer, its bias bare, its width stands in a configuration."""

    def __init__(self, inputs, hidden):
        super().__init__()
        self.options = {"hidden": hidden}
        self.w, self.u = nn.Linear(inputs, 2 * hidden), nn.Linear(hidden, 2 * hidden, bias=False)
        self.bias = nn.Parameter(torch.randn(2 * hidden))
        self.register_buffer("start", torch.zeros(1, hidden))

    def forward(self, x):
        h, w, outputs = self.start.to(x), self.w(x) + self.bias, []
        mask = torch.ones(self.options["hidden"], dtype=x.dtype)
        for t in range(x.size(1)):
            a, z = (w[:, t] + self.u(h)).chunk(2, 1)
            z = torch.sigmoid(z)
            h = z * h + (1 - z) * torch.relu(a) * mask
            outputs.append(h)
        return torch.stack(outputs, 1)


def test_adapters_round_a_cell_leave_its_bias_and_the_buffer_of_its_first_state():
    torch.manual_seed(0)
    model = nn.Sequential(LightLayer(5, 6), LightLayer(6, 6), nn.Linear(6, 2)).double()
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    dead = [("0.u.weight", 1), ("1.w.weight", 1), ("0.u.weight", 4), ("1.w.weight", 4), ("1.u.weight", 2)]
    set_slices(dict(model.named_parameters()), [(name, 1, k) for name, k in [*dead, ("2.weight", 2)]], 0.0)
    small: Any = compact(model, x, strict=True)
    assert [tuple(layer.u.weight.shape) for layer in (small[0], small[1])] == [(8, 4), (10, 5)]
    assert difference([small(x[:2, :3])], [model(x[:2, :3])]) <= 1e-10


class TiedModel(nn.Module):
    """A stacked language model whose decoder is its embedding, with a zero state made by hand."""

    def __init__(self):
        super().__init__()
        self.width, self.encoder = 12, nn.Embedding(11, 12)
        self.rnn, self.decoder = nn.LSTM(12, 12, 2), nn.Linear(12, 11)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        zero = torch.zeros(2, x.shape[1], self.width, dtype=self.encoder.weight.dtype)
        return self.decoder(self.rnn(self.encoder(x), (zero, zero))[0])


@pytest.mark.parametrize("dead", [(8, 3), (3, 8)])
@torch.no_grad()
def test_layers_of_a_tied_model_become_as_narrow_as_each_of_them_can(dead):
    torch.manual_seed(0)
    model, x = TiedModel().double().eval(), torch.randint(0, 11, (5, 3))
    structure = trace(model, x)
    for layer, count in enumerate(dead):
        for unit in range(count):
            slices = frozenset(structure.readers(f"rnn.l{layer}", unit))
            set_slices(dict(model.named_parameters()), slices, 0.0)
    small = compact(model, x)
    assert small.rnn.hidden_sizes == ((12 - dead[0],), (12 - dead[1],))
    assert small.encoder.embedding_dim == small.rnn.input_size == 12 - dead[1]
    assert (small(x) - model(x)).abs().max() <= 1e-10
