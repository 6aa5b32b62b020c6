"""What tracing can't follow is named: by `explain` with operation and line, and by `strict` as an error."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import sparsernn as srn
from sparsernn.structure.channels import Because
from sparsernn.structure.trace import trace

from .architectures import ARCHITECTURES
from .architectures.unknown import squash

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


@pytest.mark.parametrize(
    "name", ["custom_operation", "spectrum_of_units", "through_numpy", "through_lists", "multi_head"]
)
def test_strict_raises_where_something_cannot_be_followed(name):
    architecture = ARCHITECTURES[name]
    with pytest.raises((RuntimeError, ValueError, TypeError), match=r"(unknown|attention_pooling)\.py:\d+") as caught:
        trace(architecture.model(), architecture.examples()[0], strict=True)
    assert str(caught.value).count("\n") <= 2


class Unfollowed(nn.Module):
    """A layer before a head that tracing knows nothing of."""

    def __init__(self, head):
        super().__init__()
        self.rnn = nn.LSTM(5, 8, batch_first=True)
        self.grouped = nn.Conv1d(8, 4, 2, groups=2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 3)
        self.head = head

    def forward(self, x):
        return self.head(self, self.rnn(x)[0])


UNFOLLOWED = {
    "grouped convolution": lambda m, y: m.grouped(y.mT),
    "attention": lambda m, y: m.fc(m.attention(y, y, y)[0]),
    "outer product": lambda m, y: torch.einsum("bti,btj->bij", y, y),
    "out=": lambda m, y: m.fc(torch.add(y, 1, out=torch.empty_like(y))),
    "python": lambda m, y: m.fc(torch.tensor(y.tolist())),
    "numpy": lambda m, y: m.fc(torch.from_numpy(y.numpy())),
    "broadcast product": lambda m, y: (y.unsqueeze(-1) * y.unsqueeze(-2)).flatten(2),
    "own operation": lambda m, y: m.fc(squash(y)),
    "computed weight": lambda m, y: y @ torch.linalg.matrix_exp(m.fc.weight.T @ m.fc.weight),
}


@pytest.mark.filterwarnings("ignore:trace. no example reached")
@pytest.mark.parametrize("head", UNFOLLOWED)
def test_strict_refuses_whatever_is_not_followed(head):
    model, x = Unfollowed(UNFOLLOWED[head]), torch.randn(2, 4, 5)
    assert {kept.because for kept in trace(model, x).kept} == {Because.NOT_FOLLOWED}
    with pytest.raises(RuntimeError, match=r"rnn\.l0: 8 units can't be followed: .*test_reasons\.py:\d+"):
        trace(model, x, strict=True)


class SquashedCell(nn.Module):
    """A cell whose loop goes through an operation of the user's own, so that no unit is found at all."""

    def __init__(self):
        super().__init__()
        self.x2h, self.h2h = nn.Linear(5, 7), nn.Linear(7, 7)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 7)
        for x_t in x.unbind(1):
            h = squash(self.x2h(x_t) + self.h2h(h))
        return h


def test_strict_refuses_a_cell_none_of_whose_units_is_found():
    assert not trace(SquashedCell(), torch.randn(2, 4, 5)).unit_sets
    with pytest.raises(RuntimeError, match=r"can't be followed: .*squash.*test_reasons\.py:\d+"):
        trace(SquashedCell(), torch.randn(2, 4, 5), strict=True)


class FourReasons(nn.Module):
    """A layer that LayerNorm reads, two that are added, one whose state is returned, one before an own operation."""

    def __init__(self):
        super().__init__()
        self.normed, self.first = nn.LSTM(5, 6, batch_first=True), nn.LSTM(6, 4, batch_first=True)
        self.second, self.odd = nn.GRU(4, 4, batch_first=True), nn.GRU(4, 3, batch_first=True)
        self.norm, self.fc = nn.LayerNorm(6), nn.Linear(3, 2)

    def forward(self, x):
        y, _ = self.first(self.norm(self.normed(x)[0]))
        z, state = self.second(y)
        return self.fc(squash(self.odd(y + z)[0])), state


def test_explain_names_each_reason_with_operation_and_line():
    text = trace(FourReasons(), torch.randn(2, 4, 5)).explain()
    here = r"test_reasons\.py:\d+\)"
    for reason in (
        rf"normed\.l0: 6 units, 0 may go(.*\n)+?  6 stay: LayerNorm: its mean and variance .*\(layer_norm at {here}",
        rf"first\.l0: 4 units, 0 may go(.*\n)+?  tied with second\.l0: they go together \(add at {here}",
        r"second\.l0: 4 units, 0 may go(.*\n)+?  4 stay: a state handed to the caller \(output at FourReasons\); "
        r"if it is only fed back into the model, pass carried_states=True",
        rf"odd\.l0: 3 units, 0 may go(.*\n)+?  3 stay: an operation that is not followed \(squash.* at {here}",
    ):
        assert re.search(reason, text), text


class _Leaky(nn.Module):
    """A cell that feeds back element by element (a QRNN, a minGRU), or through a LayerNorm."""

    def __init__(self, normalised: bool):
        super().__init__()
        self.x2h, self.h2h = nn.Linear(5, 7), nn.Linear(7, 7)
        self.norm = nn.LayerNorm(7) if normalised else None

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 7)
        for x_t in x.unbind(1):
            if self.norm is None:
                gate = torch.sigmoid(self.h2h(self.x2h(x_t)))
                h = gate * h + (1 - gate) * torch.tanh(self.x2h(x_t))
            else:
                h = torch.tanh(self.x2h(x_t) + self.norm(self.h2h(h)))
        return h


def test_a_cell_without_a_declaration_is_told_of_register_cell():
    x = torch.randn(2, 4, 5)
    gated = trace(_Leaky(normalised=False), x)
    assert list(gated.unit_sets) == ["h2h"] and "handed to the caller" in gated.kept[0].reason
    assert re.search("h2h: a cell without a declaration.*register_cell", gated.explain())
    normalised = trace(_Leaky(normalised=True), x)
    assert not normalised.unit_sets
    assert re.search(r"h2h.weight.*come.* back .*LayerNorm: its mean and variance.*register_cell", normalised.explain())
    with pytest.warns(UserWarning, match="LayerNorm"):
        assert srn.compact(_Leaky(normalised=True), x) is not None


class _Mapped(nn.Module):
    """A loop inside torch.vmap."""

    def __init__(self):
        super().__init__()
        self.cell, self.fc = nn.Linear(5 + 6, 6), nn.Linear(6, 2)

    def forward(self, x):
        def one(steps):
            h = steps.new_zeros(6)
            for step in steps.unbind(0):
                h = torch.tanh(self.cell(torch.cat([step, h])))
            return h

        return self.fc(torch.vmap(one)(x))


def test_what_torch_func_wraps_is_named():
    assert "torch.vmap" in trace(_Mapped(), torch.randn(2, 4, 5)).explain()
